"""Tidying: the cube in the drawer, the drawer shut, the hand away, and how one gets there."""

from __future__ import annotations

import numpy as np

from embodied.env import TaskEnv

from .arm_worlds import make

CUBE, BLUE, DRAWER = slice(9, 12), slice(16, 19), 23


def put_in(env: TaskEnv, out: float) -> None:
    """Lay the red cube in the middle of the drawer, which is `out`, with the hand far away."""
    memory, sim = env.memory, env.sim
    sim.qpos[:, DRAWER] = out
    sim.qpos[:, CUBE] = memory["goal"] + out * memory["ahead"]
    sim.qpos[:, 12:16] = [1.0, 0.0, 0.0, 0.0]


def play(flaw: str | None, steps: int, num_worlds: int = 8) -> tuple[TaskEnv, dict]:
    """Worlds after an expert's steps, and `(T, N)` of what was seen on the way."""
    env = make("tidy_table", num_worlds)
    env.reset(seed=0)
    rows = []
    for _ in range(steps):
        step = env.step(env.expert(flaw))
        progress, stage = env.task.progress(env.sim, env.memory), env.task.stage(env.memory)
        handle = env.task.handle(env.sim, env.memory)
        aside = np.linalg.norm(env.memory["tool"] - handle, axis=1)
        row = {"reward": step.reward, "hold": step.reward_terms["hold"], "aside": aside}
        rows.append(row | {"progress": progress, "stage": stage, "out": env.task.out(env.sim)})
    return env, {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def in_the_drawer(env: TaskEnv, cube: slice) -> np.ndarray:
    offset = env.sim.qpos[:, cube] - env.memory["shut"]
    along = (offset * env.memory["ahead"]).sum(axis=1) - env.task.out(env.sim)
    return (abs(along + 0.11) < 0.06) & (abs(offset[:, 0]) < 0.08)


def test_the_simulator_and_the_test_agree_where_things_are() -> None:
    env = make("tidy_table", 2)
    assert env.sim.joint("cube")[0].start == CUBE.start
    assert env.sim.joint("blue_cube")[0].start == BLUE.start
    assert env.sim.joint("drawer")[0].start == DRAWER


def test_a_shut_drawer_is_tidy_only_if_it_has_been_open() -> None:
    env = make("tidy_table", 8)
    idle = np.zeros((8, 8), np.float32)
    put_in(env, 0.0)
    env.memory["widest"] = np.where(np.arange(8) < 4, 0.0, 0.12)
    for t in range(12):
        step = env.step(idle)
        np.testing.assert_array_equal(step.success, (np.arange(8) >= 4) & (t >= 9))
    stage, progress = env.task.stage(env.memory), env.task.progress(env.sim, env.memory)
    assert (stage[:4] == 0).all() and (stage[4:] == 5).all() and (progress[4:] == 1.0).all()


def test_a_cube_in_an_open_drawer_still_asks_for_it_to_be_closed() -> None:
    env = make("tidy_table", 8)
    put_in(env, 0.12)
    shares = []
    for out in (0.12, 0.08, 0.04):
        put_in(env, out)
        step = env.step(np.zeros((8, 8), np.float32))
        assert (env.task.stage(env.memory) == 4).all()
        assert (step.reward_terms["inside"] == 1.0).all() and not step.reward_terms["hold"].any()
        shares.append(env.task.progress(env.sim, env.memory))
    assert (np.diff(shares, axis=0) > 0.02).all()


def test_both_cubes_start_clear_of_the_open_drawer_and_of_each_other() -> None:
    env = make("tidy_table", 256)
    red, blue = env.sim.qpos[:, CUBE], env.sim.qpos[:, BLUE]
    out = env.memory["shut"] + 0.13 * env.memory["ahead"]
    assert (red[:, 1] > out[:, 1] + 0.08).all()
    assert (np.linalg.norm(red - blue, axis=1) > 0.08).all()
    np.testing.assert_allclose(red, env.memory["poses"][:, 0, :3])
    assert np.ptp(red[:, 1]) > 0.25


def test_reward_stage_and_progress_rise_with_the_work() -> None:
    env, seen = play(None, 190)
    stage, progress, last = seen["stage"], seen["progress"], len(env.task.stages) - 1
    assert (stage[0] == 0).all() and (stage[-1] == last).all() and (progress[-1] == 1.0).all()
    assert all((stage == k).any(axis=0).all() for k in range(last + 1)), "no stage is skipped"
    means = [seen["reward"][stage == k].mean() for k in range(last + 1)]
    assert means == sorted(means)
    assert (seen["aside"][seen["hold"] > 0] > 0.05).all(), "the hand must have let go"
    assert (np.diff(progress, axis=0) > -0.1).all()
    assert in_the_drawer(env, CUBE).all() and (env.task.out(env.sim) < 0.01).all()
    np.testing.assert_array_equal(env.readouts()["progress"], progress[-1])


def test_flaws_leave_what_their_names_say() -> None:
    env, seen = play("stops_short", 200)
    assert in_the_drawer(env, CUBE).all() and (seen["out"][-1] > 0.1).all()
    env, seen = play("near_miss", 230)
    assert not in_the_drawer(env, CUBE).any() and (seen["out"][-1] < 0.01).all()
    env, seen = play("wrong_object", 230)
    assert in_the_drawer(env, BLUE).all() and not in_the_drawer(env, CUBE).any()
    assert (seen["out"].max(axis=0) > 0.1).all() and (seen["out"][-1] < 0.01).all()
    env, seen = play("undoes", 230)
    assert in_the_drawer(env, CUBE).all() and (seen["out"][-1] > 0.1).all()
    assert (seen["stage"].max(axis=0) == 5).all() and (seen["stage"][-1] == 4).all()


def test_a_retry_drops_the_cube_twice() -> None:
    env, seen = play("retries", 280)
    assert (env.memory["drops"] == 2).mean() > 0.8 and (env.memory["drops"] >= 2).all()
    assert (seen["progress"][-1] == 1.0).mean() > 0.8
    env, _ = play(None, 150)
    assert (env.memory["drops"] == 0).all()


def test_terms_are_bounded_and_sum_to_the_reward() -> None:
    env = make("tidy_table", 16)
    for t in range(160):
        noise = np.random.default_rng(t).normal(0, 0.2, (16, 8)) * env.action_spec.high
        step = env.step(env.expert() + (t % 2) * noise)
        terms, weights = step.reward_terms, env.task.weights
        assert set(terms) == set(weights)
        assert all((v >= 0).all() and (v <= 1).all() for v in terms.values())
        np.testing.assert_allclose(step.reward, sum(weights[k] * v for k, v in terms.items()))
