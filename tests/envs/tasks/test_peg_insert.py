"""Inserting a peg: the fit, experts, what counts, what is seen, and the same in torch."""

from __future__ import annotations

import array_api_strict as xp
import numpy as np
import pytest
from embodied.envs.tasks.arm import HOLD_STEPS
from embodied.envs.tasks.peg_insert import DEPTH_M, SOCKET_M, TIP_M, PegInsert, tip

from embodied.env import TaskEnv
from embodied.random import Draw

from .arm_worlds import StrictSim, check_experts, make, torch_env


def put(env: TaskEnv, tips: np.ndarray) -> None:
    """The peg upright and at rest, with its tip at `tips` (N, 3)."""
    place, speed = env.sim.joint("peg")
    env.sim.qpos[:, place] = np.concatenate(
        [tips + [0, 0, TIP_M], np.tile([1.0, 0, 0, 0], (len(tips), 1))], axis=1
    )
    env.sim.qvel[:, speed] = 0.0


def idle(env: TaskEnv, steps: int) -> None:
    for _ in range(steps):
        step = env.step(np.zeros((env.num_worlds, env.action_spec.size), np.float32))
        assert not step.fault.any()


def socket(env: TaskEnv) -> np.ndarray:
    return env.memory["goal"] - [0, 0, TIP_M]


def test_experts_succeed_and_their_flaws_do_as_named() -> None:
    check_experts("peg_insert", seeds=24)


@pytest.mark.parametrize("robot", ["panda", "iiwa"])
def test_the_same_expert_works_on_both_robots_by_its_tool(robot: str) -> None:
    check_experts("peg_insert", f"robot={robot}", "env.task.action=ee_delta", seeds=24, flaws=False)


def test_the_peg_stands_in_its_stand_until_it_is_pulled() -> None:
    env = make("peg_insert", 8)
    start = env.sim.qpos[:, env.sim.joint("peg")[0]].copy()
    idle(env, 20)
    rest = env.sim.qpos[:, env.sim.joint("peg")[0]]
    np.testing.assert_allclose(rest[:, :3], start[:, :3], atol=1e-3)
    np.testing.assert_allclose(np.abs(rest[:, 3:]), np.abs(start[:, 3:]), atol=1e-3)
    np.testing.assert_allclose(tip(np, rest)[:, 2], 0.0, atol=1e-3)
    assert start[:, :2].std(axis=0).min() > 0.002, "it stands elsewhere in every episode"


@pytest.mark.parametrize(("aside", "fits"), [(0.0, True), (0.004, True), (0.02, False)])
def test_the_hole_takes_a_peg_that_is_millimetres_off(aside: float, fits: bool) -> None:
    env = make("peg_insert", 4)
    put(env, socket(env) + [aside, 0, SOCKET_M + 0.005])
    idle(env, 20 + HOLD_STEPS)
    peg = env.sim.qpos[:, env.sim.joint("peg")[0]]
    deep = SOCKET_M - tip(np, peg)[:, 2] > DEPTH_M
    off = np.linalg.norm((tip(np, peg) - socket(env))[:, :2], axis=1)
    assert (deep & (off < 0.003)).all() if fits else not (deep & (off < 0.01)).any()
    assert (env.task.success(env.sim, env.memory) == fits).all()


def test_success_is_depth_in_the_hole_for_ten_steps() -> None:
    env = make("peg_insert", 24)
    count = np.zeros(24, int)
    for _ in range(80):
        step = env.step(env.expert())
        peg = env.sim.qpos[:, env.sim.joint("peg")[0]]
        away = tip(np, peg) - socket(env)
        there = (away[:, 2] < SOCKET_M - DEPTH_M) & (np.linalg.norm(away[:, :2], axis=1) < 0.005)
        count = np.where(there, count + 1, 0)
        np.testing.assert_array_equal(step.success, count >= HOLD_STEPS)
    assert step.success.all()


def test_beside_the_hole_or_lying_down_is_no_success() -> None:
    env = make("peg_insert", 4)
    put(env, socket(env) + [0, -0.06, 0.001])
    idle(env, HOLD_STEPS + 5)
    assert not env.task.success(env.sim, env.memory).any()
    assert (env.task.stage(env.memory) == 0).all() and (env.memory["deepest"] == 0).all()


def test_reward_stage_and_progress_rise_with_the_work() -> None:
    env = make("peg_insert", 16)
    rewards, stages, progress = [], [], []
    for _ in range(75):
        step = env.step(env.expert())
        truth = env.readouts()
        assert set(step.reward_terms) == set(env.task.weights)
        assert all((v >= 0).all() and (v <= 1).all() for v in step.reward_terms.values())
        rewards.append(step.reward)
        stages.append(truth["stage"])
        progress.append(truth["progress"])
    reward, stage = np.stack(rewards), np.stack(stages)
    assert (stage[0] == 0).all() and (stage[-1] == len(env.task.stages) - 1).all()
    means = [reward[stage == k].mean() for k in range(len(env.task.stages))]
    assert means == sorted(means)
    assert (np.diff(np.stack(progress), axis=0) > -0.1).all() and (progress[-1] == 1.0).all()
    assert (np.stack(progress)[stage < 4] < 0.8 + 1e-9).all()


def test_what_is_undone_loses_its_progress() -> None:
    env = make("peg_insert", 16)
    env.reset(seed=0)
    rows = []
    for _ in range(160):
        env.step(env.expert("undoes"))
        rows.append(env.readouts()["progress"])
    assert (np.max(rows, axis=0) > 0.85).all() and (rows[-1] < 0.3).all()


def test_peg_and_socket_are_seen_only_through_trackers() -> None:
    env = make("peg_insert", 64)
    size, posture = env.task.observe(env.sim, env.memory)["state"].shape[1], env.task.proprio_size
    assert posture == 33
    errors = []
    for _ in range(20):
        state = env.step(np.zeros((64, env.action_spec.size), np.float32)).obs["state"]
        peg = env.sim.qpos[:, env.sim.joint("peg")[0]]
        errors.append(
            np.concatenate(
                [
                    state[:, posture : posture + 3] - (peg[:, :3] - env.memory["tool"]),
                    state[:, size - 3 :] - (socket(env) - tip(np, peg)),
                ],
                axis=1,
            )
        )
    noise = np.concatenate(errors)
    assert (np.abs(noise.mean(axis=0)) < 3e-4).all()
    assert (noise[:, :3].std(axis=0) > 5e-4).all() and (noise[:, 3:].std(axis=0) > 8e-4).all()
    assert (np.abs(noise) < 0.02).all()


def test_configured_weights_are_the_classes_own() -> None:
    assert make("peg_insert", 1).task.weights == PegInsert.weights


@pytest.mark.parametrize("action", ["joint_delta", "ee_delta"])
def test_the_same_task_runs_on_torch(action: str) -> None:
    numpy_env = make("peg_insert", 4, f"env.task.action={action}")
    env = torch_env(numpy_env.task, 4)
    theirs = make("peg_insert", 4, f"env.task.action={action}")
    ours, other = env.reset(seed=1), theirs.reset(seed=1)
    for _ in range(30):
        np.testing.assert_allclose(ours["state"].numpy(), other["state"], atol=1e-5)
        a, b = env.expert(), theirs.expert()
        np.testing.assert_allclose(a.numpy(), b, atol=1e-5)
        step, reference = env.step(a), theirs.step(b)
        np.testing.assert_allclose(step.reward.numpy(), reference.reward, atol=1e-5)
        ours, other = step.obs, reference.obs
    for flaw in env.task.flaws:
        np.testing.assert_allclose(
            env.expert(flaw.name).numpy(), theirs.expert(flaw.name), atol=1e-5
        )


@pytest.mark.parametrize("action", ["joint_delta", "ee_delta"])
def test_the_task_asks_for_nothing_beyond_the_array_api(action: str) -> None:
    env = make("peg_insert", 4, f"env.task.action={action}")
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
    task.readout(sim, memory)
