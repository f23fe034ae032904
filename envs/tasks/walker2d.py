"""Walker2d-v5 of Gymnasium: walk forward on two legs without falling."""

from __future__ import annotations

from typing import Any

from embodied.sim import ModelSource, Sim

from .gymnasium_model import gymnasium_model
from .hopper import Hopper

Array = Any


class Walker2d(Hopper):
    """Hopper's task with two legs: another model, and looser bounds on being upright."""

    name = "walker2d"
    instructions = ("walk forward as fast as possible without falling",)

    def model(self) -> ModelSource:
        return gymnasium_model("walker2d_v5.xml")

    def _healthy(self, sim: Sim) -> Array:
        """Upright at a walking height, `(N,)` bool."""
        height, angle = sim.qpos[:, 1], sim.qpos[:, 2]
        return (height > 0.8) & (height < 2.0) & (sim.xp.abs(angle) < 1.0)
