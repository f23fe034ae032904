"""One leg that hops along."""

from __future__ import annotations

from embodied.envs.tasks.hop import Hop

from tests.envs.tasks.behaviours import X, Z, look


def test_what_counts_by_hand() -> None:
    look(Hop(), True, {"speed": 1.0, "stands": 1.0}, qvel={X: 1.1})
    look(Hop(), False, {"speed": 1.0, "stands": 0.0}, qvel={X: 1.1}, qpos={Z: 0.6})
    look(Hop(), False, {"speed": 0.5, "stands": 1.0}, qvel={X: 0.5})
