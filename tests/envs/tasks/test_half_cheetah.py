"""HalfCheetah's own rules; test_gymnasium_parity.py compares its numbers with Gymnasium's."""

import numpy as np
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.half_cheetah import HalfCheetah

from embodied.env import TaskEnv


def make_env(num_worlds: int) -> TaskEnv:
    task = HalfCheetah()
    return TaskEnv(task, MujocoSim(task.model(), num_worlds, threads=1))


def test_the_observation_leaves_out_how_far_it_ran() -> None:
    env = make_env(2)
    env.sim.qpos[:] = env.sim.qpos[0]
    env.sim.qvel[:] = env.sim.qvel[0]
    env.sim.qpos[1, 0] += 7.0
    seen = env.task.observe(env.sim, {})["state"]
    assert seen.shape == (2, 17) and seen.dtype == np.float64
    assert np.array_equal(seen[0], seen[1])
    steps = env.step(np.full((2, 6), 0.5, np.float32))
    np.testing.assert_allclose(steps.reward[0], steps.reward[1], atol=1e-9)


def test_forward_is_metres_a_second() -> None:
    env = make_env(3)
    before = env.sim.qpos[:, 0].copy()
    step = env.step(np.zeros((3, 6), np.float32))
    np.testing.assert_allclose(
        step.reward_terms["forward"], (env.sim.qpos[:, 0] - before) * env.action_spec.rate_hz
    )


def test_it_never_ends_early() -> None:
    env = make_env(2)
    env.sim.qpos[0, 2] = np.pi  # on its back
    for _ in range(20):
        step = env.step(np.ones((2, 6), np.float32))
    assert not step.done.any()
