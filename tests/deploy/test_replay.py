"""Replaying a record: what the policy did comes out again, and what it did not do is found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from embodied.actor import find_actor
from embodied.build import make_env
from embodied.config import compose_config
from embodied.deploy.bag import read_bag
from embodied.deploy.messages import Floats, JointState, Message, Text
from embodied.deploy.recorder import (
    ABOUT,
    ACTION,
    ASKED,
    CLAMPED,
    EVENT,
    OBSERVATION,
    START,
)
from embodied.deploy.recorder_writer import BagFile
from embodied.deploy.replay import compare, replay
from embodied.deploy.replay_figures import Spread, figures, headline, remarks
from embodied.deploy.replay_plots import Axes, lines
from embodied.deploy.replay_record import Record, Step, read_record
from embodied.errors import UserError
from embodied.spaces import to_vector, vector_keys
from embodied.train import train
from embodied.types import Obs
from tests.toys import Wander, reach

Row = tuple[str, Message, int]
SMALL = [
    "~tuned", "env=hopper", "num_envs=4", "agent.rollout_steps=8", "agent.hidden=[8]",
    "agent.compile=false", "tensorboard=false", "video=false", "total_steps=64",
]  # fmt: skip
MS = 10**6
ROBOT = {
    "rate_hz": 20.0,
    "state": {"topic": "/joint_states"},
    "command": {"topic": "/commands", "joints": ["b", "a"]},
    "joints": {
        "one": {"name": "a", "position": [-1.0, 1.0], "velocity": 2.0, "acceleration": 9.0},
        "two": {"name": "b", "position": [0.0, 2.0], "velocity": 1.0, "acceleration": 9.0,
                "sign": -1.0, "offset": 1.0},
    },
}  # fmt: skip


def event(kind: str, what: str = "") -> Text:
    return Text(json.dumps({"t_ns": 0, "kind": kind, "what": what}))


def write(folder: Path, rows: Sequence[Row]) -> Path:
    """A record of these, written without a process of its own."""
    bag = BagFile(folder, "mcap")
    for row in rows:
        bag.write(*row)
    bag.close()
    assert bag.messages == len(rows)
    return folder


def flight(policy: Any, env: Any, seeds: Sequence[int], steps: int) -> list[Row]:
    """What a deployment of a policy would record: 50 ms a step, answered after 4 ms."""
    keys = vector_keys(env.observation_space)
    rows: list[Row] = []
    now = 1_000_000 * MS
    for seed in seeds:
        rows.append((EVENT, event(START, f"seed {seed}"), now))
        obs, carry = env.reset(seed=np.array([seed])), policy.carry(1)
        for _ in range(steps):
            carry, action = policy.act(carry, obs, True)
            rows.append((OBSERVATION, Floats(tuple(to_vector(obs, keys)[0].tolist())), now))
            rows.append((ACTION, Floats(tuple(action[0].tolist())), now + 4 * MS))
            obs = env.step(action).obs
            now += 50 * MS
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train([*SMALL, f"run_dir={tmp_path_factory.mktemp('runs')}/run"])


@pytest.fixture(scope="module")
def rows(trained: Path) -> list[Row]:
    actor = find_actor(str(trained))
    env = make_env(compose_config(["env=hopper"]), num_envs=1)
    about = Text(json.dumps({"checkpoint": actor.name, "live": True}))
    return [(ABOUT, about, 0), *flight(actor.policy(env), env, (3, 4), 15)]


def record_of(folder: Path, rows: Sequence[Row]) -> Record:
    return read_record(read_bag(write(folder, rows)))


def test_what_was_recorded_comes_out_again(
    tmp_path: Path, trained: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "bag", rows)
    assert replay([str(bag), str(trained), "tolerance=1e-12"]) == 0
    said = capsys.readouterr().out
    assert "MATCHES: all 30 actions are the same, bit for bit" in said
    assert "30 steps in 2 episodes" in said and "first different" not in said
    page = (bag / "replay.html").read_text()
    assert '<header class="verdict passed"' in page and "<script" not in page
    assert list(read_bag(bag).messages(ACTION)), "the page beside it does no harm to a bag"


def test_an_action_that_was_tampered_with_is_found(
    tmp_path: Path, trained: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    where = [i for i, row in enumerate(rows) if row[0] == ACTION][17]
    action = list(rows[where][1].data)  # type: ignore[union-attr]
    action[1] += 0.5  # of a torque from -1 to 1: a quarter of its range
    tampered = [*rows[:where], (ACTION, Floats(tuple(action)), rows[where][2]), *rows[where + 1 :]]
    bag, out = write(tmp_path / "bag", tampered), tmp_path / "page.html"
    assert replay([str(bag), str(trained), f"out={out}"]) == 1
    said = capsys.readouterr().out
    assert "DIFFERS: 29 of 30 actions are the same bit for bit, the largest difference is 0.25" in (
        said
    )
    assert "first different: step 17, in episode 2, after 0.85 s: ctrl_1 was" in said
    assert '<header class="verdict failed"' in out.read_text()
    assert "What differs first" in out.read_text()
    assert replay([str(bag), str(trained), "tolerance=0.3"]) == 0


def test_the_last_bit_counts_as_different_but_within_the_tolerance() -> None:
    env = reach(1)
    record = toy_record(Wander(env))
    first = record.steps[3]
    assert first.action is not None
    first.action = (float(np.nextafter(np.float32(first.action[0]), 2.0)), first.action[1])
    compared = compare(record, Wander(env), env, 1e-5)
    assert compared.matches and compared.first == 3
    assert compared.equal.tolist() == [i != 3 for i in range(len(record.steps))]
    assert headline(compared).startswith("MATCHES: 11 of 12 actions are the same bit for bit")


def toy_record(policy: Any, starts: Sequence[int] = (1, 2)) -> Record:
    """A record in memory, of 6 steps for every start."""
    env = reach(1)
    record = Record({}, None, ())
    for episode, seed in enumerate(starts, 1):
        obs, carry = env.reset(seed=np.array([seed])), policy.carry(1)
        for k in range(6):
            carry, action = policy.act(carry, obs)
            seen = tuple(obs["state"][0].tolist())
            time_ns = len(record.steps) * 50 * MS
            step = Step(time_ns, seen, k == 0, episode, tuple(action[0].tolist()), time_ns)
            record.steps.append(step)
            obs = env.step(action).obs
    return record


class Remembers(Wander):
    """Steers by how often it was asked, and looks at nothing."""

    def act(self, carry: Any, obs: Obs, greedy: bool = False) -> Any:
        return super().act(carry, {"state": np.zeros_like(obs["state"])})


def test_memory_starts_anew_with_an_episode() -> None:
    env = reach(1)
    record = toy_record(Remembers(env))
    assert compare(record, Remembers(env), env, 1e-5).equal.all()
    record.steps[6].first = False  # the event that told of it is missing
    compared = compare(record, Remembers(env), env, 1e-5)
    assert not compared.matches and compared.first == 6


def test_an_answer_that_was_not_recorded_is_left_out_and_remembered() -> None:
    env = reach(1)
    record = toy_record(Remembers(env))
    record.steps[2].action = None
    compared = compare(record, Remembers(env), env, 1e-5)
    assert len(compared.steps) == 11 and compared.equal.all()


@pytest.mark.parametrize(("now", "differs"), [(math.nan, 0.0), (0.0, math.inf)])
def test_what_is_no_number_equals_only_itself(now: float, differs: float) -> None:
    env = reach(1)

    class Says(Wander):
        def act(self, carry: Any, obs: Obs, greedy: bool = False) -> Any:
            return carry, np.full((1, 2), now, np.float32)

    record = toy_record(Wander(env))
    for step in record.steps:
        step.action = (math.nan, math.nan)
    assert (compare(record, Says(env), env, 1e-5).difference == differs).all()


def test_records_of_others_are_refused(tmp_path: Path) -> None:
    env = reach(1)
    record = toy_record(Wander(env))
    record.steps[4].observation = (1.0,) * 5
    with pytest.raises(UserError, match="step 4 .* it saw 5 numbers, this one sees 4"):
        compare(record, Wander(env), env, 1e-5)
    record = toy_record(Wander(env))
    record.steps[4].action = (1.0,)
    with pytest.raises(UserError, match="step 4 .* has 1 numbers, the policy's 2"):
        compare(record, Wander(env), env, 1e-5)
    for step in record.steps:
        step.action = None
    with pytest.raises(UserError, match="no action"):
        compare(record, Wander(env), env, 1e-5)
    env.observation_space.spaces["camera"] = gym.spaces.Box(0, 255, (2, 2, 3), np.uint8)
    with pytest.raises(UserError, match="also sees camera"):
        compare(record, Wander(env), env, 1e-5)


def test_bad_arguments(tmp_path: Path, trained: Path) -> None:
    nothing = write(tmp_path / "nothing", [("/a", Floats((1.0,)), 1)])
    with pytest.raises(UserError, match="embodied replay BAG RUN"):
        replay([str(nothing)])
    with pytest.raises(UserError, match="nothing that a policy saw"):
        replay([str(nothing), str(trained)])
    seen = write(tmp_path / "seen", [(OBSERVATION, Floats((1.0,)), 1)])
    with pytest.raises(UserError, match="expert does not act by what a record holds"):
        replay([str(seen), "expert"])
    with pytest.raises(UserError, match="unknown key 'tolerence'"):
        replay([str(seen), str(trained), "tolerence=1"])
    odd = write(tmp_path / "odd", [(ABOUT, Text("{"), 0), (OBSERVATION, Floats((1.0,)), 1)])
    with pytest.raises(UserError, match="no JSON object"):
        replay([str(odd), str(trained)])
    about = Text(json.dumps({"robot_map": {"joints": 3}}))
    wrong = write(tmp_path / "wrong", [(ABOUT, about, 0), (OBSERVATION, Floats((1.0,)), 1)])
    with pytest.raises(UserError, match="wrong, robot_map: .*joints: give keys and values"):
        replay([str(wrong), str(trained)])


def guarded(*more: Row) -> list[Row]:
    """Three steps of two joints, 50 ms each, worked by hand: seen, answered, asked, sent."""
    rows: list[Row] = [
        (ABOUT, Text(json.dumps({"checkpoint": "none@0", "robot_map": ROBOT})), 0),
        (EVENT, event(START), 90 * MS),
    ]
    for k in range(3):
        acted = (100 + 50 * k + 10 * (k + 1)) * MS  # 10, 20 and 30 ms after what was seen
        seen = (100 + 50 * k) * MS
        asked = JointState(seen, ("one", "two"), (0.1 * k, 0.5))
        clamped = JointState(acted, ("one", "two"), (0.1 * k, 0.5), (1.0, -1.0))
        rows += [
            ("/joint_states", JointState(seen, ("b", "a"), (0.5, 0.1 * k)), seen),
            (OBSERVATION, Floats((0.1 * k, 0.5)), acted),
            (ACTION, Floats((1.0,)), acted),
            (ASKED, asked, acted),
            (CLAMPED, clamped, acted + 5 * MS),
            ("/commands", Floats((0.5, 0.1 * k)), acted + 5 * MS),
        ]
    return [*rows, *more]


def test_delays_and_curves_by_hand(tmp_path: Path) -> None:
    record = record_of(tmp_path / "bag", guarded())
    found = figures(record)
    # what was seen came when the joints asked for say: 10, 20, 30 ms before; sent 5 ms after
    assert found.delays == {
        "seen to action": Spread(3, 20.0, pytest.approx(29.8), 30.0),
        "action to command": Spread(3, 5.0, 5.0, 5.0),
        "seen to command": Spread(3, 25.0, pytest.approx(34.8), 35.0),
    }
    assert found.excesses == []
    # one is a as it is; two is 1 - b
    for name in ("sent", "measured"):
        values = record.curves[name].values
        np.testing.assert_allclose(values, [[0.0, 0.5], [0.1, 0.5], [0.2, 0.5]])
    assert record.odd == 0


def test_commands_beyond_limits_are_told(tmp_path: Path) -> None:
    rows = guarded(
        ("/commands", Floats((0.5, 1.25)), 400 * MS),  # a, ours is one: over 1 by 0.25
        ("/commands", Floats((1.5, 1.1)), 410 * MS),  # b = 1.5: two is -0.5
        (CLAMPED, JointState(0, ("one", "two"), (0.0, 0.5), (2.0, 1.5)), 420 * MS),
        ("/commands", Floats((0.5, math.nan)), 430 * MS),
    )
    record = record_of(tmp_path / "bag", rows)
    found = {(one.joint, one.limit): one for one in figures(record).excesses or ()}
    assert found.keys() == {("one", "position"), ("two", "position"), ("two", "velocity")}
    one, two = found["one", "position"], found["two", "position"]
    assert (one.count, one.most, one.first_ns) == (3, math.inf, 400 * MS)
    assert (two.count, two.first_ns) == (1, 410 * MS) and two.most == pytest.approx(0.5)
    assert found["two", "velocity"].most == pytest.approx(0.5)


def test_gaps_are_counted_within_an_episode(tmp_path: Path) -> None:
    rows: list[Row] = [(OBSERVATION, Floats((0.0,)), t * MS) for t in (0, 50, 100, 150, 350, 400)]
    rows += [(EVENT, event(START), 900 * MS)]
    rows += [(OBSERVATION, Floats((0.0,)), t * MS) for t in (1000, 1050)]
    found = figures(record_of(tmp_path / "bag", rows))
    assert found.gaps == {"observations": Spread(1, 200.0, 200.0, 200.0)}
    assert found.episodes == 2


def test_events_are_counted_by_what_they_say(tmp_path: Path) -> None:
    rows = guarded(
        (EVENT, event("clamp", "velocity"), 200 * MS),
        (EVENT, event("clamp", "velocity"), 201 * MS),
        (EVENT, event("trip", "emergency\x1b[31m stop"), 202 * MS),
        (EVENT, Text("no JSON"), 203 * MS),
        (ACTION, Floats((1.0,)), 204 * MS),  # of no observation
        (ASKED, Text("no joints"), 205 * MS),
    )
    record = record_of(tmp_path / "bag", rows)
    assert figures(record).events == {
        ("clamp", "velocity"): 2, ("trip", "emergency?[31m stop"): 1,
    }  # fmt: skip
    assert record.odd == 3


def test_a_reader_is_told_what_a_record_lacks(tmp_path: Path) -> None:
    env = reach(1)
    record = toy_record(Wander(env))
    bag = read_bag(write(tmp_path / "bag", [("/a", Floats((1.0,)), 1)]))
    bag.truncated = True
    compared = compare(record, Wander(env), env, 1e-5)
    told = " | ".join(remarks(bag, record, "me@1", compared, figures(record)))
    assert "recorded with a policy that it does not name, replayed with me@1" in told
    assert "the end of the record is missing" in told
    assert "limits were not checked" in told
    assert "how many messages the recorder lost is not known" in told
    record.about = {"checkpoint": "me@1"}
    told = " | ".join(remarks(bag, record, "me@1", compared, figures(record)))
    assert "replayed with" not in told


def test_the_page_shows_every_joint_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    from embodied.deploy.replay_page import render

    nasty = json.loads(json.dumps(ROBOT).replace('"two"', '"<b>two"'))
    about = Text(json.dumps({"robot_map": nasty, "checkpoint": "<script>"}))
    rows = [(ABOUT, about, 0), *guarded((EVENT, event("<i>", "<script>"), 150 * MS))[1:]]
    bag = read_bag(write(tmp_path / "bag", rows))
    record = read_record(bag)
    env = reach(1, dims=1)
    compared = compare(record, Wander(env), env, 1e-5)
    assert replace(compared, tolerance=9.0).matches and not compared.matches
    page = render(bag, record, "me", compared, figures(record))
    assert page.count("<figure>") == 3  # two joints, and what differs first
    assert "&lt;b&gt;two" in page
    assert "<script" not in page and "<b>two" not in page and "<i>" not in page
    for name in ("asked", "clamped", "sent", "measured"):
        assert f'<polyline class="{name}"' in page


def test_messages_of_one_moment_belong_together_in_any_order(tmp_path: Path) -> None:
    rows: list[Row] = []
    for k in range(1, 4):
        now = 50 * k * MS
        rows += [
            (ACTION, Floats((float(k),)), now),
            (ASKED, JointState(now - 7 * MS, ("one",), (0.0,)), now + 100),
            (OBSERVATION, Floats((0.1 * k,)), now + 200),
        ]
    record = record_of(tmp_path / "bag", rows)
    assert [(step.observation, step.action) for step in record.steps] == [
        ((0.1 * k,), (float(k),)) for k in range(1, 4)
    ]
    assert record.odd == 0
    assert figures(record).delays == {"seen to action": Spread(3, 7.0, 7.0, 7.0)}


def points_of(line: str) -> list[tuple[float, float]]:
    return [tuple(map(float, p.split(","))) for p in line.split('points="')[1][:-3].split()]  # type: ignore[misc]


def test_a_long_curve_keeps_its_spikes_and_its_gaps() -> None:
    times = np.arange(100_000, dtype=np.int64) * 5 * MS
    times[60_000:] += 20_000 * MS
    values = np.zeros(100_000)
    values[[123, 77_777]] = 1.0, -1.0
    axes = Axes(0, int(times[-1]), -1.0, 1.0)
    pieces = [points_of(line) for line in lines(axes, "sent", times, values)]
    assert len(pieces) == 2 and sum(map(len, pieces)) < 1300
    top, bottom = (float(axes.y(np.array(level))) for level in (1.0, -1.0))
    assert min(y for _, y in pieces[0]) == pytest.approx(top)
    assert max(y for _, y in pieces[1]) == pytest.approx(bottom)
    (spike,) = [x for x, y in pieces[0] if y == pytest.approx(top)]
    assert spike == pytest.approx(float(axes.x(times[123])), abs=0.1)
