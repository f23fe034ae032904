"""A reward model behind a server judges as at home; where the server breaks, steps fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from embodied.reward_models.remote import LOST, Remote

from embodied import remote as links
from embodied.errors import UserError
from embodied.reward_model import Channel, Needs, start
from embodied.rewards import Rewards, ask
from embodied.served import ServedReward
from embodied.server import Server
from embodied.server_limits import Limits
from embodied.trajectory_packets import pack, pack_moment
from embodied.types import FAILED, SCORED, Frames, Moment, Score, Trajectory
from tests.servers import Fake, Raw, Talk
from tests.toys import Nearest, Nearness, chunks, episode_step, rollout, through_disk

SPACE = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (4,), np.float32)})
QUICK = Limits(rate=1e6)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PAUSE_S", 0.001)
    monkeypatch.setattr("embodied.server.CLOSE_S", 0.05)


@contextmanager
def serving(model: Any) -> Iterator[Server]:
    with Server(ServedReward(model, SPACE, "toy", "0"), limits=QUICK) as server:
        yield server


class Look(Nearness):
    """How bright the image is, and how far a readout; it has terms, and wants images and text."""

    needs = Needs(frozenset({"distance"}), ("front",), 4, 0, frozenset({"distance"}))

    def begin(self, carry: Any, mask: Any, moment: Moment) -> Any:
        value = np.zeros(len(mask), np.float32)
        value[mask] = moment.images["front"].mean((1, 2, 3))
        assert moment.instructions in ((), ("",), ("go", "stop"))
        return carry, value

    def score(self, carry: Any, traj: Trajectory) -> Any:
        frames = traj.frames["front"]
        seen = frames.index >= 0
        value = np.zeros(traj.shape, np.float32)
        value[seen] = frames.image[frames.index[seen]].mean((1, 2, 3))
        far = traj.readouts["distance"].astype(np.float32)
        told = np.array([len(text) for text in traj.instructions], np.float32)
        status = np.where(seen, SCORED, FAILED).astype(np.int8)
        return carry, Score(value - far + told, status, {"far": far})


def trajectory(steps: int = 12) -> Trajectory:
    """Two worlds whose episodes end at different times, with images of some steps."""
    rng = np.random.default_rng(0)
    ends = np.zeros((steps, 2), bool)
    ends[4, 0] = ends[7, 1] = True
    begin, successor = rng.normal(size=(2, steps, 2, 4))
    traj = rollout(successor, begin, ends, 0 * ends, distance=rng.random((steps, 2)))
    index = np.where(rng.random((steps, 2)) < 0.7, np.arange(2 * steps).reshape(steps, 2), -1)
    first = np.where(traj.is_first, np.arange(2 * steps).reshape(steps, 2), -1)
    image = rng.integers(0, 255, (2 * steps, 4, 4, 3), np.uint8)
    traj.frames = {"front": Frames(image, index, first)}
    traj.instructions = ("go", "stop")
    return traj


def verdicts(model: Any, parts: list[Trajectory]) -> tuple[np.ndarray, ...]:
    """First values, values and statuses, as the core asks for them."""
    channel = Channel("m", model, threshold=0.0)
    Rewards({"m": channel}, 2, 0.9).begin(start(parts[0], 0))
    told = [ask(channel, part) for part in parts]
    return tuple(
        np.concatenate(rows)
        for rows in zip(*[(firsts, s.value, s.status) for firsts, s in told], strict=True)
    )


@pytest.mark.parametrize("model", [Nearness, Nearest, Look])
@pytest.mark.parametrize("length", [1, 5, 12])
def test_it_judges_as_it_would_here(model: Any, length: int) -> None:
    traj = trajectory()
    with serving(model()) as server:
        away = Remote(server.url, observation_space=SPACE)
        assert (away.kind, away.scope, away.causal) == ("potential", "step", True)
        assert (away.value_range, away.needs) == ((-4.0, 0.0), model.needs)
        assert not away.learned and not away.blind
        for ours, theirs in zip(
            verdicts(model(), [traj]), verdicts(away, chunks(traj, length)), strict=True
        ):
            assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
        assert not away.link.counts["bad_packet"]


def test_terms_come_along() -> None:
    traj = trajectory()
    with serving(Look()) as server:
        score = Remote(server.url).score({}, traj)[1]
    np.testing.assert_array_equal(score.terms["far"], traj.readouts["distance"].astype(np.float32))


@pytest.mark.parametrize("model", [Nearest, Look])
def test_what_is_too_large_for_a_packet_travels_in_parts(model: Any) -> None:
    traj = trajectory()
    with serving(model()) as server:
        away = Remote(server.url)
        away._most = 700
        whole = verdicts(model(), [traj])
        for ours, theirs in zip(whole, verdicts(away, [traj]), strict=True):
            assert ours.tobytes() == theirs.tobytes()
        assert away.link.counts["answers"] > 10


def test_it_goes_on_from_a_checkpoint_to_the_last_bit(tmp_path: Any) -> None:
    traj = trajectory()
    whole = verdicts(Nearest(), [traj])[1]
    with serving(Nearest()) as server:
        rewards = Rewards({"m": Channel("m", Remote(server.url), threshold=0.0)}, 2, 0.9)
        rewards.begin(start(traj, 0))
        ask(rewards.channels["m"], traj.slice(0, 6))
        saved = through_disk(rewards.state_dict(), tmp_path)
    with serving(Nearest()) as server:  # another server, by now
        again = Rewards({"m": Channel("m", Remote(server.url), threshold=0.0)}, 2, 0.9)
        again.load_state_dict(saved)
        assert (ask(again.channels["m"], traj.slice(6, 12))[1].value == whole[6:]).all()
    with Server(ServedReward(Nearest(), SPACE, "toy", "another")) as server:
        other = Rewards({"m": Channel("m", Remote(server.url), threshold=0.0)}, 2, 0.9)
        with pytest.raises(UserError, match="serves toy@another, but .* with toy@0"):
            other.load_state_dict(saved)


# --- what goes wrong


class Flaky(Nearest):
    """Fails at the calls that it is told to."""

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        self.calls, self.fails = -1, fails  # the server's own question is no call

    def _count(self) -> None:
        if self.calls in self.fails:
            self.calls += 1
            raise RuntimeError("out of order")
        self.calls += 1

    def begin(self, carry: Any, mask: Any, moment: Any) -> Any:
        self._count()
        return super().begin(carry, mask, moment)

    def score(self, carry: Any, traj: Any) -> Any:
        self._count()
        return super().score(carry, traj)


class FlakyStateless(Flaky):
    def begin(self, carry: Any, mask: Any, moment: Any) -> Any:
        self._count()
        return Nearness.begin(self, carry, mask, moment)

    def score(self, carry: Any, traj: Any) -> Any:
        self._count()
        return Nearness.score(self, carry, traj)


def test_a_memory_that_missed_a_step_fails_until_its_next_episode() -> None:
    """Calls: begin (twice), score 0-4, begin world 0, score 5-7, begin world 1, score 8-11."""
    traj = trajectory()
    firsts, whole, _ = verdicts(Nearest(), [traj])
    with serving(Flaky((3,))) as server:
        lost_first, value, status = verdicts(Remote(server.url), [traj])
    assert (status[5:, 0] == FAILED).all()
    assert (status[:5] == SCORED).all() and (status[:, 1] == SCORED).all()
    assert (value[status == SCORED] == whole[status == SCORED]).all()
    assert lost_first[5, 0] == -4.0 and lost_first[8, 1] == firsts[8, 1]
    with serving(Flaky((2,))) as server:  # the first score
        value, status = verdicts(Remote(server.url), [traj])[1:]
    scored = np.zeros((12, 2), bool)
    scored[5:, 0], scored[8:, 1] = True, True
    assert ((status == SCORED) == scored).all() and (value[scored] == whole[scored]).all()
    with serving(Flaky((1,))) as server:  # the first beginning
        status = verdicts(Remote(server.url), [traj])[2]
    assert ((status == SCORED) == scored).all()


def test_without_a_memory_only_what_has_no_answer_fails() -> None:
    """Calls: begin for all, then begin at rows 0, 5 and 8, then score."""
    traj = trajectory()
    with serving(FlakyStateless((2,))) as server:
        firsts, _, status = verdicts(Remote(server.url), [traj])
    assert np.isnan(firsts[5, 0]) and (status == SCORED).all()
    with serving(FlakyStateless((4,))) as server:
        firsts, _, status = verdicts(Remote(server.url), [traj])
    assert np.isfinite(firsts).all() and (status == FAILED).all()


@pytest.mark.parametrize("fails", [(), (0,), (2,), (4,)])
def test_a_failure_never_pays(fails: tuple[int, ...]) -> None:
    traj = trajectory()
    paid = []
    for given in ((), fails):
        with serving(FlakyStateless(given)) as server:
            channel = Channel("m", Remote(server.url), shaping="potential", threshold=9.0)
            rewards = Rewards({"m": channel}, 2, 0.9)
            rewards.begin(start(traj, 0))
            part = traj.slice(0, 12)
            part.reward_terms, part.valid = {}, part.valid.copy()
            rewards.label(part, episode_step(traj))
            assert np.isfinite(part.reward).all()
            paid.append(part)
    good, bad = paid
    if fails != (4,):  # there the last value is held
        assert (bad.reward[bad.valid] == good.reward[bad.valid]).all()
    assert bad.valid.sum() == {(): 24, (0,): 24, (2,): 23, (4,): 24}[fails]


def test_a_server_that_is_gone_fails_every_step_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traj = trajectory()
    with serving(Nearest()) as server:
        away = Remote(server.url, deadline_s=0.1)
        carry, _ = away.begin({}, np.ones(2, bool), start(traj, 0))
    carry, score = away.score(carry, traj)
    assert (score.status == FAILED).all() and carry[LOST].all()
    carry, first = away.begin(carry, np.ones(2, bool), start(traj, 0))
    assert carry[LOST].all() and (first == -4.0).all()
    before = away.link.counts.total()
    assert (away.score(carry, traj)[1].status == FAILED).all()
    assert away.link.counts.total() == before  # not asked, since nothing is known of them


def test_wrong_answers_fail_their_steps() -> None:
    traj = trajectory()
    with serving(Nearness()) as server:
        hello = server.served.hello
    shape = traj.shape
    good = {
        "carry": {}, "terms": {}, "value": np.zeros(shape, np.float32),
        "status": np.zeros(shape, np.int8),
    }  # fmt: skip
    wrong: list[dict[str, Any]] = [
        {"value": None},
        {"value": np.zeros(shape, np.int64)},
        {"value": np.zeros((12, 1), np.float32)},
        {"status": np.full(shape, 9, np.int8)},
        {"status": np.full(shape, -1, np.int8)},
        {"status": np.zeros(shape, np.float32)},
        {"terms": None},
        {"terms": {"far": np.zeros(3)}},
        {"terms": {"far": "near"}},
        {"carry": {"more": np.zeros(2)}},
        {"error": "failed"},
    ]

    def behave(talk: Talk, number: int) -> None:
        for parts in (*wrong, {}):
            talk.say({"id": talk.hear()["id"], **good, **parts})

    with Fake(hello, behave) as fake:
        away = Remote(fake.url, deadline_s=20.0)
        for parts in wrong:
            assert (away.score({}, traj)[1].status == FAILED).all(), parts
        assert (away.score({}, traj)[1].status == SCORED).all()


# --- what the server refuses


def test_requests_that_do_not_fit_are_refused_by_name() -> None:
    traj = trajectory()
    far = np.full((12, 2), 999)
    with serving(Look()) as server:
        away = Remote(server.url)
        good = {"op": "score", "id": 1, "carry": {}, **pack(traj, away.needs, False)}
        image = good["frames"]["front"]["image"]
        wrong: dict[str, dict[str, Any]] = {
            "no rows": {"terminated": None},
            "rows of another length": {"truncated": np.zeros((11, 2), bool)},
            "no steps": {name: np.zeros((0, 2), bool) for name in ("terminated", "truncated")},
            "an index beyond": {"final_index": far},
            "an index before": {"final_index": -far},
            "obs of other keys": {"obs": {"x": np.zeros((12, 2, 4), np.float32)}},
            "obs of another shape": {"obs": {"state": np.zeros((12, 2, 5), np.float32)}},
            "obs of another dtype": {"obs": {"state": np.zeros((12, 2, 4), np.int8)}},
            "last of another shape": {"last_obs": {"state": np.zeros((2, 5), np.float32)}},
            "no readouts": {"readouts": {}},
            "no frames": {"frames": {}},
            "frames of another kind": {"frames": {"front": {}}},
            "frames beyond": {"frames": {"front": {"image": image, "index": far, "first": far}}},
            "texts of fewer": {"instructions": {"texts": ["a"], "index": np.zeros(1, np.int64)}},
            "texts beyond": {"instructions": {"texts": ["a"], "index": np.array([0, 1])}},
            "texts of numbers": {"instructions": {"texts": [1], "index": np.zeros(2, np.int64)}},
            "due of another shape": {"due": np.zeros(3, bool)},
            "a carry that is none": {"carry": {"best": np.zeros(2)}},
            "an unknown op": {"op": "fit"},
        }
        with Raw(server.url) as raw:
            assert "value" in raw.ask(good)
            for name, parts in wrong.items():
                told = raw.ask({**good, **parts})
                assert told["error"] == "bad_packet" and told["why"], name
            begin = {
                "op": "begin", "id": 1, "mask": np.ones(2, bool),
                **pack_moment(start(traj, 0), away.needs, False),
            }  # fmt: skip
            assert "value" in raw.ask(begin)
            for name, parts in {
                "images of fewer": {"mask": np.array([True, False])},
                "no images": {"images": {}},
                "no mask": {"mask": None},
            }.items():
                assert raw.ask({**begin, **parts})["error"] == "bad_packet", name
        assert not server.counts["failed"]


def test_a_dataset_of_one_vector_is_taken() -> None:
    space = gym.spaces.Dict(
        {"a": gym.spaces.Box(-9, 9, (1,)), "b": gym.spaces.Box(-9, 9, (3,), np.float64)}
    )

    class Sum(Nearness):
        def _value(self, obs: Any) -> Any:
            return sum(np.asarray(part, np.float32).sum(-1) for part in obs.values())

    with Server(ServedReward(Sum(), space, "toy", "0"), limits=QUICK) as server:
        away = Remote(server.url, observation_space=space)
        traj = trajectory()
        assert (away.score({}, traj)[1].value == Sum().score({}, traj)[1].value).all()
        traj.obs = {"state": traj.obs["state"][..., :3]}
        assert (away.score({}, traj)[1].status == FAILED).all()


class Blind(Nearness):
    blind = True
    needs = Needs(frozenset({"distance"}))

    def begin(self, carry: Any, mask: Any, moment: Any) -> Any:
        assert not moment.obs or len(mask) == 1
        return {}, np.zeros(len(mask), np.float32)

    def score(self, carry: Any, traj: Any) -> Any:
        assert not traj.obs
        value = traj.readouts["distance"].astype(np.float32)
        return {}, Score(value, np.zeros(value.shape, np.int8))


def test_a_blind_model_is_shown_nothing() -> None:
    traj = trajectory()
    with serving(Blind()) as server:
        away = Remote(server.url)
        assert away.blind
        _, value, status = verdicts(away, [traj])
        assert (status == SCORED).all()
        assert (value == traj.readouts["distance"].astype(np.float32)).all()


def test_worlds_of_other_observations_are_refused() -> None:
    other = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (5,), np.float32)})
    with serving(Nearness()) as server:
        with pytest.raises(UserError, match=r"observation state: \[5\] float32 here, \[4\]"):
            Remote(server.url, observation_space=other)
    with pytest.raises(UserError, match="say where it is served"):
        Remote()


@pytest.mark.parametrize(
    "parts", [{"needs": None}, {"value_range": [0.0]}, {"carry": {"a": {}}}, {"most": {}}], ids=str
)
def test_a_greeting_that_says_nothing_is_the_users_to_fix(parts: dict[str, Any]) -> None:
    hello = {**ServedReward(Nearness(), SPACE, "toy", "0").hello, **parts}
    with Fake(hello, lambda talk, number: None) as fake:
        with pytest.raises(UserError, match="does not say what its model is"):
            Remote(fake.url)


@pytest.mark.parametrize("part", ["over", "learn"])
def test_what_needs_the_run_is_not_served(part: str) -> None:
    model = Nearness()
    setattr(model, part, ("env",))
    with pytest.raises(UserError, match="not served"):
        ServedReward(model, SPACE, "toy", "0")
