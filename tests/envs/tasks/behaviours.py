"""Hand-made states of walking bodies, for the tests of what they are to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.behaviour import Behaviour

X, Z, PITCH = 0, 1, 2
"""Where a body in a plane has its place, height and lean, in `qpos` and `qvel`."""


def sim_of(task: Any, count: int = 1) -> MujocoSim:
    sim = MujocoSim(task.model(), count, threads=1)
    task.bind(sim)
    return sim


def look(
    task: Behaviour, does: bool, paid: dict[str, float], qpos: Any = None, qvel: Any = None
) -> None:
    """One world in a state that differs from the model's own by `qpos` and `qvel`."""
    sim = sim_of(task)
    for array, values in ((sim.qpos, qpos), (sim.qvel, qvel)):
        for place, value in (values or {}).items():
            array[0, place] = value
    action = np.full((1, sim.control_range.shape[0]), 0.5)
    terms, memory = task.reward(sim, action, {}, task.memory(sim))
    assert bool(terms["does"][0]) is does and memory["held"].tolist() == [int(does)]
    assert terms["control"][0] == 0.25 * action.shape[1]
    assert set(terms) == set(task.weights)
    for name, value in paid.items():
        assert terms[name][0] == pytest.approx(value, abs=1e-6), name
