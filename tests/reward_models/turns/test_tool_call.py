"""Graded tool calls: ToolRL's figures by hand, what holds for any calls, and the real desk."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.tool_call import (
    Call,
    ToolCall,
    agreement,
    correctness,
    grade,
    name_overlap,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.types import ABSTAINED, SCORED, Trajectory
from tests.reward_models.turns.plays import by_hand, open_env, play, values


def call(name: str, /, **arguments: Any) -> Call:
    return {"name": name, "arguments": arguments}


GET, FIND = call("get", order=7), call("find", name="Ada", town="Torvik")
END = call("finish")
GOLD = [FIND, GET, END]  # S_max = 1 + (1 + 2) + (1 + 1) + 1 = 7


def test_names_overlap_as_multisets() -> None:
    assert name_overlap([], []) == 1.0 and name_overlap([GET], []) == name_overlap([], [GET]) == 0.0
    assert name_overlap([GET, GET, END], [GET, END]) == 2 / 3
    assert name_overlap([GET, GET], [GET, FIND, END]) == 1 / 4


def test_parameters_agree_by_hand() -> None:
    assert agreement(GOLD, GOLD) == (1 + 2) + (1 + 1) + 1
    assert agreement([call("find", name="Ada")], [FIND]) == 1 / 2 + 1
    assert agreement([call("find", name="Bo", town="Torvik", x=1)], [FIND]) == 2 / 3 + 1
    assert agreement([call("find", person="Ada")], [FIND]) == 0.0
    assert agreement([call("seek", name="Ada", town="Torvik")], [FIND]) == 0.0
    assert agreement([call("get", order=True)], [call("get", order=1)]) == 1.0  # true is not 1
    # each call is taken once, the one that fits best first: 1 + 1 and 1 + 0
    both = [call("get", order=8), GET]
    assert agreement(both, [GET, GET]) == 3.0 and agreement([GET], [GET, GET]) == 2.0


def test_correctness_by_hand() -> None:
    assert correctness(GOLD, GOLD) == correctness(GOLD[::-1], GOLD) == 3.0
    assert correctness([], GOLD) == -3.0 and correctness([call("x")], GOLD) == -3.0
    # names 1/3, parameters 1/2 + 1
    assert correctness([call("find", name="Ada")], GOLD) == pytest.approx(6 * (11 / 6) / 7 - 3)
    assert correctness([END], [END]) == 3.0 and correctness([], []) == 3.0
    # the right call and one too many: names 1/2, parameters 1, of 2
    assert correctness([END, GET], [END]) == pytest.approx(6 * 1.5 / 2 - 3)


KEYS = st.sampled_from("abc")
VALUE = st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from("xy"), st.none())
CALL = st.builds(
    lambda name, arguments: {"name": name, "arguments": arguments},
    st.sampled_from(("get", "find")),
    st.dictionaries(KEYS, VALUE, max_size=3),
)
CALLS = st.lists(CALL, max_size=5)


@settings(max_examples=200, deadline=None)
@given(CALLS, CALLS, st.randoms(use_true_random=False))
def test_it_is_within_3_whatever_the_order(calls: Any, gold: Any, chance: Any) -> None:
    value = correctness(calls, gold)
    assert -3.0 <= value <= 3.0
    shuffled = [chance.sample(some, len(some)) for some in (calls, gold)]
    assert correctness(*shuffled) == pytest.approx(value, abs=1e-12)
    assert correctness(shuffled[0], calls) == 3.0
    equal = sorted(map(json.dumps, calls)) == sorted(map(json.dumps, gold))
    same = [sorted(json.dumps(c, sort_keys=True) for c in some) for some in (calls, gold)]
    assert not equal or value == 3.0
    assert (value == 3.0) == (same[0] == same[1])


def episode(ends: str, calls: list[list[Call]], valid: list[int], gold: Any = None) -> Trajectory:
    gold = json.dumps(GOLD if gold is None else gold)
    return by_hand(
        [ends],
        world__valid=np.array([valid], bool).T,
        world__calls=[[json.dumps(made)] for made in calls],
        world__gold_calls=[[gold]] * len(ends),
    )


def test_an_episode_is_paid_at_its_end_by_hand() -> None:
    made = [[FIND], [FIND, GET], GOLD, [], [END], [END]]
    traj = episode("..T.C-", made, [1, 1, 1, 0, 1, 1])
    # names 1/3, parameters 1, of 7; not all turns were well-formed
    last = 6 * (4 / 3) / 7 - 3
    np.testing.assert_allclose(values(ToolCall(), traj)[:, 0], [0, 0, 4, 0, last, 0], rtol=1e-6)
    shared = values(ToolCall(format_share=True), traj)[:, 0]
    np.testing.assert_allclose(shared, [0, 0, 4, 0, last + 0.5, 0], rtol=1e-6)


def test_turn_by_turn_by_hand() -> None:
    traj = episode("...T", [[FIND], [FIND], [FIND, GET], GOLD], [1, 0, 1, 1])
    # S = 0, 1/3 + 3, the same, 2/3 + 5 and 7 of 7
    got = values(ToolCall(per_turn=True), traj)[:, 0]
    expected = np.array([10 / 3, 0, 7 / 3, 4 / 3]) * 6 / 7
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@st.composite
def talks(draw: Any) -> Trajectory:
    ends = "".join(draw(st.lists(st.sampled_from("...TC"), min_size=7, max_size=7))) + "C"
    calls: list[list[Call]] = []
    for t in range(8):
        before = calls[-1] if t and ends[t - 1] == "." else []
        calls.append(before + draw(st.lists(CALL, max_size=1)))
    valid = draw(st.lists(st.integers(0, 1), min_size=8, max_size=8))
    return episode(ends, calls, valid, draw(CALLS))


@settings(max_examples=60, deadline=None)
@given(talks(), st.integers(1, 7), st.booleans(), st.booleans())
def test_turns_add_up_to_the_whole_and_chunks_are_scored_alike(
    traj: Trajectory, length: int, per_turn: bool, format_share: bool
) -> None:
    whole = values(ToolCall(False, format_share), traj)[:, 0]
    turns = values(ToolCall(True, format_share), traj)[:, 0]
    none = correctness([], json.loads(traj.readouts["world.gold_calls"][0, 0]))
    total = 0.0
    for t, over in enumerate((traj.terminated | traj.truncated)[:, 0]):
        total += turns[t]
        if over:
            assert total == pytest.approx(whole[t] - none, abs=1e-5)
            total = 0.0
    model = ToolCall(per_turn, format_share)
    low, high = model.value_range
    np.testing.assert_array_equal(values(model, traj, length), values(model, traj))
    assert low <= values(model, traj).min() and values(model, traj).max() <= high


MALFORMED = ["", "{", "7", "{}", "[1]", '[{"name": "get"}]', '[{"name": 1, "arguments": {}}]',
             '[{"name": "get", "arguments": []}]', "[" * 50_000, "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("said", MALFORMED)
@pytest.mark.parametrize("name", ["world.calls", "world.gold_calls"])
def test_what_is_malformed_is_abstained_from(said: str, name: str) -> None:
    assert grade(said, "[]") is grade("[]", said) is None
    traj = episode(".T", [[END], [END]], [1, 1])
    traj.readouts[name][1, 0] = said
    status = ToolCall().score({}, traj)[1].status[:, 0]
    np.testing.assert_array_equal(status, [SCORED, ABSTAINED])
    score = ToolCall(per_turn=True).score({}, traj)[1]
    np.testing.assert_array_equal(score.status[:, 0], [SCORED, ABSTAINED])
    assert np.isfinite(score.value).all()


def test_calls_nested_to_any_depth_never_raise() -> None:
    for depth in (100, 900, *range(960, 1000), 5000):
        deep = '[{"name": "get", "arguments": {"a": ' + "[" * depth + "]" * depth + "}}]"
        assert grade(deep, deep) in ((3.0, -3.0), None)
    assert grade(deep, deep) is None  # beyond what a parser takes nothing can be said


def test_at_the_real_desk_the_gold_plan_gets_the_most() -> None:
    env = open_env("tool_use", 6)
    for options, most in (({}, 4.0), ({"per_turn": True}, 7.0), ({"format_share": True}, 4.0)):
        told = play(env, ToolCall(**options))
        np.testing.assert_allclose(told.reward.sum(0), most, rtol=1e-6)
        np.testing.assert_array_equal(told.reward[~told.valid], 0.0)
    told = play(env, ToolCall(), [["hello", json.dumps(END)]] * 6)
    assert (told.reward.sum(0) < 3.0).all()
    told = play(env, ToolCall(), [["hello"]] * 6)  # to the end of time
    np.testing.assert_array_equal(told.reward.sum(0), -3.0)
    env.close()
