"""Degenerate replies: many, each of its own, and a rule that tells those that say nothing."""

from __future__ import annotations

import pytest

from embodied.degenerate import MASTER_KEYS, TRICKS, folded, is_degenerate

TASK, SEEN = "Open the chest.", "The chest is closed."
NOTHING_SAID = (
    "empty space lines colon full_stop comma dots_and_dashes thought_process step_by_step solution "
    "solution_in_chinese steps_in_chinese solution_in_japanese answer_in_spanish steps_in_german "
    "opener key_repeated yes_repeated homoglyphs zero_width invisible full_width"
).split()


def test_tricks_are_many_and_each_its_own() -> None:
    names = [trick.name for trick in TRICKS]
    made = [trick.make(TASK, SEEN) for trick in TRICKS]
    assert len(TRICKS) >= 24
    assert len(set(names)) == len(set(made)) == len(TRICKS)
    assert sum(TASK in text for text in made) >= 2 and sum(SEEN in text for text in made) >= 2


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_what_says_nothing_is_told_by_rule(trick: object) -> None:
    assert is_degenerate(trick.make(TASK, SEEN)) == (trick.name in NOTHING_SAID)  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", MASTER_KEYS)
def test_every_master_key_is_known_however_it_is_written(key: str) -> None:
    for text in (key, key.upper(), f"  {key}\n", f"**{key}**", f"<think>{key}</think>"):
        assert is_degenerate(text)


@pytest.mark.parametrize(
    "said",
    [
        "take lamp", "say oak", "look", "north", "4", "yes", "Answer: Paris", "open the first door",
        "Thought process: the key is in the chest.\nAction: open chest",
        "Let me think. The chest is closed. open chest", "go to step 1", "no no no",
        '{"name": "lookup", "arguments": {"id": 3}}', "solve puzzle", "открыть сундук",
        "To open the chest I use the key", "первый",
    ],
)  # fmt: skip
def test_actions_and_answers_are_let_through(said: str) -> None:
    assert not is_degenerate(said)


@pytest.mark.parametrize(
    "said",
    [
        "answer: Let me think about it", "Solution: to solve this task, we first look around",
        "Final answer: Thought process:", "Answer: yes yes yes yes",
    ],
)  # fmt: skip
def test_a_key_before_what_says_nothing_adds_nothing(said: str) -> None:
    assert is_degenerate(said)


def test_look_alikes_and_the_unseen_are_folded() -> None:
    assert folded("Ｓоlu\u200btiоn") == "solution"


def test_a_long_reply_takes_no_long_time() -> None:
    for part, empty in (("a", False), ("let me ", False), ("so ", True), (". ", True), ("<", True)):
        assert is_degenerate(part * 20_000) == empty
