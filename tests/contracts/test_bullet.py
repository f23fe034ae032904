"""Every task of an arm is the same task in PyBullet: the same starts, and experts that succeed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make_env
from embodied.config import CONF, compose_config, options

ARMS = [
    name
    for name in options("env")
    if "robot" in (OmegaConf.load(CONF / f"env/{name}.yaml").get("task") or {})
]
WORLDS = 6


def worlds(name: str, sim: str, count: int = WORLDS) -> Any:
    return make_env(compose_config([f"env={name}", f"sim={sim}"]), num_envs=count)


def test_the_arm_tasks_are_found() -> None:
    assert len(ARMS) == 7


@pytest.mark.parametrize("name", ARMS)
def test_an_episode_starts_as_in_mujoco_and_its_expert_succeeds(name: str) -> None:
    bullet, mujoco = worlds(name, "bullet"), worlds(name, "mujoco")
    first, other = (env.reset(seed=400)["state"] for env in (bullet, mujoco))
    np.testing.assert_allclose(first, other, atol=1e-6)
    won = np.zeros(WORLDS, bool)
    for _ in range(bullet.max_steps):
        step = bullet.step(bullet.expert())
        won |= step.success & (step.fault == 0)
        if won.all():
            break
    assert won.sum() >= WORLDS - 1, won
    for env in (bullet, mujoco):
        env.close()
