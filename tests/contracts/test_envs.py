"""What every env in conf/ promises, whoever wrote it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from omegaconf import DictConfig, OmegaConf

from embodied.actor import Expert
from embodied.build import make_env
from embodied.config import CONF, amend, compose_config, options, resolved
from embodied.env import Stepper, TaskEnv
from embodied.gym_view import GymView
from embodied.types import ACTION_FAULT, Step

STEPPERS = {
    name: OmegaConf.load(CONF / "env" / f"{name}.yaml").get("stepper") for name in options("env")
}
ENVS = [name for name, stepper in STEPPERS.items() if "world" not in (stepper or {})]
"""Those of numbers: `test_text_worlds` has the others."""
GIVEN = {"gym": ["env.id=Pendulum-v1"]}
"""What an env asks the user for."""
TASKS = [name for name in ENVS if "task" in OmegaConf.load(CONF / "env" / f"{name}.yaml")]
CONSTANT = {
    # Gymnasium's observation: contact forces of the legs' upper parts, which touch nothing
    "ant": {27 + 6 * body + k for body in (1, 4, 7, 10) for k in range(6)},
    # Gymnasium's observation: the mass in each body's inertia, which only randomisation varies
    "spin": {27 + 6 * body + k for body in (1, 4, 7, 10) for k in range(6)},  # the same body
    "humanoid": {45 + 10 * body + 9 for body in range(13)},
}
"""Columns of "state" that never vary, and why."""
STEPS = 24


def make(name: str, num_envs: int, *overrides: str, seed: int = 0) -> Stepper:
    """Worlds with episodes short enough for several in a rollout."""
    cfg = amend(configuration(name), ["env.max_steps=9", *overrides])
    return make_env(cfg, num_envs=num_envs, seed=seed)


@cache
def configuration(name: str) -> DictConfig:
    """An env's configuration as a run would save it."""
    return OmegaConf.create(resolved(compose_config([f"env={name}", *GIVEN.get(name, [])])))


def actions(env: Stepper, seeds: list[int], steps: int = STEPS) -> np.ndarray:
    """Random actions `(T, N, A)` float32 within their limits, each world's from its own seed."""
    spec = env.action_spec
    assert spec is not None, "GIVEN: an id whose actions are vectors"
    shape = (steps, spec.size)
    rows = [np.random.default_rng(seed).uniform(spec.low, spec.high, shape) for seed in seeds]
    return np.stack(rows, axis=1).astype(np.float32)


def rollout(env: Stepper, seeds: list[int], steps: int = STEPS) -> dict[str, np.ndarray]:
    """Everything that random actions lead to, `(T, N, ...)` each, starting with reset(seeds)."""
    obs = env.reset(seed=np.array(seeds))
    rows: list[dict[str, np.ndarray]] = []
    for action in actions(env, seeds, steps):
        step = env.step(action)
        row = {f"seen/{key}": np.array(value) for key, value in obs.items()}
        row |= {f"next/{key}": np.array(value) for key, value in step.obs.items()}
        row |= {f"term/{key}": np.array(value) for key, value in step.reward_terms.items()}
        for name in ("reward", "terminated", "truncated", "success", "fault", "action_executed"):
            row[name] = np.array(getattr(step, name))
        rows.append(row)
        obs = env.reset(step.done) if step.done.any() else step.obs
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_every_env_is_a_task_or_brings_its_own_worlds() -> None:
    assert set(ENVS) - set(TASKS) == {"gym"}


@pytest.mark.parametrize("name", ENVS)
def test_equal_seeds_give_equal_trajectories(name: str) -> None:
    seeds = [11, 12, 13]
    env = make(name, 3)
    first = rollout(env, seeds)
    assert_equal(first, rollout(env, seeds))  # in the same worlds, whatever they did before
    assert_equal(first, rollout(make(name, 3, seed=5), seeds))
    other = rollout(env, [14, 15, 16])
    assert any((first[key] != other[key]).any() for key in first if key.startswith("seen/"))
    assert first["truncated"].any() or first["terminated"].any()


@pytest.mark.parametrize("name", ENVS)
def test_the_seed_of_all_worlds_is_one_more_in_each(name: str) -> None:
    obs = {key: np.array(value) for key, value in make(name, 3).reset(seed=21).items()}
    again = make(name, 3).reset(seed=np.array([21, 22, 23]))
    for key, value in obs.items():
        np.testing.assert_array_equal(value, again[key])


@pytest.mark.parametrize("name", ENVS)
def test_a_world_does_not_depend_on_its_neighbours(name: str) -> None:
    together = rollout(make(name, 3), [31, 32, 33])
    alone = rollout(make(name, 1), [33])
    assert_equal({key: value[:, 2:] for key, value in together.items()}, alone)


@pytest.mark.parametrize("name", TASKS)
def test_one_thread_and_two_agree(name: str) -> None:
    one, two = (make(name, 4, f"sim.threads={k}") for k in (1, 2))
    assert_equal(rollout(one, [1, 2, 3, 4]), rollout(two, [1, 2, 3, 4]))


@pytest.mark.parametrize("name", ENVS)
def test_what_is_handed_out_stays_as_it_was(name: str) -> None:
    env = make(name, 2)
    handed = [(obs := env.reset(), {key: np.array(value) for key, value in obs.items()})]
    for action in actions(env, [0, 1], 12):
        step = env.step(action)
        handed.append((step.obs, {key: np.array(value) for key, value in step.obs.items()}))
        if step.done.any():
            obs = env.reset(step.done)
            handed.append((obs, {key: np.array(value) for key, value in obs.items()}))
    for now, then in handed:
        for key, value in then.items():
            np.testing.assert_array_equal(now[key], value, err_msg=f"{key} changed afterwards")
    arrays = [(id(obs), key, value) for obs, _ in handed for key, value in obs.items()]
    for i, (mine, key, value) in enumerate(arrays):
        for other, name_there, there in arrays[:i]:
            if (mine, key) != (other, name_there) and value is not there:
                assert not np.shares_memory(value, there), f"{key} shares memory"


@pytest.mark.parametrize("name", ENVS)
def test_no_observation_is_constant(name: str) -> None:
    env = make(name, 16, "env.max_steps=120")
    seen = rollout(env, list(range(16)), 160)
    constant = set()
    for key, value in seen.items():
        if key.startswith("seen/"):
            columns = value.reshape(value.shape[0] * value.shape[1], -1)
            still = np.flatnonzero(columns.max(axis=0) == columns.min(axis=0))
            constant |= {f"{key.removeprefix('seen/')}[{column}]" for column in still}
    assert constant == {f"state[{column}]" for column in CONSTANT.get(name, ())}


@pytest.mark.parametrize("name", ENVS)
def test_spaces_hold_what_is_returned(name: str) -> None:
    env = make(name, 3)
    count = env.num_worlds
    obs = env.reset()
    for action in actions(env, [0, 1, 2], 12):
        for given in (obs, (step := env.step(action)).obs):
            assert given.keys() == env.observation_space.spaces.keys()
            for i in range(count):
                row = {key: value[i] for key, value in given.items()}
                assert env.observation_space.contains(row)
        check_step(step, count)
        obs = env.reset(step.done) if step.done.any() else step.obs
    if env.action_spec is not None:
        spec = env.action_spec
        assert len(spec.names) == len(spec.units) == spec.size == len(set(spec.names))
        assert spec.rate_hz > 0
        assert (spec.low < spec.high).all()
        assert env.action_space.contains(spec.low) and env.action_space.contains(spec.high)
        assert step.action_executed.shape == (count, spec.size)


def check_step(step: Step, count: int) -> None:
    """Shapes and types of a step's parts."""
    kinds = {"terminated": "b", "truncated": "b", "success": "b", "fault": "i", "reward": "f"}
    for name, kind in kinds.items():
        value = getattr(step, name)
        assert (value.shape, value.dtype.kind) == ((count,), kind), name
    assert all(value.shape == (count,) for value in step.reward_terms.values())
    assert not (step.terminated & step.truncated).any()
    assert np.isfinite(step.reward).all()


@pytest.mark.parametrize("name", ENVS)
def test_the_reward_is_the_weighted_sum_of_its_terms(name: str) -> None:
    env = make(name, 4)
    seen = rollout(env, [1, 2, 3, 4])
    weights = getattr(getattr(env, "task", None), "weights", {})
    terms = {key.removeprefix("term/"): value for key, value in seen.items() if "term/" in key}
    assert terms
    assert weights.keys() <= terms.keys(), "a weight without a term"
    total = sum(weights.get(key, 1.0) * value for key, value in terms.items())
    np.testing.assert_allclose(seen["reward"], total, rtol=1e-6, atol=1e-9)
    low, high = getattr(getattr(env, "task", None), "reward_range", (-np.inf, np.inf))
    assert (seen["reward"] >= low - 1e-6).all() and (seen["reward"] <= high + 1e-6).all()


@pytest.mark.parametrize("name", ENVS)
def test_episodes_end_at_the_limit_and_not_before(name: str) -> None:
    env = make(name, 4, "env.max_steps=5")
    env.reset()
    live = np.ones(4, bool)
    for t, action in enumerate(actions(env, [0, 1, 2, 3], 5), 1):
        step = env.step(action)
        np.testing.assert_array_equal(step.truncated[live], (~step.terminated & (t == 5))[live])
        live &= ~step.done
    assert not live.any()


@pytest.mark.parametrize("name", ENVS)
def test_a_view_shows_the_true_final_observation(name: str) -> None:
    seeds = [3, 4]
    env = make(name, 2)
    view = GymView(make(name, 2), AutoresetMode.SAME_STEP, flatten=False)
    env.reset(seed=np.array(seeds))
    view.reset(seed=seeds)
    ended = 0
    for action in actions(env, seeds):
        step = env.step(action)
        shape = (2, *view.single_action_space.shape)  # type: ignore[misc]
        obs, _, terminated, truncated, info = view.step(action.reshape(shape))
        done = step.done
        np.testing.assert_array_equal(done, terminated | truncated)
        if done.any():
            ended += int(done.sum())
            for key, value in step.obs.items():
                np.testing.assert_array_equal(info["final_obs"][key][done], value[done])
            after = env.reset(done)
            for key, value in after.items():
                np.testing.assert_array_equal(obs[key], value)
    assert ended >= 4


@pytest.mark.parametrize("name", ENVS)
def test_an_action_that_is_no_number_ends_that_episode_alone(name: str) -> None:
    env, calm = make(name, 3), make(name, 3)
    for worlds in (env, calm):
        worlds.reset(seed=np.array([1, 2, 3]))
    for t, action in enumerate(actions(env, [1, 2, 3], 6)):
        expected = calm.step(action)
        if t == 3:
            action = action.copy()
            action[1, 0] = np.nan
        step = env.step(action)
        others = [0, 2]
        for key, value in expected.obs.items():
            np.testing.assert_array_equal(step.obs[key][others], value[others])
            assert np.isfinite(step.obs[key]).all()
        np.testing.assert_array_equal(step.reward[others], expected.reward[others])
        if t == 3:
            assert step.fault.tolist() == [0, ACTION_FAULT, 0]
            assert step.truncated[1] and not step.terminated[1]
            assert step.reward[1] == 0.0 and not step.success[1]
            env.reset(step.done)


@pytest.mark.parametrize("name", ENVS)
def test_a_saved_state_goes_on_as_if_nothing_was(name: str) -> None:
    env = make(name, 3, *(["env.randomise.delay_steps=[0,2]"] if name in TASKS else []))
    rollout(env, [1, 2, 3], 7)
    state = env.state_dict()
    plan = actions(env, [7, 8, 9], 8)
    if not env.exact_resume:  # it says so; then its episodes start anew
        other = make(name, 3)
        other.load_state_dict(state)
        assert other.reset().keys() == env.observation_space.spaces.keys()
        return
    expected = follow(env, plan)
    other = make(name, 3, "env.randomise.delay_steps=[0,2]", seed=99)
    other.load_state_dict(state)
    assert_equal(expected, follow(other, plan))


def follow(env: Stepper, plan: np.ndarray) -> dict[str, np.ndarray]:
    """What a plan of actions `(T, N, A)` leads to from here, through resets."""
    rows: list[dict[str, Any]] = []
    for action in plan:
        step = env.step(action)
        rows.append({"reward": np.array(step.reward), "done": np.array(step.done)})
        rows[-1] |= {key: np.array(value) for key, value in step.obs.items()}
        if step.done.any():
            obs = env.reset(step.done)
            rows[-1] |= {f"reset/{key}": np.array(value) for key, value in obs.items()}
        else:
            rows[-1] |= {f"reset/{key}": rows[-1][key] for key in step.obs}
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_is_to_be_done(name: str) -> None:
    task = task_of(make(name, 1))
    assert task.name == name
    assert task.instructions
    assert len(set(task.instructions)) == len(task.instructions)
    for instruction in task.instructions:
        assert instruction == instruction.strip() and len(instruction) > 10
    assert len(set(task.stages)) == len(task.stages)
    assert set(task.cameras) and len(set(task.cameras)) == len(task.cameras)


@pytest.mark.parametrize("name", TASKS)
def test_flaws_are_variants_of_an_expert(name: str) -> None:
    env = make(name, 2)
    task = task_of(env)
    names = [flaw.name for flaw in task.flaws]
    assert len(set(names)) == len(names)
    assert all(flaw.expect in ("fails", "slow") for flaw in task.flaws)
    if not names and "joints.angles" not in {q.name for q in task.quantities}:  # a walking body
        pytest.fail(f"{name}: a task that can be scripted has an expert with flaws")
    obs = env.reset()
    for flaw in [None, *names] if names else []:
        _, action = Expert(env, flaw).act({}, obs)
        assert action.shape == (2, env.action_spec.size)  # type: ignore[union-attr]
        assert np.isfinite(action).all()


def task_of(env: Stepper) -> Any:
    assert isinstance(env, TaskEnv)
    return env.task


@pytest.mark.parametrize("name", TASKS)
def test_every_camera_renders(name: str) -> None:
    env = make(name, 2)
    env.reset()
    for camera in (None, *task_of(env).cameras):
        images = env.render(camera, np.array([1, 0]), 32, 48)
        assert (images.shape, images.dtype) == ((2, 32, 48, 3), np.uint8)
        assert images.std() > 5.0  # something is to be seen
    env.close()


@pytest.mark.parametrize("name", TASKS)
def test_stages_and_keypoints_have_their_places(name: str) -> None:
    env = make(name, 2)
    assert isinstance(env, TaskEnv)
    task = task_of(env)
    rollout(env, [0, 1], 3)
    if task.stages:
        stage = task.stage(env.memory)
        assert stage.shape == (2,) and ((stage >= 0) & (stage < len(task.stages))).all()
    if task.keypoints:
        points = task.keypoint_positions(env.sim, env.memory)
        assert points.shape == (2, len(task.keypoints), 3) and np.isfinite(points).all()


@pytest.mark.parametrize("name", TASKS)
def test_what_reward_code_may_read(name: str) -> None:
    env = make(name, 3)
    assert isinstance(env, TaskEnv)
    names = [q.name for q in env.task.quantities]
    assert names and len(set(names)) == len(names)
    forbidden = ("success", "progress", "stage", "reward", "held")
    assert not any(word in part for word in forbidden for part in names)
    assert all(part.isidentifier() for n in names for part in n.split("."))
    assert {q.unit for q in env.task.quantities} <= {"m", "m/s", "rad", "rad/s", "1"}
    env.reset(seed=np.array([1, 2, 3]))
    before = {k: np.array(v) for k, v in env.readouts().items()}
    told = env.readouts()
    for action in actions(env, [1, 2, 3], 6):
        env.step(action)
    after = env.readouts()
    for quantity in names:
        key = f"world.{quantity}"
        assert after[key].shape[0] == 3 and np.isfinite(after[key]).all()
        np.testing.assert_array_equal(told[key], before[key])  # no view of what goes on
    assert any((after[f"world.{n}"] != before[f"world.{n}"]).any() for n in names)
    env.close()
