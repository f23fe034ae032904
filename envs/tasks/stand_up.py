"""Stand up on the hind legs."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Terms

from .behaviour import Behaviour
from .half_cheetah import GROUND_M, HalfCheetah

Array = Any

UPRIGHT, HIGH_M = 0.8, 0.6
"""The share of the back that points up, a sine, and how high the middle of it must be."""


class StandUp(Behaviour, HalfCheetah):
    """Half a cheetah rears up and stands on its hind legs, its back upright, for half a second.

    Terms: `up` how far the nose points up, in [0, 1], less where the torso is low; `does` it;
    `control`, the action squared.
    """

    name = "stand_up"
    max_steps = 200
    hold_s = 0.5
    instructions = (
        "stand up on the hind legs, with the back upright, for half a second",
        "rear up and stay upright on the hind foot",
    )
    weights = {"up": 1.0, "does": 1.0, "control": -0.02}

    def does(self, sim: Sim) -> Array:
        up, height = self._posture(sim)
        return (up >= UPRIGHT) & (height >= HIGH_M)

    def pay(self, sim: Sim) -> Terms:
        up, height = self._posture(sim)
        return {"up": 0.5 * (up + 1.0) * sim.xp.clip(height / HIGH_M, 0.0, 1.0)}

    def _posture(self, sim: Sim) -> tuple[Array, Array]:
        """How far the nose points up, in [-1, 1], and the height of the torso in metres."""
        return -sim.xp.sin(sim.qpos[:, 2]), sim.qpos[:, 1] + GROUND_M
