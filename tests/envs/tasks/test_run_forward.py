"""Half a cheetah that runs forward."""

from __future__ import annotations

from embodied.envs.tasks.run_forward import RunForward

from tests.envs.tasks.behaviours import X, look


def test_what_counts_by_hand() -> None:
    look(RunForward(), True, {"speed": 1.0}, qvel={X: 3.1})
    look(RunForward(), False, {"speed": 0.5}, qvel={X: 1.5})
    look(RunForward(), False, {"speed": -1.0}, qvel={X: -9.0})
