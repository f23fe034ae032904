"""Half a cheetah that runs backward, on its feet."""

from __future__ import annotations

from embodied.envs.tasks.run_backward import RunBackward

from tests.envs.tasks.behaviours import PITCH, X, look


def test_what_counts_by_hand() -> None:
    look(RunBackward(), True, {"speed": 1.0}, qvel={X: -2.1})
    look(RunBackward(), False, {"speed": 0.0}, qvel={X: -2.1}, qpos={PITCH: 1.1})
    look(RunBackward(), False, {"speed": -0.5}, qvel={X: 1.0})
