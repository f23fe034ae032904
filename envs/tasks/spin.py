"""Spin on the spot."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Terms

from .ant import Ant
from .behaviour import Behaviour
from .body import free

Array = Any

FAST_RAD_S = 1.5


class Spin(Behaviour, Ant):
    """Four legs turn to the left, by 1.5 rad/s or faster for a second. A fall ends an episode.

    Terms: `turn` its rate as a share of 1.5 rad/s, in [-1, 1]; `stands`, 1 while it has not fallen;
    `does` it; `control`, the action squared.
    """

    name = "spin"
    max_steps = 200
    hold_s = 1.0
    instructions = (
        "spin to the left, at 1.5 radians a second or faster",
        "turn around and around, to the left",
    )
    weights = {"turn": 1.0, "stands": 0.5, "does": 0.5, "control": -0.05}

    def does(self, sim: Sim) -> Array:
        return (self._rate(sim) >= FAST_RAD_S) & self._healthy(sim)

    def pay(self, sim: Sim) -> Terms:
        return {
            "turn": sim.xp.clip(self._rate(sim) / FAST_RAD_S, -1.0, 1.0),
            "stands": sim.xp.astype(self._healthy(sim), sim.qpos.dtype),
        }

    def _rate(self, sim: Sim) -> Array:
        """How fast it turns about the vertical, `(N,)` in rad/s, positive to the left."""
        world = free(sim)
        forward, up, rates = (world[f"torso.{k}"] for k in ("forward", "up", "angular_velocity"))
        left = up[:, 0] * forward[:, 1] - up[:, 1] * forward[:, 0]
        return rates[:, 0] * forward[:, 2] + rates[:, 1] * left + rates[:, 2] * up[:, 2]
