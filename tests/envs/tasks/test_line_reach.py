"""The course of pads: its order, its lamp, experts, what is seen, and the same in torch."""

from __future__ import annotations

import array_api_strict as xp
import numpy as np
import pytest
from embodied.envs.tasks.line_reach import (
    AT_PAD_M,
    HOLD_STEPS,
    LANE_M,
    LINE_M,
    SPEED_M_S,
    LineReach,
)

from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.random import Draw

from .arm_worlds import StrictSim, check_experts, make, torch_env

IDLE = np.zeros((4, 2), np.float32)


def put(env: TaskEnv, place: np.ndarray) -> None:
    """The puck at rest at `place` (N, 2)."""
    env.sim.qpos[:, :2] = place
    env.sim.qvel[:, :2] = 0.0


def across(env: TaskEnv) -> np.ndarray:
    """A metre off the line, `(N, 2)`."""
    line = (env.memory["blue"] - env.memory["red"]) / LINE_M
    return np.stack([-line[:, 1], line[:, 0]], axis=1)


def test_experts_succeed_and_their_flaws_do_as_named() -> None:
    check_experts("line_reach", seeds=96)


def test_the_blue_pad_counts_only_after_the_red_one() -> None:
    env = make("line_reach", 4)
    env.reset(seed=0)
    put(env, env.memory["blue"])
    for _ in range(HOLD_STEPS + 2):
        step = env.step(IDLE)
    assert not step.success.any() and not step.reward_terms["follow"].any()
    put(env, env.memory["red"])
    step = env.step(IDLE)
    assert env.memory["lit"].all() and env.task.stage(env.memory).tolist() == [1] * 4
    put(env, env.memory["blue"])
    for t in range(HOLD_STEPS):
        assert not step.success.any()
        step = env.step(IDLE)
        np.testing.assert_allclose(
            env.task.progress(env.sim, env.memory), (2 + (t + 1) / HOLD_STEPS) / 3
        )
    assert step.success.all() and step.reward_terms["success"].all()


def test_the_lamp_goes_out_off_the_line() -> None:
    env = make("line_reach", 4)
    env.reset(seed=0)
    middle = 0.5 * (env.memory["red"] + env.memory["blue"])
    put(env, middle)
    env.step(IDLE)
    assert not env.memory["lit"].any(), "the line does not light it"
    put(env, env.memory["red"])
    env.step(IDLE)
    put(env, middle + (LANE_M - 0.001) * across(env))
    env.step(IDLE)
    assert env.memory["lit"].all()
    np.testing.assert_array_equal(env.readouts()["stage"], 1)
    put(env, middle + (LANE_M + 0.001) * across(env))
    step = env.step(IDLE)
    assert not env.memory["lit"].any() and (env.memory["visits"] == 1).all()
    assert (step.obs["state"][:, -1] == 0.0).all()


def test_the_lamp_is_seen_by_cameras() -> None:
    env = make("line_reach", 2)
    env.reset(seed=0)
    put(env, env.memory["red"])
    for camera in env.task.cameras:
        put(env, env.memory["red"])
        dark = env.render(camera, np.array([0]), 64, 64)
        for _ in range(12):
            env.step(np.zeros((2, 2), np.float32))
        light = env.render(camera, np.array([0]), 64, 64).astype(int)
        green = (light[..., 1] > 150) & (light[..., 0] < 120) & (light[..., 2] < 150)
        assert green.sum() >= 4
        env.reset(seed=0)
        was = (dark[..., 1] > 150) & (dark[..., 0] < 120) & (dark[..., 2] < 150)
        assert not was.any()
    env.close()


def test_the_puck_takes_the_speed_it_is_told() -> None:
    env = make("line_reach", 4)
    put(env, np.zeros((4, 2)))
    action = np.tile(np.array([0.4, -0.2], np.float32), (4, 1))
    for _ in range(12):
        env.step(action)
    np.testing.assert_allclose(env.sim.qvel[:, :2], action, atol=0.01)
    far = np.full((4, 2), SPEED_M_S, np.float32)
    for _ in range(40):
        env.step(far)
    assert (env.sim.qpos[:, :2] < 0.53).all(), "it stays on the table"


def test_starts_are_spread_and_the_course_fits_the_table() -> None:
    env = make("line_reach", 512)
    env.reset(seed=0)
    memory, puck = env.memory, env.sim.qpos[:, :2]
    np.testing.assert_allclose(np.linalg.norm(memory["blue"] - memory["red"], axis=1), LINE_M)
    for place in (memory["red"], memory["blue"], memory["decoy"], puck):
        assert np.abs(place).max() < 0.5 and (place.std(axis=0) > 0.1).all()
    pads = np.stack([memory["red"], memory["blue"]])
    assert np.linalg.norm(pads - memory["decoy"], axis=2).min() > 2 * AT_PAD_M
    assert not env.step(np.zeros((512, 2), np.float32)).reward_terms["follow"].any()
    heading = np.arctan2(*(memory["blue"] - memory["red"]).T[::-1])
    assert np.histogram(heading, bins=8, range=(-np.pi, np.pi))[0].min() > 30


def test_a_state_is_all_there_is_to_know() -> None:
    """Leading columns are the puck's own; the pads and the lamp follow."""
    env = make("line_reach", 8)
    for _ in range(9):
        state = env.step(env.expert()).obs["state"]
    puck, memory = env.sim.qpos[:, :2], env.memory
    np.testing.assert_allclose(state[:, :2], puck, atol=1e-6)
    np.testing.assert_allclose(state[:, 2:4], env.sim.qvel[:, :2], atol=1e-6)
    assert env.task.proprio_size == 4
    following = np.where(memory["lit"][:, None], memory["blue"], memory["red"])
    for k, pad in enumerate([following, memory["red"], memory["blue"], memory["decoy"]]):
        np.testing.assert_allclose(state[:, 4 + 2 * k : 6 + 2 * k], pad - puck, atol=1e-6)
    np.testing.assert_array_equal(state[:, 12], memory["lit"])
    assert memory["lit"].any() and not memory["lit"].all()


def test_progress_rises_with_the_expert_and_falls_when_it_is_undone() -> None:
    env = make("line_reach", 32)
    env.reset(seed=0)
    rows = []
    for _ in range(40):
        env.step(env.expert())
        rows.append(env.readouts()["progress"])
    progress = np.stack(rows)
    assert (progress >= 0).all() and (progress[-1] == 1.0).all()
    assert (np.diff(progress, axis=0) > -0.02).all()
    env.reset(seed=0)
    rows = []
    for _ in range(env.max_steps):
        env.step(env.expert("undoes"))
        rows.append(env.readouts()["progress"])
    best, last = np.stack(rows).max(axis=0), rows[-1]
    assert (best > 0.8).all() and (last < 0.4).all()


def test_weights_are_the_tasks_own_terms() -> None:
    assert make("line_reach", 1).task.weights == LineReach.weights
    dense = ("reach", "follow", "stay")
    sparse = make("line_reach", 4, *(f"env.task.weights.{name}=0" for name in dense))
    step = sparse.step(sparse.expert())
    assert not step.reward.any() and step.reward_terms["reach"].all()
    with pytest.raises(UserError, match="speed: line_reach has no such reward term"):
        LineReach({"speed": 1.0})


def test_the_same_task_runs_on_torch() -> None:
    theirs = make("line_reach", 8)
    env = torch_env(theirs.task, 8)
    theirs = make("line_reach", 8)
    ours, other = env.reset(seed=1), theirs.reset(seed=1)
    for flaw in (None, *(flaw.name for flaw in theirs.task.flaws)):
        for _ in range(6):
            np.testing.assert_allclose(ours["state"].numpy(), other["state"], atol=1e-5)
            a, b = env.expert(flaw), theirs.expert(flaw)
            np.testing.assert_allclose(a.numpy(), b, atol=1e-5)
            step, reference = env.step(a), theirs.step(b)
            np.testing.assert_allclose(step.reward.numpy(), reference.reward, atol=1e-5)
            ours, other = step.obs, reference.obs
    np.testing.assert_allclose(env.readouts()["progress"], theirs.readouts()["progress"], atol=1e-5)


def test_the_task_asks_for_nothing_beyond_the_array_api() -> None:
    env = make("line_reach", 4)
    task, sim = env.task, StrictSim(env.sim)
    task.bind(sim)
    draw = Draw(xp.asarray(np.arange(4)), xp.zeros(4, dtype=xp.int64))
    _, _, memory = task.reset(sim, draw)
    memory = {**task.memory(sim), **memory}
    for flaw in (None, *(flaw.name for flaw in task.flaws)):
        chosen = xp.astype(task.expert(sim, memory, draw, flaw), xp.float32)
    _, memory = task.control(sim, chosen, memory)
    terms, memory = task.reward(sim, chosen, {}, memory)
    assert task.observe(sim, memory)["state"].dtype == xp.float32
    assert all(term.dtype == xp.float64 for term in terms.values())
    assert task.stage(memory).dtype == xp.int64
    assert task.success(sim, memory).dtype == xp.bool
    assert task.keypoint_positions(sim, memory).shape == (4, 3, 3)
    assert task.readout(sim, memory)["progress"].shape == (4,)
