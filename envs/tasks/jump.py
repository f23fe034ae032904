"""Jump over nothing."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Quantity, Terms
from embodied.types import Carry

from .behaviour import Behaviour
from .body import PLANAR
from .half_cheetah import HalfCheetah, ankle_heights

Array = Any

STANDS_M, CLEAR_M, LEVEL_RAD = 0.2, 0.35, 0.7
"""Of an ankle when its foot is on the ground, and when all of the foot is 10 cm above it."""


class Jump(Behaviour, HalfCheetah):
    """Half a cheetah jumps, its back level, until both feet are 10 cm off the ground.

    Terms: `high` how far the lower foot is up, in [0, 1], while its back is level; `does` it;
    `control`, the action squared.
    """

    name = "jump"
    max_steps = 200
    hold_s = 0.1
    instructions = (
        "jump: with the back level, both feet 10 cm off the ground",
        "leap into the air with all feet, without rearing up",
    )
    weights = {"high": 1.0, "does": 2.0, "control": -0.02}
    quantities = (
        *PLANAR,
        Quantity(
            "feet.heights", "m", "of the hind and the front ankle, at most 0.23 on the ground"
        ),
    )

    def does(self, sim: Sim) -> Array:
        lower = sim.xp.min(ankle_heights(sim), axis=1)
        return (lower >= CLEAR_M) & self._level(sim)

    def pay(self, sim: Sim) -> Terms:
        lower = sim.xp.min(ankle_heights(sim), axis=1)
        level = sim.xp.astype(self._level(sim), lower.dtype)
        share = (lower - STANDS_M) / (CLEAR_M - STANDS_M)
        return {"high": level * sim.xp.clip(share, 0.0, 1.0)}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        return {**super().world(sim, memory), "feet.heights": ankle_heights(sim)}

    def _level(self, sim: Sim) -> Array:
        return sim.xp.abs(sim.qpos[:, 2]) < LEVEL_RAD
