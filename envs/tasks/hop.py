"""Hop forward at one metre a second."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Terms

from .behaviour import Behaviour
from .hopper import Hopper

Array = Any

FAST_M_S = 1.0


class Hop(Behaviour, Hopper):
    """One leg hops forward, at 1 m/s or faster for a second. A fall ends an episode.

    Terms: `speed` forward as a share of 1 m/s, in [-1, 1]; `stands`, 1 while it has not fallen;
    `does` it; `control`, the action squared.
    """

    name = "hop"
    max_steps = 500
    hold_s = 1.0
    instructions = (
        "hop forward at one metre a second or faster, without falling",
        "hop along on one leg",
    )
    weights = {"speed": 1.0, "stands": 0.5, "does": 0.5, "control": -1e-3}

    def does(self, sim: Sim) -> Array:
        return (sim.qvel[:, 0] >= FAST_M_S) & self._healthy(sim)

    def pay(self, sim: Sim) -> Terms:
        return {
            "speed": sim.xp.clip(sim.qvel[:, 0] / FAST_M_S, -1.0, 1.0),
            "stands": sim.xp.astype(self._healthy(sim), sim.qpos.dtype),
        }
