"""Run forward at three metres a second."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Terms

from .behaviour import Behaviour
from .half_cheetah import HalfCheetah

Array = Any

FAST_M_S = 3.0


class RunForward(Behaviour, HalfCheetah):
    """Half a cheetah runs forward, at 3 m/s or faster for a second.

    Terms: `speed` forward as a share of 3 m/s, in [-1, 1]; `does` it; `control`, the action
    squared.
    """

    name = "run_forward"
    max_steps = 200
    hold_s = 1.0
    instructions = ("run forward at three metres a second or faster", "run ahead, fast")
    weights = {"speed": 1.0, "does": 0.5, "control": -0.05}

    def does(self, sim: Sim) -> Array:
        return sim.qvel[:, 0] >= FAST_M_S

    def pay(self, sim: Sim) -> Terms:
        return {"speed": sim.xp.clip(sim.qvel[:, 0] / FAST_M_S, -1.0, 1.0)}
