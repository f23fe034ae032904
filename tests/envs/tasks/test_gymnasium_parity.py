"""The five tasks that Gymnasium publishes, step for step against its own v5 envs."""

from types import SimpleNamespace
from typing import Any

import array_api_compat.torch
import array_api_strict
import gymnasium as gym
import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.ant import Ant
from embodied.envs.tasks.half_cheetah import HalfCheetah
from embodied.envs.tasks.hopper import Hopper
from embodied.envs.tasks.humanoid import Humanoid
from embodied.envs.tasks.walker2d import Walker2d

from embodied.env import TaskEnv
from embodied.random import Draw
from embodied.task import Task

GYMNASIUM = {
    HalfCheetah: "HalfCheetah-v5",
    Hopper: "Hopper-v5",
    Walker2d: "Walker2d-v5",
    Ant: "Ant-v5",
    Humanoid: "Humanoid-v5",
}
TERMS = {"forward": "forward", "control": "ctrl", "contact": "contact", "survive": "survive"}
CONTACT_FORCES = {Ant: slice(27, 105), Humanoid: slice(270, 348)}
"""Which observations differ from Gymnasium's: contact forces, by one Runge-Kutta stage."""

parametrised = pytest.mark.parametrize("task_type", GYMNASIUM, ids=lambda t: t.__name__)


def make_env(task: Task, num_worlds: int, **settings: Any) -> TaskEnv:
    return TaskEnv(task, MujocoSim(task.model(), num_worlds, threads=1), **settings)


def start_alike(theirs: list[Any], ours: TaskEnv, worlds: np.ndarray) -> np.ndarray:
    """Put the state that our worlds start from into Gymnasium's envs, and return their obs."""
    for i in worlds:
        theirs[i].reset(seed=int(i))
        theirs[i].set_state(ours.sim.qpos[i].copy(), ours.sim.qvel[i].copy())
    return np.stack([env._get_obs() for env in theirs])


@parametrised
def test_a_thousand_steps_equal_gymnasiums(task_type: type[Task]) -> None:
    num_worlds, steps = 2, 1000
    ours = make_env(task_type(), num_worlds)
    theirs = [gym.make(GYMNASIUM[task_type]).unwrapped for _ in range(num_worlds)]
    assert ours.action_space == theirs[0].action_space
    assert ours.observation_space["state"] == theirs[0].observation_space
    assert ours.sim.timestep_s * ours.substeps == theirs[0].dt
    compared = np.ones(theirs[0].observation_space.shape, bool)
    compared[CONTACT_FORCES.get(task_type, slice(0))] = False
    exact_terms = set(ours.task.weights) - ({"contact"} if task_type in CONTACT_FORCES else set())
    rng, endings, elapsed = np.random.default_rng(0), 0, np.zeros(num_worlds, np.int64)
    obs = ours.reset()["state"]
    np.testing.assert_array_equal(obs, start_alike(theirs, ours, np.arange(num_worlds)))
    for _ in range(steps):
        low, high = ours.action_space.low, ours.action_space.high
        action = rng.uniform(low, high, (num_worlds, len(low))).astype(np.float32)
        step = ours.step(action)
        rows = [env.step(a) for env, a in zip(theirs, action, strict=True)]
        for i, env in enumerate(theirs):
            np.testing.assert_array_equal(ours.sim.qpos[i], env.data.qpos)
            np.testing.assert_array_equal(ours.sim.qvel[i], env.data.qvel)
            obs, reward, terminated, _, info = rows[i]
            np.testing.assert_array_equal(step.obs["state"][i, compared], obs[compared])
            assert step.terminated[i] == terminated
            for name in exact_terms:
                term = ours.task.weights[name] * step.reward_terms[name][i]
                assert term == pytest.approx(info["reward_" + TERMS[name]], rel=1e-6, abs=1e-6)
            if exact_terms == set(ours.task.weights):
                assert step.reward[i] == pytest.approx(reward, rel=1e-6, abs=1e-6)
            else:
                rest = reward - info["reward_contact"]
                contact = ours.task.weights["contact"] * step.reward_terms["contact"][i]
                assert step.reward[i] - contact == pytest.approx(rest, rel=1e-6, abs=1e-6)
        assert not step.fault.any()
        elapsed += 1
        np.testing.assert_array_equal(step.truncated, (elapsed == steps) & ~step.terminated)
        if step.done.any():
            endings += int(step.terminated.sum())
            elapsed[step.done] = 0
            obs = ours.reset(step.done)["state"]
            np.testing.assert_array_equal(
                obs[:, compared],
                start_alike(theirs, ours, np.flatnonzero(step.done))[:, compared],
            )
    assert endings == 0 if task_type is HalfCheetah else endings > 0
    assert ours.task.lagged == (task_type in CONTACT_FORCES)


@pytest.mark.parametrize("task_type", CONTACT_FORCES, ids=lambda t: t.__name__)
def test_contact_forces_are_nearly_gymnasiums(task_type: type[Task]) -> None:
    ours, theirs = make_env(task_type(), 1), gym.make(GYMNASIUM[task_type]).unwrapped
    start_alike([theirs], ours, np.arange(1))
    rng, pairs, contact = np.random.default_rng(1), [], []
    for _ in range(300):
        spec = ours.action_spec
        action = rng.uniform(spec.low, spec.high, (1, spec.size)).astype(np.float32)
        step, (obs, _, _, _, info) = ours.step(action), theirs.step(action[0])
        rows = CONTACT_FORCES[task_type]
        pairs.append((step.obs["state"][0, rows], obs[rows]))
        term = ours.task.weights["contact"] * step.reward_terms["contact"][0]
        contact.append((term, info["reward_contact"]))
    mine, published = (np.stack(side) for side in zip(*pairs, strict=True))
    assert np.abs(mine).max() > 0.5
    assert np.corrcoef(mine.ravel(), published.ravel())[0, 1] > 0.5
    assert np.corrcoef(*np.transpose(contact))[0, 1] > 0.5
    assert np.mean((mine != 0) == (published != 0)) > 0.95


class ArraysOf:
    """A simulator as another array library would show it."""

    def __init__(self, sim: MujocoSim, xp: Any) -> None:
        self.sim, self.xp, self.device = sim, xp, None
        self.num_worlds, self.timestep_s = sim.num_worlds, sim.timestep_s
        self.body, self.parameter = sim.body, sim.parameter

    @property
    def qpos(self) -> Any:
        return self.xp.asarray(self.sim.qpos.copy())

    @property
    def qvel(self) -> Any:
        return self.xp.asarray(self.sim.qvel.copy())

    def read(self, field: str) -> Any:
        return self.xp.asarray(self.sim.read(field).copy())


@pytest.mark.parametrize("xp", [array_api_strict, array_api_compat.torch], ids=["strict", "torch"])
@parametrised
def test_the_same_on_other_arrays(task_type: type[Task], xp: Any) -> None:
    task, n = task_type(), 3
    env = make_env(task, n)
    theirs = ArraysOf(env.sim, xp)
    seeds = np.arange(n), np.zeros(n, np.int64)
    task.bind(env.sim)
    rows, _, _ = task.reset(env.sim, Draw(*seeds))
    action = np.linspace(-0.3, 0.3, n * env.action_spec.size).astype(np.float32).reshape(n, -1)
    befores = task.before(env.sim), task.before(theirs)
    env.sim.step(action, env.substeps)
    results = task.reward(env.sim, action, befores[0], {})[0]
    results |= task.observe(env.sim, {}) | {"terminated": task.terminated(env.sim, {})} | rows
    task.bind(theirs)
    rows, _, _ = task.reset(theirs, Draw(*map(xp.asarray, seeds)))
    others = task.reward(theirs, xp.asarray(action), befores[1], {})[0]
    others |= task.observe(theirs, {}) | {"terminated": task.terminated(theirs, {})} | rows
    for name, value in results.items():
        other = np.asarray(others[name])
        assert other.dtype == value.dtype
        near = 1e-6 if value.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(other, value, rtol=near, atol=near, err_msg=name)


@parametrised
def test_worlds_start_as_published(task_type: type[Task]) -> None:
    """Reset noise has the range and moments of Gymnasium's, and is used in full."""
    noise = {
        HalfCheetah: (0.1, 0.1, "normal"),
        Hopper: (5e-3, 5e-3, "uniform"),
        Walker2d: (5e-3, 5e-3, "uniform"),
        Ant: (0.1, 0.1, "normal"),
        Humanoid: (1e-2, 1e-2, "uniform"),
    }
    position, velocity, kind = noise[task_type]
    env = make_env(task_type(), 400)
    offset = env.sim.qpos - env.sim.parameter("qpos0")
    assert 0.99 * position < np.abs(offset).max() <= position
    assert offset.std() == pytest.approx(position / np.sqrt(3), rel=0.05)
    width = velocity if kind == "normal" else velocity / np.sqrt(3)
    assert env.sim.qvel.std() == pytest.approx(width, rel=0.05)
    assert (np.abs(env.sim.qvel).max() <= velocity) == (kind == "uniform")
    first = env.sim.qpos.copy()
    assert not np.array_equal(env.reset()["state"], first)
    assert np.unique(first[:, 0]).size == 400


@parametrised
def test_weights_make_the_reward(task_type: type[Task]) -> None:
    task = task_type()
    settings = {
        "forward_weight": ("forward", 1),
        "control_cost": ("control", -1),
        "contact_cost": ("contact", -1),
        "survive_weight": ("survive", 1),
    }
    used = {key: name for key, (name, _) in settings.items() if name in task.weights}
    task = task_type(**{key: 2.0 for key in used})
    assert task.weights == {settings[key][0]: 2.0 * settings[key][1] for key in used}
    env = make_env(task, 1)
    step = env.step(np.full((1, env.action_spec.size), 0.1, np.float32))
    assert set(step.reward_terms) == set(task.weights)
    expected = sum(task.weights[name] * value for name, value in step.reward_terms.items())
    np.testing.assert_allclose(step.reward, expected)
    assert SimpleNamespace(**step.reward_terms).control[0] == pytest.approx(
        0.01 * env.action_spec.size, rel=1e-6
    )
