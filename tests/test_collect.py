"""What the collector keeps of each step, where episodes end, and how it goes on."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from embodied.collect import Collector
from embodied.errors import UserError
from embodied.reward_model import Channel, Needs
from embodied.rewards import Rewards
from embodied.types import (
    ABSTAINED,
    FAILED,
    PHYSICS_FAULT,
    SCORED,
    ActionSpec,
    Score,
    Step,
    Trajectory,
)
from tests.toys import Nearest, Nearness, Wander, reach, through_disk

LENGTHS = (3, 2, 5)
"""Of the episodes of worlds 0, 1 and 2. Odd worlds terminate, even ones are truncated."""


class Clockwork:
    """Worlds whose observation says where they are: (world, episode, step in it).

    They answer in one array that they write over, as an env on a device may. Step `k` of an
    episode pays `k`; its second step is a success. `faulty` holds (world, episode, step) to break.
    """

    name, max_steps, exact_resume = "clockwork", max(LENGTHS), True
    instructions = ()
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gym.spaces.Dict(
        {
            "state": gym.spaces.Box(-np.inf, np.inf, (3,), np.float64),
            "pixel": gym.spaces.Box(0, 255, (1, 1, 3), np.uint8),
        }
    )

    def __init__(self, faulty: tuple = ()) -> None:
        self.num_worlds, self.faulty = len(LENGTHS), set(faulty)
        low, high = np.full(1, -1, np.float32), np.ones(1, np.float32)
        self.action_spec = ActionSpec(("x",), ("m",), low, high, "position", 10.0)
        self.place = np.zeros((self.num_worlds, 3))
        self.place[:, 0] = np.arange(self.num_worlds)
        self.place[:, 1] = -1

    def reset(self, mask=None, seed=None):
        mask = np.ones(self.num_worlds, bool) if mask is None else mask
        self.place[mask, 1] += 1
        self.place[mask, 2] = 0
        return self._obs()

    def step(self, action):
        self.place[:, 2] += 1
        where = [tuple(int(x) for x in row) for row in self.place]
        fault = np.array([PHYSICS_FAULT * (row in self.faulty) for row in where], np.int8)
        last, odd = self.place[:, 2] == LENGTHS, self.place[:, 0] % 2 == 1
        count = self.place[:, 2].copy()
        terms = {"count": count, "half": count / 2}
        executed, success = np.clip(action, -1, 1), count == 2
        ends = last & odd & (fault == 0), (last & ~odd) | (fault != 0)
        return Step(self._obs(), count, terms, *ends, success, fault, executed)

    def stagger(self):
        return False

    def readouts(self):
        return {"place": self.place.copy()}

    def state_dict(self):
        return {"place": self.place.copy()}

    def load_state_dict(self, state):
        self.place[:] = state["place"]

    def _obs(self):
        pixel = np.zeros((self.num_worlds, 1, 1, 3), np.uint8)
        pixel[:, 0, 0, 0] = self.place[:, 2]
        return {"state": self.place, "pixel": pixel}


class Counts:
    """A policy whose action is what its carry says: the number of steps since the episode began."""

    def carry(self, num_worlds: int):
        return {"steps": np.zeros((num_worlds, 1), np.float32)}

    def act(self, carry, obs, greedy=False):
        return {"steps": carry["steps"] + 1}, carry["steps"].copy()


class Asks(Nearness):
    """Pays the readout it is given the name of."""

    kind = "reward"

    def __init__(self, *names: str) -> None:
        self.needs = Needs(readouts=frozenset(names))

    def begin(self, carry, mask, moment):
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry, traj):
        value = sum(traj.readouts[name] for name in self.needs.readouts) + np.zeros(traj.shape)
        return carry, Score(value.astype(np.float32), np.full(traj.shape, SCORED, np.int8))


def collector(env: Any = None, *readouts: str, **settings: Any) -> Collector:
    env = env or Clockwork()
    channels = {"asks": Channel("asks", Asks(*(readouts or ("reward",))))}
    return Collector(env, Rewards(channels, env.num_worlds, 0.9), **settings)


def places(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each world is before each step (T, N, 3), and after the last."""
    rows, here = [], np.array([[n, 0, 0] for n in range(3)])
    for _ in range(steps):
        rows.append(here.copy())
        here[:, 2] += 1
        over = here[:, 2] == LENGTHS
        here[over, 1] += 1
        here[over, 2] = 0
    return np.array(rows), here


def arrays(traj: Trajectory) -> dict[str, np.ndarray]:
    """Every array of a trajectory, by name."""
    found = {}
    for name, value in vars(traj).items():
        if name in ("instructions", "weights"):
            continue
        parts = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{name}/{key}": part for key, part in parts if part is not None}
    return found


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert (a[name] == b[name]).all(), name


@pytest.mark.parametrize("cuts", [(11,), (1, 10), (3, 2, 5, 1)])
def test_time_never_skips(cuts: tuple[int, ...]) -> None:
    collect, policy = collector(), Counts()
    parts = [collect.collect(policy, steps) for steps in cuts]
    before, after = places(11)
    assert (np.concatenate([p.obs["state"] for p in parts]) == before).all()
    assert (parts[-1].last_obs["state"] == after).all()
    for part, following in zip(parts[:-1], parts[1:], strict=True):
        assert (part.last_obs["state"] == following.obs["state"][0]).all()
    first = before[..., 2] == 0
    assert (np.concatenate([p.is_first for p in parts]) == first).all()
    assert (np.concatenate([p.step_id for p in parts]).ravel() == np.arange(33)).all()
    assert collect.steps == 33


def test_observations_are_kept_in_single_precision_and_pictures_in_bytes() -> None:
    traj = collector().collect(Counts(), 3)
    assert traj.obs["state"].dtype == traj.last_obs["state"].dtype == np.float32
    assert traj.final_obs["state"].dtype == np.float32
    assert traj.obs["pixel"].dtype == traj.final_obs["pixel"].dtype == np.uint8
    assert traj.obs["pixel"][:, 2, 0, 0, 0].tolist() == [0, 1, 2]


def test_the_true_final_observation_of_every_episode() -> None:
    traj = collector().collect(Counts(), 11)
    before, _ = places(11)
    after = before + [0, 0, 1]  # of the same episode, whatever came next
    assert (traj.next_obs["state"] == after).all()
    ends = after[..., 2] == LENGTHS
    assert ((traj.final_index >= 0) == ends).all()
    assert len(traj.final_obs["state"]) == ends.sum() == 3 + 5 + 2
    assert sorted(traj.final_index[ends]) == list(range(10))
    odd = np.array([False, True, False])
    assert (traj.terminated == (ends & odd)).all()
    assert (traj.truncated == (ends & ~odd)).all()


def test_a_rollout_without_an_end() -> None:
    traj = collector().collect(Counts(), 1)
    assert traj.final_obs["state"].shape == (0, 3)
    assert (traj.next_obs["state"] == [[n, 0, 1] for n in range(3)]).all()


def test_what_was_collected_stays_when_the_env_goes_on() -> None:
    collect = collector()
    traj = collect.collect(Counts(), 4)
    kept = {name: array.copy() for name, array in arrays(traj).items()}
    collect.collect(Counts(), 4)
    assert_same(arrays(traj), kept)


def test_a_policy_remembers_its_own_episode_only() -> None:
    collect = collector()
    parts = [collect.collect(Counts(), steps) for steps in (4, 3, 4)]
    actions = np.concatenate([p.action[..., 0] for p in parts])
    assert (actions == places(11)[0][..., 2]).all()
    executed = np.concatenate([p.action_executed[..., 0] for p in parts])
    assert (executed == np.minimum(actions, 1)).all()


def test_a_clock_counts_each_episodes_own_steps() -> None:
    env = Clockwork()
    rewards = Rewards({"asks": Channel("asks", Asks("reward"), every=2)}, 3, 0.9)
    collect = Collector(env, rewards)
    parts = [collect.collect(Counts(), steps) for steps in (4, 3, 4)]
    paid = np.concatenate([part.reward for part in parts])
    step = places(11)[0][..., 2] + 1  # the k-th of its episode pays k, if it is asked about
    asked = (step % 2 == 0) | (step == LENGTHS)
    assert (paid == step * asked).all()


def test_a_fault_is_kept_but_not_learned_from() -> None:
    # world 2 breaks on the 2nd step of its first episode, and begins anew
    collect = collector(Clockwork(faulty=[(2, 0, 2)]))
    traj = collect.collect(Counts(), 6)
    assert np.argwhere(~traj.valid).tolist() == [[1, 2]]
    assert traj.reward[:, 2].tolist() == [1, 0, 1, 2, 3, 4]
    assert traj.truncated[1, 2] and not traj.terminated[1, 2]
    assert traj.is_first[2, 2]
    assert collect.faults == 1


def test_too_many_faults_stop_the_run() -> None:
    faulty = [(0, 0, 1), (1, 1, 1)]  # 2 of 12 steps
    assert collector(Clockwork(faulty), max_fault_rate=2 / 12).collect(Counts(), 4).valid.any()
    with pytest.raises(UserError, match=r"2 of 12 steps faulted \(physics diverged\), more than"):
        collector(Clockwork(faulty), max_fault_rate=0.16).collect(Counts(), 4)


class Breaks(Asks):
    """A judge that cannot judge the first `count` worlds."""

    value_range = (-1.0, 9.0)

    def __init__(self, status: int, count: int) -> None:
        super().__init__("reward")
        self.verdict, self.count = status, count

    def score(self, carry, traj):
        carry, score = super().score(carry, traj)
        score.status[:, : self.count] = self.verdict
        return carry, score


@pytest.mark.parametrize(("status", "name"), [(FAILED, "failed"), (ABSTAINED, "abstained")])
def test_a_judge_that_breaks_too_often_stops_the_run(status: int, name: str) -> None:
    def collect(rate: float) -> Trajectory:
        # asked on every 5th step and at ends: in 4 steps once in world 0, twice in world 1
        channel = Channel("a", Breaks(status, 1), every=5)
        rewards = Rewards({"a": channel}, 3, 0.9)
        return Collector(Clockwork(), rewards, max_fault_rate=rate).collect(Counts(), 4)

    assert collect(1 / 3).valid.sum() == 12 - (status == FAILED)
    with pytest.raises(UserError, match=f"the reward models {name} on 1 of 3 steps, more than"):
        collect(0.33)


def test_totals_of_finished_episodes() -> None:
    # in 7 steps: world 0 ends after 3 and 6 (1+2+3), world 1 after 2, 4, 6 (1+2), world 2 after 5
    collect = collector()
    collect.collect(Counts(), 3)
    collect.collect(Counts(), 4)
    totals = collect.episodes.drain()
    assert sorted(totals["length"]) == [2, 2, 2, 3, 3, 5]
    assert sorted(totals["return"]) == [3, 3, 3, 6, 6, 15]
    assert sorted(totals["term/half"]) == [1.5, 1.5, 1.5, 3, 3, 7.5]
    assert totals["success"].tolist() == [1] * 6  # at some step, not at the last
    assert collect.episodes.drain() == {}
    collect.collect(Counts(), 2)
    assert collect.episodes.drain()["return"].tolist() == [3, 6]  # worlds 1 and 0, at 8 and 9


def test_staggered_first_episodes_differ_and_do_not_count() -> None:
    def lengths(stagger: bool) -> tuple[list[int], list[float]]:
        env = reach(64)
        collect = collector(env, stagger=stagger)
        traj = collect.collect(Wander(env), 15)
        return np.argmax(traj.truncated, axis=0).tolist(), collect.episodes.drain().get(
            "length", []
        )

    ends, counted = lengths(stagger=False)
    assert ends == [14] * 64
    assert len(counted) == 64
    ends, counted = lengths(stagger=True)
    assert len(set(ends)) > 10
    assert all(length == 15 for length in counted)
    assert len(counted) < 20  # of the episodes that began in these 15 steps


def test_only_wanted_readouts_are_kept() -> None:
    traj = collector(None, "reward").collect(Counts(), 2)
    assert list(traj.readouts) == ["reward"]
    traj = collector(None, "success", "term/half").collect(Counts(), 2)
    assert sorted(traj.readouts) == ["success", "term/half"]
    assert traj.readouts["success"].tolist() == [[False] * 3, [True] * 3]
    assert traj.readouts["term/half"].tolist() == [[0.5] * 3, [1.0] * 3]


def test_a_readout_of_the_env_itself_describes_the_step_before_any_reset() -> None:
    env = reach(3, ends=True)
    traj = collector(env, "distance", "reward").collect(Wander(env), 40)
    here, goal = np.split(traj.next_obs["state"], 2, axis=-1)
    assert (traj.final_index >= 0).any()
    distance = np.linalg.norm(here - goal, axis=-1)
    np.testing.assert_allclose(traj.readouts["distance"], distance, atol=1e-6)


def test_an_unknown_readout() -> None:
    with pytest.raises(UserError, match="the env gives no readout 'depth'; it gives: place, rewa"):
        collector(None, "depth").start(Counts())  # before the first step
    with pytest.raises(UserError, match="no readout 'term/cost'; it gives: .*term/count, term/hal"):
        collector(None, "term/cost").collect(Counts(), 1)


def toy_collector() -> Collector:
    env = reach(4, ends=True, seed=3)
    near = Channel("near", Nearest(), shaping="potential", every=2)
    channels = {"near": near, "asks": Channel("asks", Asks("reward", "distance"))}
    return Collector(env, Rewards(channels, 4, 0.9), stagger=True)


def test_it_goes_on_from_its_state_bit_for_bit(tmp_path) -> None:
    whole = toy_collector()
    policy = Wander(whole.env)
    whole.collect(policy, 17)
    state = through_disk(whole.state_dict(), tmp_path)
    resumed = toy_collector()
    resumed.load_state_dict(state)
    for steps in (5, 30):
        assert_same(*(arrays(c.collect(policy, steps)) for c in (whole, resumed)))
    ours, theirs = whole.episodes.drain(), resumed.episodes.drain()
    assert len(ours["return"]) > 3
    assert {k: v.tolist() for k, v in ours.items()} == {k: v.tolist() for k, v in theirs.items()}
    assert (whole.steps, whole.faults) == (resumed.steps, resumed.faults)


def test_a_state_does_not_change_when_the_collector_goes_on() -> None:
    collect = toy_collector()
    policy = Wander(collect.env)
    collect.collect(policy, 5)
    state = collect.state_dict()
    ahead = collect.collect(policy, 20)
    resumed = toy_collector()
    resumed.load_state_dict(state)
    assert_same(arrays(ahead), arrays(resumed.collect(policy, 20)))
    ours, theirs = collect.episodes.drain(), resumed.episodes.drain()
    assert {k: v.tolist() for k, v in ours.items()} == {k: v.tolist() for k, v in theirs.items()}


def test_a_state_from_before_the_first_step(tmp_path) -> None:
    resumed = toy_collector()
    resumed.load_state_dict(through_disk(toy_collector().state_dict(), tmp_path))
    policy = Wander(resumed.env)
    assert resumed.collect(policy, 3).is_first[0].all()


class Learns(Asks):
    """A model with a state of its own."""

    level = 0.0

    def state_dict(self):
        return {"level": self.level}

    def load_state_dict(self, state):
        self.level = state["level"]


def test_an_env_without_an_exact_state_starts_its_episodes_anew(tmp_path) -> None:
    def fresh() -> Collector:
        env = Clockwork()
        env.exact_resume = False
        return Collector(env, Rewards({"a": Channel("a", Learns("reward"))}, 3, 0.9))

    first = fresh()
    first.collect(Counts(), 4)
    first.rewards.channels["a"].model.level = 0.25
    second = fresh()
    second.load_state_dict(through_disk(first.state_dict(), tmp_path))
    traj = second.collect(Counts(), 2)
    assert traj.is_first[0].all()
    assert traj.step_id.min() == 12  # but steps are counted on
    assert second.rewards.channels["a"].model.level == 0.25  # and what was learned stays
    assert second.rewards.counts["scored"] == 12 + 6


class Painted(Clockwork):
    """Its images show the step of the episode that a world is in; it keeps what it rendered."""

    def __init__(self) -> None:
        super().__init__()
        self.rendered = 0

    def render(self, camera, ids, height, width):
        self.rendered += len(ids)
        image = np.zeros((len(ids), height, width, 3), np.uint8)
        image[:] = self.place[ids, 2][:, None, None, None]
        return image


class Sees(Asks):
    """Pays what the image of the state shows; of a state that it is not asked about, nothing."""

    def __init__(self) -> None:
        self.needs = Needs(cameras=("eye",), image_size=4)
        self.shown: list[float] = []

    def begin(self, carry, mask, moment):
        assert moment.images["eye"].shape == (mask.sum(), 4, 4, 3)
        self.shown += moment.images["eye"][:, 0, 0, 0].tolist()
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry, traj):
        frames = traj.frames["eye"]
        seen = np.where(frames.index >= 0, frames.image[frames.index][..., 0, 0, 0], 0)
        assert (frames.index[traj.due] >= 0).all()
        return carry, Score(seen.astype(np.float32), np.full(traj.shape, SCORED, np.int8))


@pytest.mark.parametrize("every", [1, 2, 4])
def test_images_are_rendered_when_they_are_due_and_show_the_successor(every: int) -> None:
    env, model = Painted(), Sees()
    rewards = Rewards({"sees": Channel("sees", model, every=every)}, env.num_worlds, 0.9)
    traj = Collector(env, rewards).collect(Counts(), 11)
    before, _ = places(11)
    successor = before[..., 2] + 1
    asked = (successor % every == 0) | (successor == LENGTHS)
    assert (traj.reward == np.where(asked, successor, 0)).all()
    assert set(model.shown) == {0.0}  # every episode's first state
    starts = int((before[..., 2] == 0).sum()) + env.num_worlds  # and of the first ones twice
    assert env.rendered == asked.sum() + starts


def test_models_that_share_a_camera_agree_on_its_size() -> None:
    small, large = Sees(), Sees()
    large.needs = Needs(cameras=("eye",), image_size=8)
    with pytest.raises(UserError, match="one image size"):
        Rewards({"a": Channel("a", small), "b": Channel("b", large)}, 3, 0.9)


class Ends:
    """A policy that remembers how often it was asked in each world."""

    def carry(self, num_worlds):
        return {"asked": np.zeros(num_worlds, np.int64), "world": np.arange(num_worlds)}

    def act(self, carry, obs, greedy=False):
        self.extras = {"asked": carry["asked"].copy(), "world": carry["world"].copy()}
        action = np.zeros((len(carry["asked"]), 1), np.float32)
        return {**carry, "asked": carry["asked"] + 1}, action


def test_whole_episodes_begin_together_and_rest_when_they_are_over() -> None:
    whole = collector()
    traj = whole.collect(Ends(), None)
    assert traj.shape == (5, 3)
    np.testing.assert_array_equal(traj.valid.sum(0), LENGTHS)
    assert traj.is_first[0].all() and not traj.is_first[1:].any()
    np.testing.assert_array_equal(traj.terminated | traj.truncated, ends(traj.valid))
    np.testing.assert_array_equal(traj.reward[~traj.valid], 0.0)
    np.testing.assert_array_equal(traj.extras["asked"][traj.valid], np.nonzero(traj.valid)[0])
    np.testing.assert_array_equal(traj.extras["world"][traj.valid], np.nonzero(traj.valid)[1])
    assert whole.steps == sum(LENGTHS)
    figures = whole.episodes.drain()
    assert sorted(figures["length"]) == sorted(LENGTHS)
    again = whole.collect(Ends(), None)
    assert (again.obs["state"][0, :, 1] == traj.obs["state"][0, :, 1] + 1).all()


def ends(valid: np.ndarray) -> np.ndarray:
    """The last valid row of each column."""
    following = np.concatenate([valid[1:], np.zeros_like(valid[:1])])
    return valid & ~following


def test_a_fault_ends_an_episode_and_is_not_learned_from() -> None:
    env = Clockwork(faulty=((2, 0, 2),))
    traj = collector(env, max_fault_rate=0.5).collect(Ends(), None)
    assert traj.valid[:, 2].tolist() == [True, False, False] and traj.truncated[1, 2]
