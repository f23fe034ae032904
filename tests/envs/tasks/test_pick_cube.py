"""Picking a cube: experts, what varies, what is seen, what pays, and the same in torch."""

from __future__ import annotations

import array_api_strict as xp
import numpy as np
import pytest
from embodied.envs.tasks.cube import FRICTION, MASS_KG
from embodied.envs.tasks.scene import HALF_M

from embodied.random import Draw

from .arm_worlds import ARMS, StrictSim, check_experts, make, torch_env

CUBE = slice(9, 16)


@pytest.mark.parametrize("name", ARMS)
def test_experts_succeed_and_their_flaws_do_as_named(name: str) -> None:
    check_experts(name)


@pytest.mark.parametrize("action", ["joint_delta", "ee_delta"])
@pytest.mark.parametrize("name", ARMS)
def test_the_same_experts_work_on_both_robots_and_action_spaces(name: str, action: str) -> None:
    check_experts(name, "robot=iiwa", f"env.task.action={action}", seeds=24, flaws=False)


def test_cubes_differ_and_collide_at_their_own_size() -> None:
    env = make("pick_cube", 64)
    half, idle = env.memory["half"], np.zeros((64, 8), np.float32)
    start = env.sim.qpos[:, CUBE].copy()
    for _ in range(20):
        env.step(idle)
    rest = env.sim.qpos[:, CUBE]
    assert half.min() < HALF_M[0] + 0.001 and half.max() > HALF_M[1] - 0.001
    np.testing.assert_allclose(rest[:, 2], half, atol=3e-4)
    np.testing.assert_allclose(rest[:, :2], start[:, :2], atol=1e-3)
    batch = env.sim.batch
    geom, body = env.sim.geom("cube"), env.sim.body("cube")
    mass = batch.expanded("body_mass")[:, body]
    friction = batch.expanded("geom_friction")[:, geom, 0]
    assert MASS_KG[0] < mass.min() < 0.06 and 0.14 < mass.max() < MASS_KG[1]
    assert FRICTION[0] < friction.min() < 0.65 and 1.05 < friction.max() < FRICTION[1]
    inertia = batch.expanded("body_inertia")[:, body]
    np.testing.assert_allclose(inertia, (mass * (2 * half) ** 2 / 6)[:, None] * np.ones(3))
    others = np.delete(np.arange(env.sim.model.nbody), body)
    same = batch.expanded("body_mass")[:, others] == env.sim.model.body_mass[others]
    assert same.all(), "only the cube's mass differs"


def test_starts_and_goals_fill_the_workspace() -> None:
    env = make("pick_cube", 256)
    space = env.task.robot.workspace
    for place, axes in ((env.sim.qpos[:, CUBE], "xy"), (env.memory["goal"], "xyz")):
        for i, axis in enumerate(axes):
            low, high = space[axis]
            width = high - low
            assert low <= place[:, i].min() < low + 0.05 * width
            assert high - 0.05 * width < place[:, i].max() <= high
    quat = env.sim.qpos[:, 12:16]
    yaw = 2 * np.arctan2(quat[:, 3], quat[:, 0])
    assert yaw.min() < -3.0 and yaw.max() > 3.0
    assert (env.sim.qpos[:, :7].std(axis=0) > 0.05).all()


def test_a_new_episode_differs_and_the_same_seed_repeats() -> None:
    env = make("pick_cube", 4)
    first, second = (env.reset(seed=3)["state"].copy(), env.reset()["state"].copy())
    assert (np.abs(first - second).max(axis=1) > 0.05).all()
    np.testing.assert_array_equal(first, env.reset(seed=3)["state"])


def test_the_cube_is_seen_only_through_a_tracker() -> None:
    """Noise of a millimetre or so, half of the worlds a step late, a lost frame now and then."""
    env = make("pick_cube", 256)
    idle, errors, held, late = np.zeros((256, 8), np.float32), [], [], []
    env.sim.qvel[:, 9] = 1.0  # every cube slides at first, so that lateness shows
    last = env.sim.qpos[:, 9:12].copy()
    for t in range(40):
        before = env.memory["tracked"].copy()
        env.step(idle)
        seen, true = env.memory["tracked"], env.sim.qpos[:, 9:12].copy()
        held.append((seen == before).all(axis=1))
        moving = np.linalg.norm(true - last, axis=1) > 0.008
        if t < 3:
            nearer = np.linalg.norm(seen[:, :3] - last, axis=1)
            closer = nearer < np.linalg.norm(seen[:, :3] - true, axis=1)
            late.append(closer[moving & ~held[-1]].mean())
        else:
            errors.append((seen[:, :3] - true)[~held[-1]])
        last = true
    noise = np.concatenate(errors[20:])
    assert 0.0008 < noise.std() < 0.0014 and abs(noise.mean()) < 1e-4
    assert 0.35 < np.mean(late) < 0.65
    assert 0.003 < np.mean(held) < 0.03
    again = env.task.observe(env.sim, env.memory)["state"]
    np.testing.assert_array_equal(again, env.task.observe(env.sim, env.memory)["state"])
    delayed = env.memory["track_delayed"]
    assert 0.3 < delayed.mean() < 0.7


def test_an_observation_moves_with_all_there_is_and_not_with_time() -> None:
    env = make("pick_cube", 32)
    rows = [env.reset(seed=0)["state"]]
    for _ in range(30):
        rows.append(env.step(env.expert()).obs["state"])
    seen = np.stack(rows)
    assert seen.dtype == np.float32 and (seen.std(axis=(0, 1)) > 1e-4).all()
    rises = (np.diff(seen, axis=0) > 0).all(axis=(0, 1))
    assert not rises.any(), "a number that only ever grows is a clock"


def test_terms_are_bounded_and_sum_to_the_reward() -> None:
    env = make("pick_cube", 32)
    low, high = env.task.reward_range
    for t in range(60):
        noise = np.random.default_rng(t).normal(0, 0.3, (32, 8)) * env.action_spec.high
        step = env.step(env.expert() + (t % 2) * noise)
        terms, weights = step.reward_terms, env.task.weights
        assert set(terms) == set(weights)
        assert all((v >= 0).all() and (v <= 1).all() for v in terms.values())
        total = sum(weights[k] * v for k, v in terms.items())
        np.testing.assert_allclose(step.reward, total)
        assert (step.reward >= low).all() and (step.reward <= high).all()


def test_reward_and_stage_rise_with_the_work() -> None:
    env = make("pick_cube", 32)
    returns, stages = [], []
    for _ in range(70):
        step = env.step(env.expert())
        returns.append(step.reward)
        stages.append(env.task.stage(env.memory))
    reward, stage = np.stack(returns), np.stack(stages)
    assert (stage[0] == 0).all() and (stage[-1] == len(env.task.stages) - 1).all()
    means = [reward[stage == k].mean() for k in range(len(env.task.stages))]
    assert means == sorted(means)


def test_success_is_a_hold_of_ten_steps() -> None:
    env = make("pick_cube", 32)
    count = np.zeros(32, int)
    for _ in range(80):
        step = env.step(env.expert())
        count = np.where(step.reward_terms["hold"] > 0, count + 1, 0)
        np.testing.assert_array_equal(step.success, count >= 10)
    assert step.success.any()


def test_a_thrown_cube_earns_no_lift() -> None:
    env = make("pick_cube", 8)
    env.sim.qpos[:, 11] += 0.4  # in the air, out of the hand
    step = env.step(np.zeros((8, 8), np.float32))
    assert (step.reward_terms["lift"] < 0.05).all() and (step.reward_terms["goal"] < 0.05).all()


def test_weights_come_from_the_configuration() -> None:
    plain, heavy = make("pick_cube", 4), make("pick_cube", 4, "env.task.weights.reach=2.5")
    ours, theirs = plain.step(plain.expert()), heavy.step(heavy.expert())
    extra = 2.0 * ours.reward_terms["reach"]
    np.testing.assert_allclose(theirs.reward, ours.reward + extra)


@pytest.mark.parametrize("name", ARMS)
def test_configured_weights_are_the_classes_own(name: str) -> None:
    task = make(name, 1).task
    assert task.weights == type(task).weights


@pytest.mark.parametrize("action", ["joint_delta", "ee_delta"])
@pytest.mark.parametrize("name", ARMS)
def test_the_same_task_runs_on_torch(name: str, action: str) -> None:
    numpy_env = make(name, 8, f"env.task.action={action}")
    env = torch_env(numpy_env.task, 8)
    theirs = make(name, 8, f"env.task.action={action}")
    ours, other = env.reset(seed=1), theirs.reset(seed=1)
    for _ in range(25):
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
@pytest.mark.parametrize("name", ARMS)
def test_the_task_asks_for_nothing_beyond_the_array_api(name: str, action: str) -> None:
    env = make(name, 4, f"env.task.action={action}")
    task, sim = env.task, StrictSim(env.sim)
    task.bind(sim)
    draw = Draw(xp.asarray(np.arange(4)), xp.zeros(4, dtype=xp.int64))
    _, _, memory = task.reset(sim, draw)
    memory = {**task.memory(sim), **memory}
    for flaw in (None, *(flaw.name for flaw in task.flaws)):
        chosen = xp.astype(task.expert(sim, memory, draw, flaw), xp.float32)
    _, memory = task.control(sim, chosen, memory)
    terms, memory = task.reward(sim, chosen, {}, memory)
    obs = task.observe(sim, memory)
    assert obs["state"].dtype == xp.float32
    assert all(term.dtype == xp.float64 for term in terms.values())
    assert task.stage(memory).dtype == xp.int64
    assert task.success(sim, memory).dtype == xp.bool
    assert task.keypoint_positions(sim, memory).shape == (4, len(task.keypoints), 3)
    task.readout(sim, memory)


def test_readouts_and_keypoints_tell_the_truth() -> None:
    env = make("pick_cube", 4)
    env.step(env.expert())
    truth, points = env.readouts(), env.task.keypoint_positions(env.sim, env.memory)
    np.testing.assert_array_equal(truth["cube_pose"], env.sim.qpos[:, CUBE])
    assert points.shape == (4, len(env.task.keypoints), 3)
    np.testing.assert_array_equal(points[:, 1], env.sim.qpos[:, 9:12])
    assert not np.shares_memory(truth["cube_pose"], env.sim.qpos)
