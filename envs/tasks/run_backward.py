"""Run backward at two metres a second."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Terms

from .behaviour import Behaviour
from .half_cheetah import HalfCheetah

Array = Any

FAST_M_S, TIPPED_RAD = 2.0, 1.0


class RunBackward(Behaviour, HalfCheetah):
    """Half a cheetah runs backward, at 2 m/s or faster for a second, without turning over.

    Terms: `speed` backward as a share of 2 m/s, in [-1, 1], while its back is up; `does` it;
    `control`, the action squared.
    """

    name = "run_backward"
    max_steps = 200
    hold_s = 1.0
    instructions = (
        "run backward at two metres a second or faster, without turning over",
        "run backwards, fast, on your feet",
    )
    weights = {"speed": 1.0, "does": 0.5, "control": -0.05}

    def does(self, sim: Sim) -> Array:
        return (sim.qvel[:, 0] <= -FAST_M_S) & self._upright(sim)

    def pay(self, sim: Sim) -> Terms:
        upright = sim.xp.astype(self._upright(sim), sim.qpos.dtype)
        return {"speed": upright * sim.xp.clip(-sim.qvel[:, 0] / FAST_M_S, -1.0, 1.0)}

    def _upright(self, sim: Sim) -> Array:
        return sim.xp.abs(sim.qpos[:, 2]) < TIPPED_RAD
