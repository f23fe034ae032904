"""Jump over nothing."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Terms

from .behaviour import Behaviour
from .half_cheetah import HalfCheetah

Array = Any

JUMP_M, LEVEL_RAD = 0.4, 0.7


class Jump(Behaviour, HalfCheetah):
    """Half a cheetah jumps, its back level, until it is 40 cm higher than it stands.

    Terms: `high` the height over the stand as a share of 40 cm, while level, in [0, 1]; `does` it;
    `control`, the action squared.
    """

    name = "jump"
    max_steps = 200
    hold_s = 0.1
    instructions = (
        "jump: with the back level, 40 cm higher than you stand",
        "leap into the air without rearing up",
    )
    weights = {"high": 1.0, "does": 2.0, "control": -0.02}

    def does(self, sim: Sim) -> Array:
        return (sim.qpos[:, 1] >= JUMP_M) & self._level(sim)

    def pay(self, sim: Sim) -> Terms:
        level = sim.xp.astype(self._level(sim), sim.qpos.dtype)
        return {"high": level * sim.xp.clip(sim.qpos[:, 1] / JUMP_M, 0.0, 1.0)}

    def _level(self, sim: Sim) -> Array:
        return sim.xp.abs(sim.qpos[:, 2]) < LEVEL_RAD
