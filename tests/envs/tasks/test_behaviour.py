"""What bodies do counts once it was kept up."""

from __future__ import annotations

import numpy as np
from embodied.envs.tasks.run_forward import RunForward

from tests.envs.tasks.behaviours import X, sim_of


def test_it_must_be_kept_up_without_a_break() -> None:
    task = RunForward()
    sim = sim_of(task, 2)
    memory, action = task.memory(sim), np.zeros((2, 6))
    sim.qvel[:, X] = 5.0
    for step in range(1, 21):
        sim.qvel[1, X] = 0.0 if step == 10 else 5.0
        _, memory = task.reward(sim, action, {}, memory)
        assert task.success(sim, memory).tolist() == [step >= 20, False]
    assert memory["held"].tolist() == [20, 10]
