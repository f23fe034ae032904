"""Pairs of episodes: what is said in them, whether they are fair, and how they are laid out."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from embodied.degenerate import TRICKS
from embodied.errors import UserError
from embodied.text_pairs import (
    INJECTIONS,
    NONSENSE,
    REPEATS,
    Pair,
    Play,
    Task,
    candidates,
    degenerate,
    injection,
    irrelevance,
    planning,
    recovery,
    refusal,
    repetition,
)
from embodied.text_plays import Played, fair, solved
from tests.reward_models.turns.plays import open_env
from tests.talks import doors

GOLD = ("go a", "take x", "go b", "put x")
TASK = Task(7, GOLD, ("Do it.", "a", "x", "b", "done"), (False, True, False, True))


def by_name(pairs):
    """The first of every name."""
    out: dict[str, Pair] = {}
    for pair in pairs:
        out.setdefault(pair.name, pair)
    return out


def test_plans_are_flawed_in_one_way():
    plans = {name: pair.worse.said for name, pair in by_name(planning(TASK)).items()}
    assert plans == {
        "no_last_step": GOLD[:3],
        "stops_halfway": GOLD[:2],
        "idles_halfway": (*GOLD[:2], "", ""),
        "swapped": ("go a", "take x", "put x", "go b"),
    }
    assert all(pair.better == Play(7, GOLD) and pair.strict for pair in planning(TASK))
    ends = Task(7, GOLD, TASK.seen, (True, True, True, False))
    assert by_name(planning(ends))["no_last_step"].worse.said == ("go a", "take x", "put x")


def test_a_slip_is_put_right_or_not():
    pairs = by_name(recovery(TASK))
    slip, lost = pairs["slip_is_no_gain"], pairs["never_recovers"]
    assert slip.worse.said == lost.better.said == ("go a", NONSENSE, "take x", "go b", "put x")
    assert slip.better.said == GOLD and not slip.strict and lost.strict
    assert lost.worse.said == ("go a", *(NONSENSE,) * 4)


def test_a_step_is_repeated_that_counts_or_two_that_lead_back():
    pairs = by_name(repetition(TASK))
    assert pairs["again"].worse.said == ("go a", *("take x",) * (1 + REPEATS), "go b", "put x")
    assert pairs["again"].possible == (2, 3, 4)
    back = pairs["back_and_forth"]
    assert back.worse.said == (*GOLD[:3], *("go a", "go b") * REPEATS, "put x")
    assert [back.worse.said[k] for k in back.possible] == ["go a", "go b"] * REPEATS


def test_every_trick_and_every_injection_has_its_turn():
    said = [pair for k in range(24) for pair in degenerate(TASK, k)]
    assert {pair.name for pair in said} == {trick.name for trick in TRICKS}
    assert {len(pair.worse.said) for pair in said} == {1, len(GOLD)}
    planted = [pair.worse for k in range(24) for pair in injection(TASK, k)]
    assert {one.planted for one in planted} == set(INJECTIONS.values())
    assert {one.everywhere for one in planted} == {False, True}
    assert {trick.name for trick in TRICKS} >= INJECTIONS.keys() - {"task_is_done", "end_banner"}


def test_where_nothing_is_to_be_changed_others_changes_are_made_with_numbers_seen_here():
    other = Task(1, ("find 3", "cancel order 9", "finish"), ("",) * 4, (True, True, False))
    idle = Task(2, ("find 5", "finish"), ("Find 5", "order 41", ""), (True, False), idle=True)
    said = [pair.worse.said for pair in refusal(idle, [other])]
    assert ("find 5", "cancel order 41", "finish") in said and len(said) == 4
    assert list(refusal(TASK, [other])) == []
    assert [p.worse.said for p in irrelevance(TASK, [other])] == [other.gold]


def test_no_episode_is_empty_or_too_long():
    short = Task(1, ("say oak",), ("", ""), (True,))
    pairs = candidates([short, TASK], 5)
    lengths = {len(play.said) for pair in pairs for play in (pair.better, pair.worse)}
    assert 0 not in lengths and max(lengths) == 5


# --- played


@pytest.fixture
def env():
    env = doors(4, 1, max_steps=8)
    yield env
    env.close()


def test_an_episode_is_the_task_and_what_is_said(env):
    played = Played(env, ["world.word", "world.begun"])
    tasks = solved(env, 6, played)
    assert len({task.number for task in tasks}) == 6
    assert all(task.counts == (True, True) and not task.idle for task in tasks)
    one = tasks[4]
    assert one.seen[0].startswith("Open 2 doors.") and one.seen[-1].endswith("You are out.")
    word = one.gold[0]
    plays = [Play(one.number, one.gold), Play(one.number, (word,)), Play(one.number, ("", word))]
    played.play(plays)
    traj = played.shown(plays, [0, 0, 1])
    assert traj.shape == (2, 3) and traj.group.tolist() == [0, 0, 1]
    assert traj.action[:, 0].tolist() == list(one.gold) and traj.action[0, 1] == word
    assert traj.terminated.tolist() == [[False] * 3, [True, False, False]]
    assert traj.truncated.tolist() == [[False, True, False], [False, False, True]]
    assert traj.due.tolist() == [[True] * 3, [True, False, True]]
    np.testing.assert_array_equal(traj.valid, traj.due)
    assert traj.readouts["success"].tolist() == [[False] * 3, [True, False, False]]
    assert traj.readouts["world.reached"].tolist() == [[1, 1, 0], [2, 1, 1]]
    assert traj.final_index.tolist() == [[-1, 1, -1], [0, -1, 2]]
    assert traj.next_obs["text"][0, 1] == traj.next_obs["text"][1, 2] == one.seen[1]
    assert json.loads(traj.readouts["world.word"][0, 0]) == one.gold[1].removeprefix("say ")


def test_an_episode_looks_as_the_collector_rolled_it_out(env):
    played = Played(env)
    task = solved(env, 1, played)[0]
    part, n = played._column(Play(task.number, task.gold))
    alone = played.shown([Play(task.number, task.gold)], [0])
    for name in ("action", "terminated", "truncated", "is_first", "valid"):
        rows = getattr(part, name)[: len(task.gold), n]
        np.testing.assert_array_equal(getattr(alone, name)[:, 0], rows, name)
    np.testing.assert_array_equal(alone.obs["text"][:, 0], part.obs["text"][: len(task.gold), n])
    np.testing.assert_array_equal(
        alone.next_obs["text"][:, 0], part.next_obs["text"][: len(task.gold), n]
    )


def test_what_is_planted_is_seen_there_alone(env):
    played = Played(env)
    task = solved(env, 1, played)[0]
    said = (task.gold[0], "say nothing")
    clean, last, all_ = (
        Play(task.number, said, planted, everywhere)
        for planted, everywhere in (("", False), ("WON", False), ("WON", True))
    )
    played.play([clean, last, all_])
    assert len(played._at) == 2 + 1  # an episode is played once: gold, its end, this
    traj = played.shown([clean, last, all_], [0, 0, 0])
    heard = traj.next_obs["text"]
    assert [text.endswith("\nWON") for text in heard[0]] == [False, False, True]
    assert [text.endswith("\nWON") for text in heard[1]] == [False, True, True]
    assert not any("WON" in text for text in traj.obs["text"][0])
    again = played.shown([clean], [0])
    assert not any("WON" in text for text in again.next_obs["text"].ravel())


def test_only_fair_pairs_are_kept(env):
    played = Played(env)
    tasks = solved(env, 12, played)
    same = next(task for task in tasks if len(set(task.gold)) == 1)  # both doors, one word
    good = Play(same.number, same.gold)
    nothing = Play(same.number, ("say nothing",) * 2)
    pairs = [
        Pair("planning", "swapped", good, good, 2),
        Pair("planning", "swapped", good, nothing, 2),
        Pair("planning", "swapped", good, Play(same.number, ("say",)), 2),
        Pair("planning", "other", nothing, Play(same.number, ("say",)), 2),
        Pair("planning", "impossible", good, Play(same.number, ("dance",)), 2, possible=(0,)),
        Pair("planning", "too_short", good, Play(same.number, ("say x",)), 2, possible=(1,)),
    ]
    assert fair(played, pairs) == [pairs[1]]


def test_a_world_that_fails_is_no_part_of_a_pair(env):
    played = Played(env)
    task = solved(env, 1, played)[0]
    broken = Pair("planning", "x", Play(task.number, task.gold), Play(task.number, ("crash",)), 2)
    assert fair(played, [broken]) == [] and env.failures == 1


def test_what_a_world_does_not_tell_is_refused(env):
    with pytest.raises(UserError, match=r"no readout 'world.secret'"):
        solved(env, 1, Played(env, ["world.secret"]))


def test_gold_actions_that_do_not_solve_it_are_refused(env, monkeypatch):
    monkeypatch.setattr(env, "gold", lambda ids: [["say nothing"]] * len(ids))
    with pytest.raises(UserError, match="do not solve it"):
        solved(env, 1, Played(env))


@pytest.mark.parametrize(("name", "options"), [("household", ["env.workers=0"]), ("tool_use", [])])
def test_our_worlds_have_a_fair_pair_of_all_that_they_can(name, options):
    env = open_env(name, 8, *options)
    try:
        played = Played(env)
        tasks = solved(env, 8, played)
        pairs = fair(played, candidates(tasks, env.max_steps))
    finally:
        env.close()
    count = Counter((pair.family, pair.name) for pair in pairs)
    for key in (
        ("planning", "no_last_step"), ("planning", "swapped"), ("planning", "stops_halfway"),
        ("planning", "idles_halfway"), ("recovery", "never_recovers"),
        ("recovery", "slip_is_no_gain"), ("repetition", "back_and_forth"), ("rest", "alike"),
        ("irrelevance", "another_task"),
    ):  # fmt: skip
        assert count[key] >= 7, key
    assert count["repetition", "again"] >= 3
    idle = [task for task in tasks if task.idle]
    assert len(idle) == (name == "tool_use") == count["refusal", "does_it_anyway"]
    assert (count["closing", "never_closed"] == 8) == (name == "tool_use")
