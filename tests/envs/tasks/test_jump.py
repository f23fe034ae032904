"""Half a cheetah in the air."""

from __future__ import annotations

from embodied.envs.tasks.jump import Jump

from tests.envs.tasks.behaviours import PITCH, Z, look


def test_what_counts_by_hand() -> None:
    look(Jump(), True, {"high": 1.0}, qpos={Z: 0.45})
    look(Jump(), False, {"high": 0.5}, qpos={Z: 0.2})
    look(Jump(), False, {"high": 0.0}, qpos={Z: 0.45, PITCH: -0.8})  # it rears up
