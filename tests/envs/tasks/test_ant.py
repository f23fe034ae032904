"""Ant's own rules; test_gymnasium_parity.py compares its numbers with Gymnasium's."""

import gymnasium as gym
import numpy as np
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.ant import Ant

from embodied.env import TaskEnv

Z = 2
FORCES = slice(27, 105)


def make_env(num_worlds: int) -> TaskEnv:
    task = Ant()
    return TaskEnv(task, MujocoSim(task.model(), num_worlds, threads=1))


def test_it_ends_where_gymnasiums_is_unhealthy() -> None:
    heights = [0.19, np.nextafter(0.2, 0), 0.2, 0.6, 1.0, np.nextafter(1.0, 2), 1.1]
    env, theirs = make_env(len(heights) + 2), gym.make("Ant-v5").unwrapped
    env.sim.qpos[: len(heights), Z] = heights
    env.sim.qpos[-2, 9], env.sim.qvel[-1, 9] = np.nan, np.inf
    expected = []
    for i in range(len(heights)):
        theirs.set_state(env.sim.qpos[i].copy(), env.sim.qvel[i].copy())
        expected.append(not theirs.is_healthy)
    ended = env.task.terminated(env.sim, {}).tolist()
    assert ended == [*expected, True, True]
    assert expected == [True, True, False, False, False, True, True]


def test_feet_on_the_ground_feel_it_and_bodies_in_the_air_do_not() -> None:
    env = make_env(2)
    env.sim.qpos[:] = env.sim.parameter("qpos0")
    env.sim.qvel[:] = 0
    env.sim.qpos[1, Z] = 50.0
    for _ in range(30):
        step = env.step(np.zeros((2, 8), np.float32))
    forces = step.obs["state"][:, FORCES]
    assert np.abs(forces[0]).max() == 1.0, "clipped as in Gymnasium"
    assert step.reward_terms["contact"][0] > 0
    assert not forces[1].any() and step.reward_terms["contact"][1] == 0
    weight = env.sim.parameter("body_mass").sum() * 9.81
    pressed = env.sim.read("cfrc_ext")[0, :, 5].sum()
    assert 0.5 * weight < pressed < 1.5 * weight


def test_forward_is_the_torsos_own() -> None:
    env = make_env(1)
    env.sim.qvel[0, 0] = 2.0
    env.sim.qpos[0, Z] = 5.0
    step = env.step(np.zeros((1, 8), np.float32))
    assert 1.0 < step.reward_terms["forward"][0] < 2.5


def test_a_reset_world_shows_no_forces_of_the_last_episode() -> None:
    env = make_env(2)
    for _ in range(30):
        step = env.step(np.zeros((2, 8), np.float32))
    assert step.obs["state"][:, FORCES].any()
    obs = env.reset(np.array([True, False]))["state"]
    fresh = make_env(1).reset(seed=0)
    assert obs.shape == (2, 105) and fresh["state"].shape == (1, 105)
    assert np.array_equal(obs[1], step.obs["state"][1])
    alone = make_env(1)
    alone.reset()
    assert np.array_equal(obs[0], alone._obs["state"][0])
