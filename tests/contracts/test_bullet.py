"""The arm's tasks in a second physics engine: the same worlds, and experts that succeed in them."""

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
    if "robot" in OmegaConf.load(CONF / f"env/{name}.yaml").get("task", {})
]
SEEDS = 12
PADS_M = 2e-3
"""How much fatter the URDF's fingers are than its meshes, both together: Bullet's margin."""


def worlds(name: str, count: int, *overrides: str) -> Any:
    return make_env(compose_config([f"env={name}", *overrides]), count)


def test_all_arm_tasks_are_here() -> None:
    assert len(ARMS) == 7 and {"reach", "tidy_table"} <= set(ARMS)


@pytest.mark.parametrize("name", ARMS)
def test_worlds_begin_as_in_mujoco(name: str) -> None:
    """Observations, readouts, spaces; and as long as nothing is touched they stay alike."""
    mine, theirs = worlds(name, 3), worlds(name, 3, "sim=bullet")
    assert theirs.observation_space == mine.observation_space
    assert theirs.action_spec.names == mine.action_spec.names
    seeds = np.array([7, 8, 9])
    starts = [env.reset(seed=seeds) for env in (mine, theirs)]
    for key, value in starts[0].items():
        np.testing.assert_array_equal(starts[1][key], value)
    told, other = mine.readouts(), theirs.readouts()
    assert told.keys() == other.keys()
    for key, value in told.items():
        np.testing.assert_allclose(other[key], value, atol=1e-9, err_msg=key)
    rng, spec = np.random.default_rng(0), mine.action_spec
    for _ in range(8):
        unit = 0.2 * rng.uniform(-1.0, 1.0, (3, spec.size))
        action = (0.5 * (spec.low + spec.high) + 0.5 * (spec.high - spec.low) * unit).astype("f4")
        steps = [env.step(action) for env in (mine, theirs)]
    np.testing.assert_allclose(theirs.memory["tool"], mine.memory["tool"], atol=2e-3)
    np.testing.assert_allclose(steps[1].reward, steps[0].reward, atol=0.02)
    for env in (mine, theirs):
        env.close()


@pytest.mark.parametrize("name", ARMS)
def test_the_expert_succeeds(name: str) -> None:
    env = worlds(name, SEEDS, "sim=bullet")
    env.reset(seed=np.arange(300, 300 + SEEDS))
    won, open_to = np.zeros(SEEDS, bool), np.inf
    for _ in range(env.max_steps):
        step = env.step(env.expert())
        won |= step.success
        assert not step.fault.any()
        open_to = min(open_to, float(env.sim.qpos[:, 7:9].sum(axis=1).min()))
        if won.all():
            break
    assert won.mean() >= 0.9
    if name == "pick_cube":  # the fingers stop at the cube and not inside it
        assert open_to > 2.0 * float(env.memory["half"].min()) - PADS_M
    env.close()


def test_a_flawed_expert_fails_there_too() -> None:
    env = worlds("pick_cube", 3 * SEEDS // 2, "sim=bullet")
    flaws = ("stops_short", "drops", "near_miss")
    env.reset(seed=np.tile(np.arange(SEEDS // 2), 3))
    won = np.zeros(env.num_worlds, bool)
    for _ in range(100):
        acts = [env.expert(flaw)[k * SEEDS // 2 : (k + 1) * SEEDS // 2]
                for k, flaw in enumerate(flaws)]  # fmt: skip
        won |= env.step(np.concatenate(acts)).success
    assert won.mean() <= 0.1
    env.close()


@pytest.mark.parametrize("name", ["pick_cube", "stack_cube", "open_drawer"])
def test_the_models_own_arm_does_it_as_well(name: str) -> None:
    env = worlds(name, 6, "sim=bullet", "sim.urdf=null")
    env.reset(seed=np.arange(6))
    won = np.zeros(6, bool)
    for _ in range(100):
        won |= env.step(env.expert()).success
    assert won.mean() >= 0.8
    env.close()


def test_randomised_worlds_differ_and_still_let_the_expert_succeed() -> None:
    spans = ("mass=[0.7,1.4]", "friction=[0.7,1.5]", "gains=[0.7,1.4]", "delay_steps=[0,1]")
    env = worlds("pick_cube", 8, "sim=bullet", *(f"env.randomise.{span}" for span in spans))
    env.reset(seed=np.arange(8))
    own = env.sim.snapshot()
    for name in ("body_mass", "geom_friction", "actuator_gainprm"):
        values = own[f"model/{name}"].reshape(8, -1)
        assert (values.std(axis=0) > 0).any(), name
    won = np.zeros(8, bool)
    for _ in range(120):
        won |= env.step(env.expert()).success
    assert won.mean() >= 0.75
    env.close()
