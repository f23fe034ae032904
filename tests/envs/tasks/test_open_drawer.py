"""Opening a drawer: what counts, what pays, and what each flaw leaves behind."""

from __future__ import annotations

import numpy as np

from embodied.env import TaskEnv

from .arm_worlds import make

IDLE = np.zeros((8, 8), np.float32)


def play(flaw: str | None, steps: int, num_worlds: int = 16) -> tuple[TaskEnv, dict]:
    """Worlds after an expert's steps, and `(T, N)` of what was seen on the way."""
    env = make("open_drawer", num_worlds)
    env.reset(seed=0)
    rows = []
    for _ in range(steps):
        step = env.step(env.expert(flaw))
        progress = env.task.progress(env.sim, env.memory)
        stage, out = env.task.stage(env.memory), env.task.out(env.sim)
        rows.append({"reward": step.reward, "progress": progress, "stage": stage, "out": out})
    return env, {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def test_ten_centimetres_held_for_ten_steps_are_open() -> None:
    env = make("open_drawer", 8)
    env.sim.qpos[:, 9] = [0.0, 0.05, 0.09, 0.099, 0.101, 0.11, 0.12, 0.13]
    wide = np.arange(8) >= 4
    for t in range(12):
        step = env.step(IDLE)
        np.testing.assert_array_equal(step.reward_terms["hold"], wide)
        np.testing.assert_array_equal(step.success, wide & (t >= 9))
    progress = env.task.progress(env.sim, env.memory)
    assert (progress[4:] == 1.0).all() and (np.diff(progress[1:5]) > 0.0).all()


def test_terms_are_bounded_and_sum_to_the_reward() -> None:
    env = make("open_drawer", 32)
    low, high = env.task.reward_range
    for t in range(60):
        noise = np.random.default_rng(t).normal(0, 0.3, (32, 8)) * env.action_spec.high
        step = env.step(env.expert() + (t % 2) * noise)
        terms, weights = step.reward_terms, env.task.weights
        assert set(terms) == set(weights)
        assert all((v >= 0).all() and (v <= 1).all() for v in terms.values())
        np.testing.assert_allclose(step.reward, sum(weights[k] * v for k, v in terms.items()))
        assert (step.reward >= low).all() and (step.reward <= high).all()


def test_reward_stage_and_progress_rise_with_the_work() -> None:
    env, seen = play(None, 70)
    stage, progress, last = seen["stage"], seen["progress"], len(env.task.stages) - 1
    assert (stage[0] == 0).all() and (stage[-1] == last).all() and (progress[-1] == 1.0).all()
    means = [seen["reward"][stage == k].mean() for k in range(last + 1)]
    assert means == sorted(means)
    assert (progress >= 0).all() and (np.diff(progress, axis=0) > -0.06).all()
    np.testing.assert_array_equal(env.readouts()["progress"], progress[-1])
    np.testing.assert_array_equal(env.readouts()["stage"], stage[-1])


def test_flaws_leave_what_their_names_say() -> None:
    _, short = play("stops_short", 80)
    assert (abs(short["out"][-1] - 0.055) < 0.015).all() and (short["stage"][-1] == 2).all()
    _, undone = play("undoes", 100)
    assert (undone["out"].max(axis=0) > 0.1).all() and (undone["out"][-1] < 0.02).all()
    assert (undone["progress"][-1] < undone["progress"].max(axis=0) - 0.2).all()
    env, missed = play("near_miss", 80)
    assert (missed["out"].max(axis=0) < 0.02).all() and (env.task.wide(env.sim) < 0.01).all()
    env, wrong = play("wrong_object", 80)
    cube = env.memory["poses"][:, 0]
    assert (np.linalg.norm(env.memory["tool"] - cube[:, :3], axis=1) < 0.03).all()
    assert (env.task.wide(env.sim) < 2.0 * cube[:, 2] + 0.01).all()
    assert (wrong["out"].max(axis=0) < 0.02).all()


def test_a_retry_pushes_the_drawer_shut_and_opens_it_again() -> None:
    env, seen = play("retries", 110)
    half = (seen["out"] > 0.05).argmax(axis=0)
    for i in range(env.num_worlds):
        assert seen["out"][half[i] :, i].min() < 0.012, "pushed shut"
    assert (env.memory["setbacks"] == 1).all() and (seen["progress"][-1] == 1.0).all()
    falls = np.minimum.accumulate(seen["progress"][::-1])[::-1] < seen["progress"] - 0.2
    assert falls.any(axis=0).all(), "progress falls on the way"


def test_an_observation_moves_with_all_there_is_and_not_with_time() -> None:
    env = make("open_drawer", 32)
    rows = [env.reset(seed=0)["state"]]
    for _ in range(50):
        rows.append(env.step(env.expert()).obs["state"])
    seen = np.stack(rows)
    assert seen.dtype == np.float32 and (seen.std(axis=(0, 1)) > 1e-4).all()
    rises = (np.diff(seen, axis=0) > 0).all(axis=(0, 1))
    assert not rises.any(), "a number that only ever grows is a clock"
