"""The step loop: what is computed when, what an episode's end shows, and what faults do."""

import copy
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.ant import Ant
from embodied.envs.tasks.half_cheetah import HalfCheetah

from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.randomise import Randomisation
from embodied.task import Task
from embodied.types import ACTION_FAULT, PHYSICS_FAULT


class PointMass:
    """A simulator of one number a world: `control` is its velocity."""

    xp: Any = array_api_compat.numpy
    device, timestep_s = None, 0.05
    missing, masked = frozenset({"xpos"}), False
    control_range = np.array([[-1.0, 1.0]])

    def __init__(self, num_worlds: int) -> None:
        self.num_worlds = num_worlds
        self.qpos = np.zeros((num_worlds, 1))
        self.calls: list[str] = []

    def step(self, control, substeps: int) -> None:
        self.calls.append(f"physics x{substeps}")
        self.qpos += control * self.timestep_s * substeps

    def reset(self, rows, ids) -> None:
        self.qpos[ids] = rows["qpos"]

    def faults(self):
        return ~np.isfinite(self.qpos[:, 0])

    def state_dict(self):
        return {"qpos": self.qpos.copy()}

    def load_state_dict(self, state) -> None:
        self.qpos[:] = state["qpos"]

    def close(self) -> None:
        self.calls.append("close")


class Travel(Task):
    """Go right: past 1 the episode ends, past 0.5 it is a success. Memory counts the way."""

    name, rate_hz, max_steps = "travel", 10.0, 12
    weights = {"way": 2.0, "effort": -0.5}

    def memory(self, sim):
        return {"way": np.zeros(sim.num_worlds), "start": np.zeros(sim.num_worlds)}

    def reset(self, sim, draw):
        start = draw.uniform("start", (), -0.1, 0.1)
        return {"qpos": start[:, None]}, {}, {"start": start}

    def control(self, sim, action, memory):
        sim.calls.append("control")
        return action, memory

    def before(self, sim):
        sim.calls.append("before")
        return {"x": sim.qpos[:, 0].copy()}

    def reward(self, sim, action, before, memory):
        sim.calls.append("reward")
        way = sim.qpos[:, 0] - before["x"]
        terms = {"way": way, "effort": action[:, 0] ** 2, "one": np.ones_like(way)}
        return terms, {**memory, "way": memory["way"] + np.abs(way)}

    def observe(self, sim, memory):
        sim.calls.append("observe")
        return {"state": sim.qpos.copy(), "way": memory["way"][:, None].copy()}

    def terminated(self, sim, memory):
        sim.calls.append("terminated")
        return sim.qpos[:, 0] > 1.0

    def success(self, sim, memory):
        sim.calls.append("success")
        return sim.qpos[:, 0] > 0.5


def travel(num_worlds: int = 3, **settings) -> TaskEnv:
    return TaskEnv(Travel(), PointMass(num_worlds), **settings)


def push(*velocities: float) -> np.ndarray:
    return np.array(velocities, np.float32)[:, None]


def real(task: Task, num_worlds: int = 4, **settings) -> TaskEnv:
    return TaskEnv(task, MujocoSim(task.model(), num_worlds, threads=1), **settings)


def some_action(env: TaskEnv, step: int) -> np.ndarray:
    rng = np.random.default_rng(step)
    return rng.uniform(-1, 1, (env.num_worlds, env.action_spec.size)).astype(np.float32)


def test_the_order_of_a_step() -> None:
    env = travel()
    env.sim.calls.clear()
    env.step(push(0, 0, 0))
    order = ["control", "before", "physics x2", "reward", "observe", "terminated", "success"]
    assert env.sim.calls == order
    env.close()
    assert env.sim.calls[-1] == "close"


def test_spaces_and_specs() -> None:
    env = travel()
    assert env.name == "travel" and env.num_worlds == 3 and env.max_steps == 12
    assert env.action_space.shape == (1,) and env.action_space.dtype == np.float32
    assert set(env.observation_space) == {"state", "way"}
    assert env.observation_space["state"].shape == (1,)
    obs = env.reset()
    for i in range(3):
        assert {k: v[i] for k, v in obs.items()} in env.observation_space
    assert env.action_spec.names == ("ctrl_0",) and env.action_spec.rate_hz == 10.0


def test_the_reward_weighs_its_terms() -> None:
    env = travel()
    step = env.step(push(1.0, -0.5, 0.0))
    np.testing.assert_allclose(step.reward_terms["way"], [0.1, -0.05, 0.0])
    np.testing.assert_allclose(step.reward_terms["effort"], [1.0, 0.25, 0.0])
    np.testing.assert_allclose(step.reward, [0.2 - 0.5 + 1, -0.1 - 0.125 + 1, 1.0])


def test_actions_are_clamped_to_their_limits() -> None:
    env = travel()
    start = env.sim.qpos.copy()
    action = push(5.0, -5.0, 0.25)
    step = env.step(action)
    assert step.action_executed[:, 0].tolist() == [1.0, -1.0, 0.25]
    np.testing.assert_allclose((env.sim.qpos - start)[:, 0], [0.1, -0.1, 0.025])
    assert action[0, 0] == 5.0, "the caller's own array is left alone"


def test_an_episode_is_truncated_at_its_last_step() -> None:
    env = travel(max_steps=3)
    for expected in (False, False, True):
        step = env.step(push(0.0, 0.1, -0.1))
        assert step.truncated.tolist() == [expected] * 3
        assert not step.terminated.any() and not step.fault.any()
    assert travel().max_steps == 12


def test_termination_beats_truncation() -> None:
    env = travel(2, max_steps=10)
    env.sim.qpos[:] = [[0.05], [-0.05]]
    for t in range(10):
        step = env.step(push(1.0, 1.0))
        assert step.success.tolist() == (env.sim.qpos[:, 0] > 0.5).tolist()
        assert not step.done.any() or t == 9
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, True]
    np.testing.assert_allclose(step.obs["state"][:, 0], [1.05, 0.95])


def test_a_step_shows_the_true_successor_and_reset_the_next_start() -> None:
    env = travel(2, max_steps=1)
    first = env.reset(seed=0)
    step = env.step(push(1.0, -1.0))
    np.testing.assert_allclose(step.obs["state"] - first["state"], [[0.1], [-0.1]])
    kept = step.obs["state"].copy()
    obs = env.reset(step.done)
    assert np.array_equal(step.obs["state"], kept)
    assert (np.abs(obs["state"]) <= 0.1).all() and (obs["state"] != first["state"]).all()
    assert not obs["way"].any()


def test_reset_leaves_the_others_alone() -> None:
    env = travel(3, max_steps=4)
    for _ in range(2):
        step = env.step(push(0.5, 0.5, 0.5))
    obs = env.reset(np.array([False, True, False]))
    for key in obs:
        assert np.array_equal(obs[key][[0, 2]], step.obs[key][[0, 2]])
    assert obs["way"][1] == 0.0 and abs(obs["state"][1, 0]) <= 0.1
    assert env.memory["start"][1] == obs["state"][1, 0]
    truncated = [env.step(push(0, 0, 0)).truncated.tolist() for _ in range(4)]
    assert truncated[1] == [True, False, True] and truncated[3] == [True, True, True]


def test_an_empty_reset_does_nothing() -> None:
    env = travel()
    step = env.step(push(1, 1, 1))
    obs = env.reset(np.zeros(3, bool))
    assert all(np.array_equal(obs[key], step.obs[key]) for key in obs)


def test_seeds_of_worlds() -> None:
    """World i draws from `seed + first_world + i`, whichever way the seed is given."""
    starts = travel(6, seed=10)._obs["state"]
    assert np.array_equal(travel(2, seed=10, first_world=3)._obs["state"], starts[3:5])
    env = travel(2, first_world=3)
    assert np.array_equal(env.reset(seed=10)["state"], starts[3:5])
    assert np.array_equal(env.reset(seed=np.array([15, 10]))["state"], starts[[5, 0]])
    before = env.reset(seed=10)["state"].copy()
    after = env.reset(np.array([False, True]), seed=np.array([0, 12]))["state"]
    assert np.array_equal(after[0], before[0]) and np.array_equal(after[1], starts[2])
    assert (env.reset()["state"] != starts[3:5]).all(), "the next episode is another"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite(bad: float) -> None:
    env, twin = travel(), travel()
    seen = env.step(push(0.5, 0.5, 0.5)).obs
    twin.step(push(0.5, 0.5, 0.5))
    step, other = env.step(push(0.5, bad, -0.5)), twin.step(push(0.5, 0.0, -0.5))
    assert step.fault.tolist() == [0, ACTION_FAULT, 0] and step.fault.dtype == np.int8
    assert step.truncated.tolist() == [False, True, False] and not step.terminated.any()
    assert step.reward[1] == 0 and all(term[1] == 0 for term in step.reward_terms.values())
    assert np.isfinite(step.action_executed).all()
    for key in seen:
        assert np.array_equal(step.obs[key][1], seen[key][1]), "the previous one is shown"
        assert np.array_equal(step.obs[key][[0, 2]], other.obs[key][[0, 2]])
    assert np.array_equal(step.reward[[0, 2]], other.reward[[0, 2]])
    env.reset(step.done)
    assert not env.step(push(0, 0, 0)).fault.any()


def test_opposite_infinities_do_not_hide_each_other() -> None:
    env = real(HalfCheetah(), 2)
    action = np.zeros((2, 6), np.float32)
    action[0, :2] = np.inf, -np.inf
    assert env.step(action).fault.tolist() == [ACTION_FAULT, 0]
    action[:] = 3e38  # finite, though their sum is not
    step = env.step(action)
    assert not step.fault[1] and (step.action_executed == 1).all()


def test_a_world_that_breaks() -> None:
    env = travel(3, max_steps=2)
    seen = env.step(push(0.5, 0.5, 0.5)).obs
    env.sim.qpos[0] = np.nan
    step = env.step(push(0.5, 0.5, 0.5))
    assert step.fault.tolist() == [PHYSICS_FAULT, 0, 0]
    assert step.truncated.all() and not step.terminated.any() and not step.success.any()
    assert np.array_equal(step.obs["state"][0], seen["state"][0])
    assert step.reward[0] == 0 and (step.reward[1:] != 0).all()
    assert all(np.isfinite(value).all() for value in step.reward_terms.values())
    assert np.isfinite(env.reset(step.done)["state"]).all()
    assert not env.step(push(0, 0, 0)).fault.any()


def test_a_broken_world_is_no_success_and_did_not_terminate() -> None:
    env = travel(2)
    env.sim.qpos[:] = 3.0
    step = env.step(push(np.nan, 0.0))
    assert step.terminated.tolist() == [False, True] and step.success.tolist() == [False, True]
    assert step.truncated.tolist() == [True, False]


def test_real_physics_that_diverges() -> None:
    env, twin = real(HalfCheetah()), real(HalfCheetah())
    for t in range(3):
        seen = env.step(some_action(env, t)).obs["state"]
        twin.step(some_action(env, t))
    env.sim.qvel[2, 1] = np.nan
    step, other = env.step(some_action(env, 3)), twin.step(some_action(env, 3))
    assert step.fault.tolist() == [0, 0, PHYSICS_FAULT, 0]
    assert np.array_equal(step.obs["state"][2], seen[2]) and step.reward[2] == 0
    rest = [0, 1, 3]
    assert np.array_equal(step.obs["state"][rest], other.obs["state"][rest])
    assert np.array_equal(step.reward[rest], other.reward[rest])
    env.reset(step.done)
    assert not env.step(some_action(env, 4)).fault.any()


def test_an_action_of_another_shape_is_an_error() -> None:
    env = travel()
    for shape in ((3,), (2, 1), (3, 2), (1, 3, 1)):
        with pytest.raises(ValueError, match=r"action has shape .*, expected \(3, 1\)"):
            env.step(np.zeros(shape, np.float32))


def test_max_steps_must_be_positive() -> None:
    with pytest.raises(UserError, match="env.max_steps=0: give a whole number >= 1"):
        travel(max_steps=0)


def test_a_task_whose_readouts_are_missing_is_refused() -> None:
    with pytest.raises(UserError, match=r"ant needs readouts this sim lacks: \['xpos'\]"):
        TaskEnv(Ant(), PointMass(1))


@pytest.mark.parametrize("task", [HalfCheetah(), Ant()], ids=lambda t: t.name)
def test_what_a_step_returned_never_changes(task: Task) -> None:
    env = real(task, randomise=Randomisation(delay_steps=(1, 2)))
    first = env.reset()
    steps = [env.step(some_action(env, 0))]

    def arrays(step) -> dict[str, np.ndarray]:
        fields = ("reward", "terminated", "truncated", "success", "fault", "action_executed")
        return {**step.obs, **step.reward_terms, **{name: getattr(step, name) for name in fields}}

    saved = {k: v.copy() for k, v in arrays(steps[0]).items()}, first["state"].copy()
    for t in range(1, 4):
        steps.append(env.step(some_action(env, t)))
    again = env.reset(np.array([True, False, True, False]))
    env.step(some_action(env, 4))
    for name, value in saved[0].items():
        assert np.array_equal(arrays(steps[0])[name], value), name
    assert np.array_equal(first["state"], saved[1])
    for other in (steps[1].obs, again):
        assert not np.shares_memory(steps[0].obs["state"], other["state"])


EVERYTHING = Randomisation(
    mass=(0.8, 1.2), gains=(0.8, 1.2), friction=(0.5, 1.5), delay_steps=(0, 3), obs_noise=0.01
)


@pytest.mark.parametrize("randomise", [None, EVERYTHING], ids=["plain", "randomised"])
@pytest.mark.parametrize("task", [HalfCheetah(), Ant()], ids=lambda t: t.name)
def test_a_saved_env_goes_on_bit_for_bit(task: Task, randomise: Randomisation | None) -> None:
    def go_on(env: TaskEnv, start: int, stop: int) -> list[np.ndarray]:
        rows = []
        for t in range(start, stop):
            step = env.step(some_action(env, t))
            rows += [*step.obs.values(), step.reward, *step.reward_terms.values(), step.done]
            if step.done.any() or t % 7 == 0:
                mask = step.done | (np.arange(4) == t % 4)
                rows += env.reset(mask).values()
        return rows

    first = real(task, max_steps=13, randomise=randomise)
    go_on(first, 0, 20)
    state = first.state_dict()
    expected = go_on(first, 20, 60)
    second = real(task, max_steps=13, seed=99, randomise=randomise)
    go_on(second, 0, 5)
    second.load_state_dict(state)
    actual = go_on(second, 20, 60)
    assert len(expected) == len(actual)
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_saved_env_keeps_its_memory_and_clock() -> None:
    env = travel(3, max_steps=6)
    for _ in range(2):
        env.step(push(0.5, -0.5, 0.2))
    env.reset(np.array([True, False, False]))
    state = env.state_dict()
    saved = copy.deepcopy(state)
    env.reset(np.array([False, True, False]))
    np.testing.assert_equal(state, saved, "what was saved does not go on with the env")
    env.load_state_dict(state)
    expected = [env.step(push(0.1, 0.2, 0.3)) for _ in range(4)]
    np.testing.assert_equal(state, saved)
    env.reset()
    other = travel(3, max_steps=6, seed=5)
    other.load_state_dict(state)
    bad = push(np.nan, 0.2, 0.3)
    shown = other.step(bad).obs["state"][0]
    assert np.array_equal(shown, state["obs"]["state"][0]), "the saved observation is shown"
    other.load_state_dict(state)
    for step in expected:
        mine = other.step(push(0.1, 0.2, 0.3))
        assert np.array_equal(mine.obs["way"], step.obs["way"])
        assert np.array_equal(mine.truncated, step.truncated)
    assert expected[-1].truncated.tolist() == [False, True, True]


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="the checkpoint is of another travel"):
        travel(3).load_state_dict(travel(4).state_dict())


def test_staggered_episodes_end_apart_and_the_next_ones_last() -> None:
    env = travel(200)
    assert env.stagger()
    ends = [env.step(np.zeros((200, 1), np.float32)).truncated for _ in range(12)]
    first = np.argmax(ends, axis=0) + 1
    assert set(first.tolist()) == set(range(1, 13)) and np.any(ends, axis=0).all()
    env.reset()
    lasting = [env.step(np.zeros((200, 1), np.float32)).truncated.any() for _ in range(12)]
    assert lasting == [False] * 11 + [True]
