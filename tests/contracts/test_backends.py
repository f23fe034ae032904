"""A task is one task on every backend: the same observations, rewards and resets.

Single and double precision part ways with time, and sooner through contact, so trajectories are
compared over few steps (two tasks over a hundred) and the rest by what experts achieve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make_env
from embodied.config import CONF, compose_config, options

TASKS = [name for name in options("env") if "task" in OmegaConf.load(CONF / f"env/{name}.yaml")]
WORLDS = 2
STEPS = 12
OTHER_STEPS = {"line_reach": 100, "pick_cube": 100, "ant": 2, "spin": 2, "humanoid": 4}
"""The last three land on their feet then."""
GENTLE = 0.2
"""Share of an action's limits: an arm that moves so little touches nothing."""
TOLERANCE = 2e-3


def both(name: str, worlds: int = WORLDS) -> list[Any]:
    overrides = [f"env={name}", "env.max_steps=1000"]
    return [
        make_env(compose_config([*overrides, f"sim={sim}"]), worlds) for sim in ("mujoco", "warp")
    ]


def assert_alike(mine: dict[str, Any], theirs: dict[str, Any], tolerance: float, when: str) -> None:
    for key, value in mine.items():
        np.testing.assert_allclose(
            theirs[key], value, atol=tolerance, rtol=tolerance, err_msg=f"{key}, {when}"
        )


@pytest.mark.parametrize("name", TASKS)
def test_the_backends_agree(name: str) -> None:
    cpu, warp = both(name)
    spec, tolerance = cpu.action_spec, TOLERANCE
    assert_alike(cpu.reset(seed=7), warp.reset(seed=7), tolerance, "at the start")
    rng = np.random.default_rng(0)
    for t in range(OTHER_STEPS.get(name, STEPS)):
        unit = GENTLE * rng.uniform(-1.0, 1.0, (WORLDS, spec.size))
        action = (0.5 * (spec.low + spec.high) + 0.5 * (spec.high - spec.low) * unit).astype("f4")
        mine, theirs = cpu.step(action), warp.step(action)
        assert not theirs.fault.any()
        assert_alike(mine.obs, theirs.obs, tolerance, f"step {t}")
        assert_alike({"reward": mine.reward}, {"reward": theirs.reward}, tolerance, f"step {t}")
        np.testing.assert_array_equal(theirs.terminated, mine.terminated)
    second = np.array([False, True])
    assert_alike(cpu.reset(second), warp.reset(second), tolerance, "after a reset")
    told, other = cpu.readouts(), warp.readouts()
    assert told.keys() == other.keys()
    for env in (cpu, warp):
        env.close()


def test_the_expert_succeeds_through_contact_on_both() -> None:
    shares = []
    for env in both("pick_cube", 16):
        env.reset(seed=100)
        won = np.zeros(16, bool)
        for _ in range(120):
            won |= env.step(env.expert()).success
        shares.append(won.mean())
    assert min(shares) >= 0.9, shares
