"""Reaching: near is not enough, it must be still. Experts: test_pick_cube.py."""

from __future__ import annotations

import numpy as np

from .arm_worlds import make


def test_passing_through_the_goal_is_not_reaching_it() -> None:
    env = make("reach", 1)
    env.memory["goal"] = env.memory["tool"].copy()
    down = np.zeros((1, 8), np.float32)
    assert env.step(down).reward_terms["hold"][0] == 1.0, "still"
    env.reset(seed=0)
    for _ in range(6):
        action = env.task.act(
            env.sim, env.memory, np.array([[0, 0, -1.0]]), np.zeros(1), np.zeros(1), np.ones(1)
        )
        moving = env.memory["tool"].copy()
        env.step(action)
    speed = np.linalg.norm(env.memory["tool"] - moving) * env.task.rate_hz
    assert speed > 0.15
    env.memory["goal"] = env.memory["tool"] + (env.memory["tool"] - moving)
    assert env.step(action).reward_terms["hold"][0] == 0.0, "in passing"


def test_goals_fill_a_space_and_every_one_is_reached() -> None:
    env = make("reach", 128)
    goal = env.memory["goal"]
    assert (goal.std(axis=0) > 0.04).all() and goal[:, 2].min() > 0.04
    for _ in range(60):
        step = env.step(env.expert())
    assert step.success.all()
    assert (env.task.stage(env.memory) == 2).all()


def test_the_ball_in_the_picture_is_at_the_goal() -> None:
    env = make("reach", 2)
    ball = env.sim.model.body("goal").mocapid[0]
    np.testing.assert_array_equal(env.sim.batch.bind("mocap_pos")[:, ball], env.memory["goal"])
    env.reset(np.array([False, True]))
    np.testing.assert_array_equal(env.sim.batch.bind("mocap_pos")[:, ball], env.memory["goal"])


def test_reward_falls_with_the_distance_and_nothing_else() -> None:
    env, far, pay = make("reach", 32), [], []
    for _ in range(30):
        pay.append(env.step(env.expert()).reward_terms["reach"])
        far.append(np.linalg.norm(env.memory["goal"] - env.memory["tool"], axis=1))
    ranked = np.concatenate(pay)[np.argsort(np.concatenate(far))]
    assert (np.diff(ranked) <= 0).all() and ranked[0] > 0.99 and ranked[-1] < 0.3
