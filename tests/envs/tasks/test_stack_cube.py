"""Stacking: the red cube must lie on the blue one, let go. Experts: test_pick_cube.py."""

from __future__ import annotations

import numpy as np

from embodied.env import TaskEnv

from .arm_worlds import make

RED, BLUE = slice(9, 12), slice(16, 19)
IDLE = np.zeros((4, 8), np.float32)


def stacked(aside: float = 0.0) -> TaskEnv:
    """Worlds in which the red cube lies on the blue one, `aside` metres off its middle."""
    env = make("stack_cube", 4)
    env.reset(seed=0)
    halves = env.memory["poses"][:, :2, 2]
    env.sim.qpos[:, 9:16] = env.sim.qpos[:, 16:23]
    env.sim.qpos[:, 9] += aside
    env.sim.qpos[:, 11] = 2 * halves[:, 1] + halves[:, 0]
    env.sim.qpos[:, 7:9] = 0.04
    env.memory["opening"] = np.full(4, 0.08)
    return env


def test_a_stack_let_go_counts_after_ten_steps() -> None:
    env = stacked()
    seen = [env.step(IDLE) for _ in range(12)]
    assert (seen[0].reward_terms["release"] == 1.0).all()
    assert [step.success.all() for step in seen] == [t >= 9 for t in range(12)]
    assert (env.task.progress(env.sim, env.memory) == 1.0).all()


def test_a_cube_over_the_edge_or_on_the_table_is_no_stack() -> None:
    assert not stacked(0.024).step(IDLE).reward_terms["hold"].any()
    env = make("stack_cube", 4)
    assert not env.step(IDLE).reward_terms["release"].any()


def test_a_cube_still_in_the_hand_is_not_let_go() -> None:
    env = make("stack_cube", 32)
    env.reset(seed=0)
    last = len(env.task.stages) - 1
    held = 0
    for _ in range(100):
        step = env.step(env.expert())
        tight = (env.task.stage(env.memory) == last) & (env.task.wide(env.sim) < 0.06)
        tight &= np.linalg.norm(env.memory["tool"] - env.sim.qpos[:, RED], axis=1) < 0.03
        held += tight.sum()
        assert not step.reward_terms["hold"][tight].any()
    assert held > 0 and step.success.all()
    rise = env.sim.qpos[:, RED] - env.sim.qpos[:, BLUE]
    np.testing.assert_allclose(rise[:, 2], env.memory["poses"][:, :2, 2].sum(axis=1), atol=1e-3)


def test_reward_rises_with_the_stage() -> None:
    env = make("stack_cube", 32)
    rewards, stages = [], []
    for _ in range(90):
        step = env.step(env.expert())
        rewards.append(step.reward)
        stages.append(env.task.stage(env.memory))
    reward, stage = np.stack(rewards), np.stack(stages)
    means = [reward[stage == k].mean() for k in range(len(env.task.stages))]
    assert means == sorted(means) and means[-1] > 0.8 * env.task.reward_range[1]


def test_both_cubes_are_seen_through_trackers_of_their_own() -> None:
    env = make("stack_cube", 64)
    for _ in range(5):
        env.step(np.zeros((64, 8), np.float32))
    errors = []
    for name, where in (("", RED), ("blue_", BLUE)):
        error = env.memory[f"{name}tracked"][:, :3] - env.sim.qpos[:, where]
        assert 0.0005 < error.std() < 0.002
        errors.append(error[:, 0])
    assert abs(np.corrcoef(errors)[0, 1]) < 0.4


def test_the_ball_says_nothing_about_the_stack() -> None:
    env = make("stack_cube", 256)
    offset = env.memory["goal"] - env.sim.qpos[:, BLUE]
    assert np.abs(offset[:, :2]).mean() > 0.06
