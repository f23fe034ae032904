"""Statuses, shaping, clocks and several models at once, as they become rewards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.reward_model import Channel, Needs, due
from embodied.rewards import Rewards
from embodied.types import ABSTAINED, FAILED, SCORED, SILENT, Moment, Score, Trajectory
from tests.toys import Nearest, Nearness, chunks, episode_step, rollout, through_disk

GAMMA = 0.5


class Scripted(Nearness):
    """Says what the readouts "value" and "status" say; an observation is its own potential."""

    needs = Needs(readouts=frozenset({"value", "status"}))

    def __init__(self, kind: str = "potential", **declared) -> None:
        self.kind, self.value_range = kind, (-7.0, 9.0)
        self.__dict__.update(declared)

    def begin(self, carry, mask, moment):
        return carry, moment.obs["state"][:, 0]

    def score(self, carry, traj):
        status = traj.readouts.get("status", np.full(traj.shape, SCORED, np.int8))
        return carry, Score(traj.readouts["value"], status)


class Pays(Nearness):
    """A reward of as much as the observation says."""

    kind = "reward"

    def _value(self, obs):
        return obs["state"][..., 0]


def verdicts(*pairs: tuple[float, int], start: float = 0.0, ends: bool = False) -> Trajectory:
    """One world's steps with these values and statuses, terminated at the last if it `ends`."""
    value, status = np.array(pairs, np.float32).T[:, :, None]
    still = np.zeros(value.shape, bool)
    last = still.copy()
    last[-1] = ends
    begin = np.full((*value.shape, 1), start)
    return rollout(value[..., None], begin, last, still, value=value, status=status.astype(np.int8))


def rewards_of(gamma: float = GAMMA, worlds: int = 1, **channels: Channel) -> Rewards:
    return Rewards(channels, worlds, gamma)


def label(rewards: Rewards, traj: Trajectory, *, length: int | None = None) -> Trajectory:
    """Label a trajectory from its episodes' start, in chunks of `length` steps."""
    rewards.begin(Moment({key: value[0] for key, value in traj.obs.items()}))
    parts = chunks(traj, length) if length else [traj]
    steps = chunks_of(episode_step(traj), length or traj.shape[0])
    for part, step in zip(parts, steps, strict=True):
        rewards.label(part, step)
    traj.reward = np.concatenate([part.reward for part in parts])
    return traj


def chunks_of(rows: np.ndarray, length: int) -> list[np.ndarray]:
    return [rows[t : t + length] for t in range(0, len(rows), length)]


def column(traj: Trajectory) -> list[float]:
    return traj.reward[:, 0].tolist()


def test_what_is_due() -> None:
    # every 3rd step of an episode (its steps 2, 5, ...), and the one that ends it
    step, done = np.arange(8), np.array([0, 0, 0, 0, 1, 0, 0, 0], bool)
    assert np.flatnonzero(due(3, step, done)).tolist() == [2, 4, 5]
    assert due(1, step, done).all()


def test_statuses_of_a_reward() -> None:
    # scored 2; silent pays 0; abstained pays the lowest of the range; failed is not learned from
    traj = verdicts((2, SCORED), (5, SILENT), (5, ABSTAINED), (5, FAILED), (3, SCORED))
    label(rewards_of(a=Channel("a", Scripted("reward"))), traj)
    assert column(traj) == [2, 0, -7, 0, 3]
    assert traj.valid[:, 0].tolist() == [True, True, True, False, True]


def test_statuses_of_a_potential() -> None:
    # phi: 1 | 4, held 4 (silent), -7 (abstained), held -7 (failed, still valid), 3; gamma 1/2
    traj = verdicts((4, SCORED), (5, SILENT), (5, ABSTAINED), (5, FAILED), (3, SCORED), start=1)
    rewards = rewards_of(a=Channel("a", Scripted(), shaping="potential", threshold=8.0))
    label(rewards, traj)
    assert column(traj) == [2 - 1, 2 - 4, -3.5 - 4, -3.5 + 7, 1.5 + 7]
    assert traj.valid.all()
    assert rewards.counts == {"scored": 2, "silent": 1, "abstained": 1, "failed": 1}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_verdict_that_is_not_finite_is_a_failure(value: float) -> None:
    steps = (2, SCORED), (value, SCORED), (3, SCORED)
    traj = label(rewards_of(a=Channel("a", Scripted("reward"))), verdicts(*steps))
    assert column(traj) == [2, 0, 3]
    assert traj.valid[:, 0].tolist() == [True, False, True]
    potential = Channel("a", Scripted(), shaping="potential", threshold=8.0)
    traj = label(rewards_of(a=potential), verdicts(*steps))
    assert column(traj) == [1, 1 - 2, 1.5 - 2]  # it holds 2
    assert traj.valid.all()


def test_abstaining_without_a_lowest_value_is_a_failure() -> None:
    model = Scripted("reward", value_range=(-np.inf, np.inf))
    traj = label(rewards_of(a=Channel("a", model)), verdicts((2, SCORED), (5, ABSTAINED)))
    assert column(traj) == [2, 0]
    assert traj.valid[:, 0].tolist() == [True, False]


def test_a_first_value_that_is_not_finite_spoils_only_its_step() -> None:
    traj = verdicts((4, SCORED), (6, SCORED), start=np.nan)
    label(rewards_of(a=Channel("a", Scripted(), shaping="delta", clip=9)), traj)
    assert traj.valid[:, 0].tolist() == [False, True]
    assert column(traj) == [0, 2]


def test_nothing_is_paid_for_a_step_that_is_not_valid() -> None:
    traj = verdicts((2, SCORED), (3, SCORED))
    traj.valid[1] = False  # a fault
    assert column(label(rewards_of(a=Channel("a", Scripted("reward"))), traj)) == [2, 0]


def test_the_clock_counts_from_the_start_of_the_episode_and_asks_at_its_end() -> None:
    # every 2: steps 1, 3 and the last, 4, are judged; a delta of 0 between them
    traj = verdicts(*((v, SCORED) for v in (1, 2, 3, 4, 5)), ends=True)
    rewards = rewards_of(a=Channel("a", Scripted(), shaping="delta", every=2, clip=9))
    assert column(label(rewards, traj)) == [0, 2, 0, 2, 1]
    assert rewards.counts["silent"] == 2


def test_channels_are_kept_apart_and_weighted_into_one() -> None:
    traj = verdicts((2, SCORED), (4, SCORED))
    one = Channel("one", Scripted("reward"), weight=10.0)
    two = Channel("two", Scripted(), weight=-1.0, shaping="delta", clip=9)
    label(rewards_of(one=one, two=two), traj)
    assert {k: v[:, 0].tolist() for k, v in traj.reward_terms.items()} == {
        "one": [2, 4],
        "two": [2, 2],
    }
    assert column(traj) == [20 - 2, 40 - 2]


def test_readouts_of_all_models_are_asked_for() -> None:
    rewards = rewards_of(a=Channel("a", Scripted("reward")), b=Channel("b", Pays()))
    assert rewards.readouts == {"value", "status"}


@given(
    st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 9), st.floats(0.1, 1), st.booleans()
)
def test_a_potential_telescopes(
    seed: int, every: int, length: int, gamma: float, broken: bool
) -> None:
    """Over an episode sum gamma^t r_t = gamma^T phi_T - phi_0, with phi_T = 0 if it terminated."""
    rng = np.random.default_rng(seed)
    steps, worlds = 12, 3
    phi, start = rng.uniform(-7, 9, (2, steps, worlds))
    terminated, truncated = rng.random((2, steps, worlds)) < 0.15
    truncated &= ~terminated
    status = rng.choice([SCORED, SILENT, ABSTAINED, FAILED] if broken else [SCORED], phi.shape)
    starts = start[..., None]
    traj = rollout(phi[..., None], starts, terminated, truncated, value=phi, status=status)
    potential = Channel("a", Scripted(), shaping="potential", every=every, threshold=99.0)
    label(rewards_of(gamma, worlds, a=potential), traj, length=length)
    step, done = episode_step(traj), terminated | truncated
    for n in range(worlds):
        first = 0
        for t in range(steps):
            if traj.is_first[t, n]:
                first, held = t, start[t, n]
            if due(every, step[t, n], done[t, n]) and status[t, n] in (SCORED, ABSTAINED):
                held = phi[t, n] if status[t, n] == SCORED else -7.0
            discounts = gamma ** np.arange(t + 1 - first)
            total = (discounts * traj.reward[first : t + 1, n]).sum()
            end = 0.0 if terminated[t, n] else gamma ** len(discounts) * held
            assert total == pytest.approx(end - start[first, n], abs=1e-4)


def wandering(seed: int, steps: int = 13, worlds: int = 3) -> Trajectory:
    """Points and goals anywhere, with episodes that end at different times in each world."""
    rng = np.random.default_rng(seed)
    successor, start = rng.uniform(-1, 1, (2, steps, worlds, 4)).astype(np.float32)
    terminated, truncated = rng.random((2, steps, worlds)) < 0.2
    return rollout(successor, start, terminated, truncated & ~terminated)


@pytest.mark.parametrize("model", [Nearness, Nearest])
@pytest.mark.parametrize("shaping", ["potential", "delta", "held", "none"])
@pytest.mark.parametrize("every", [1, 3])
def test_chunks_are_paid_as_the_whole_is(model, shaping: str, every: int) -> None:
    def paid(seed: int, length: int) -> np.ndarray:
        near = Channel("near", model(), shaping=shaping, every=every, threshold=-0.5)
        return label(rewards_of(0.9, 3, near=near), wandering(seed), length=length).reward

    for seed in range(5):
        whole = paid(seed, 13)
        assert whole.any()
        for length in (1, 2, 5, 12):
            assert (paid(seed, length) == whole).all()


def test_a_carry_starts_anew_with_its_episode_alone() -> None:
    # two worlds on a line, goal 0; world 1 ends at step 0 and begins anew at 2, far from there
    positions, begins = [[3, 3], [5, 5], [1, 1]], [[4, 4], [0, 2], [0, 0]]
    successor, start = (np.stack([x, np.zeros((3, 2))], -1) for x in (positions, begins))
    ends = np.array([[False, True], [False, False], [False, False]])
    near = Channel("near", Nearest(), shaping="held")
    traj = label(rewards_of(worlds=2, near=near), rollout(successor, start, ends, ends & False))
    assert traj.reward.tolist() == [[-3, -3], [-3, -2], [-1, -1]]


def test_it_goes_on_from_its_state(tmp_path) -> None:
    def fresh() -> Rewards:
        near = Channel("near", Nearest(), shaping="potential", every=2, threshold=-0.5)
        pays = Channel("counts", Pays())  # a name like any other
        return rewards_of(0.9, 3, near=near, counts=pays)

    whole = label(fresh(), wandering(1))
    rewards, parts = fresh(), chunks(wandering(1), 6)
    rewards.begin(Moment({"state": parts[0].obs["state"][0]}))
    for part, step in zip(parts, chunks_of(episode_step(whole), 6), strict=True):
        rewards.label(part, step)
        state = through_disk(rewards.state_dict(), tmp_path)
        rewards = fresh()
        rewards.load_state_dict(state)
    assert (np.concatenate([part.reward for part in parts]) == whole.reward).all()
    assert sum(rewards.counts.values()) == 2 * 13 * 3


def test_a_state_before_the_first_step(tmp_path) -> None:
    rewards = rewards_of(a=Channel("a", Pays()))
    rewards.load_state_dict(through_disk(rewards.state_dict(), tmp_path))
    assert column(label(rewards, verdicts((2, SCORED)))) == [2]


def test_a_state_of_other_models() -> None:
    state = rewards_of(a=Channel("a", Pays())).state_dict()
    with pytest.raises(UserError, match="the checkpoint has no reward model 'b'"):
        rewards_of(b=Channel("b", Pays())).load_state_dict(state)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Pays(), {"shaping": "potentail"}, "shaping='potentail': one of none, potential, delta"),
        (Pays(), {"every": 0}, r"reward_model\.a\.every=0: give a number >= 1"),
        (Pays(), {"weight": float("nan")}, r"a\.weight=nan: give a number that is finite"),
        (Pays(), {"bonus": float("inf")}, r"a\.bonus=inf: give a number that is finite"),
        (Nearness(), {"shaping": "delta", "clip": -1.0}, r"a\.clip=-1\.0: give a number >= 0"),
        (Scripted("progress"), {}, "kind 'progress' is none of potential, delta, success"),
        (Pays(), {"shaping": "potential"}, "a model of kind 'reward' gives no potential"),
        (Scripted("delta"), {"shaping": "held"}, "a model of kind 'delta' gives no potential"),
        (Nearness(), {"shaping": "override"}, "shaping=override: give the threshold of a success"),
        (Nearness(), {}, "a potential needs shaping=potential, delta, held or override"),
        (Scripted(causal=False), {"shaping": "delta"}, "only a causal, step-wise model"),
        (Scripted(scope="episode"), {"shaping": "held"}, "only a causal, step-wise model"),
    ],
)
def test_a_channel_that_cannot_be(model, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Channel("a", model, **options)


@pytest.mark.parametrize(
    "channels",
    [
        {"a": Channel("a", Nearness(), shaping="potential")},
        {"a": Channel("a", Nearness(), shaping="potential", threshold=0.5, bonus=0.0)},
        {
            "a": Channel("a", Nearness(), shaping="potential"),
            "b": Channel("b", Pays(), weight=0.0),
        },
    ],
)
def test_a_potential_alone_is_refused(channels: dict[str, Channel]) -> None:
    with pytest.raises(UserError, match="potential shaping alone teaches nothing: add a base"):
        Rewards(channels, 1, GAMMA)


def test_a_potential_with_a_base_is_not() -> None:
    potential = Channel("a", Nearness(), shaping="potential")
    both = {"a": potential, "b": Channel("b", Pays())}
    assert Rewards(both, 1, GAMMA).channels == both
    own = Channel("a", Nearness(), shaping="potential", threshold=-0.1)
    assert Rewards({"a": own}, 1, GAMMA).channels["a"].gives_base


def test_no_reward_model_is_refused() -> None:
    with pytest.raises(UserError, match="no reward model: give at least one"):
        Rewards({}, 1, GAMMA)
