"""Pushing a cube: goals in reach, and no credit for a lifted cube. Experts: test_pick_cube.py."""

from __future__ import annotations

import numpy as np
import pytest

from .arm_worlds import make


@pytest.mark.parametrize("robot", ["panda", "iiwa"])
def test_goals_lie_on_the_table_a_push_away(robot: str) -> None:
    env = make("push_cube", 512, f"robot={robot}")
    goal, cube = env.memory["goal"], env.sim.qpos[:, 9:12]
    far = np.linalg.norm(goal - cube, axis=1)
    assert far.min() > 0.07 and far.max() < 0.19 and far.std() > 0.02
    np.testing.assert_allclose(goal[:, 2], env.memory["half"])
    for i, axis in enumerate("xy"):
        low, high = env.task.robot.workspace[axis]
        assert (goal[:, i] >= low - 1e-9).all() and (goal[:, i] <= high + 1e-9).all()
    angle = np.arctan2(*(goal - cube)[:, 1::-1].T)
    assert np.histogram(angle, 4, (-np.pi, np.pi))[0].min() > 40, "pushes go every way"


def test_a_cube_in_the_air_over_the_goal_is_not_pushed_there() -> None:
    env = make("push_cube", 4)
    for lift, credit in ((0.0, 1.0), (0.028, 0.0)):
        env.reset(seed=0)
        env.sim.qpos[:, 9:12] = env.memory["goal"] + [0.0, 0.0, lift]
        env.sim.qvel[:, 11] = 0.25 if lift else 0.0  # it stays up for the step
        step = env.step(np.zeros((4, 8), np.float32))
        assert (step.reward_terms["hold"] == credit).all()


def test_pushing_pays_more_the_nearer_the_cube() -> None:
    env = make("push_cube", 1)
    pay = []
    for far in (0.15, 0.1, 0.05, 0.02):
        env.reset(seed=0)
        env.sim.qpos[:, 9:11] = env.memory["goal"][:, :2] - [far, 0.0]
        pay.append(float(env.step(np.zeros((1, 8), np.float32)).reward_terms["push"][0]))
    assert pay == sorted(pay) and pay[-1] > 2 * pay[0]


def test_stages_end_at_the_goal() -> None:
    env = make("push_cube", 16)
    seen = [env.task.stage(env.memory)]
    for _ in range(80):
        env.step(env.expert())
        seen.append(env.task.stage(env.memory))
    assert (seen[-1] == len(env.task.stages) - 1).all() and (seen[0] == 0).all()
