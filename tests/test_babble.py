"""Talks in which nothing is meant: how commands are worded, and what is named in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embodied.babble import Babbler, names, renamed, things, wordings
from embodied.cli import main
from embodied.conversations import Conversation, converse, experts
from embodied.errors import UserError
from tests.talks import doors

ROOM = "You see an old key on the table. There is a chest."


def test_how_commands_are_worded() -> None:
    told = [
        Conversation([ROOM, ".", "."], ["take old key from table", "go north"]),
        Conversation([ROOM, ".", "."], ["take key from chest", "open chest"]),
    ]
    assert wordings(told) == ["take {} from {}", "go north", "open {}"]


def test_what_was_named_before_is_what_is_named() -> None:
    policy = Babbler(["take {} from {}"], seed=3)
    told = converse(doors(4, 1), policy, range(4), "babble")
    assert all(said.startswith("take ") and " from " in said for one in told for said in one.said)
    first = Babbler(["open {}"])
    carry, said = first.act(first.carry(1), {"text": _text(ROOM)})
    assert said[0] in {"open old", "open old key", "open old key on", "open chest"}
    assert carry["turn"].tolist() == [1]


def _text(text: str):  # type: ignore[no-untyped-def]
    from embodied.text_space import texts

    return texts([text])


def test_equal_seeds_babble_alike_and_others_do_not() -> None:
    words = wordings(experts(doors(4, 1), range(4)))
    talks = [converse(doors(4, 1), Babbler(words, seed), range(4), "b") for seed in (0, 0, 1)]
    assert talks[0] == talks[1] != talks[2]


def test_it_is_collected_from_the_command_line(tmp_path: Path) -> None:
    world = ["env=library"]
    demos, out = tmp_path / "demos.jsonl", tmp_path / "babble.jsonl"
    assert main(["collect", *world, "episodes=2", f"out={demos}"]) == 0
    given = ["collect", *world, "sources=babble", "episodes=3", f"out={out}"]
    assert main(given) == 2 and not out.exists()
    assert main([*given, f"like={demos}"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 and {row["source"] for row in rows} == {"babble"}


def test_nothing_to_word_commands_by_is_told() -> None:
    with pytest.raises(UserError, match="no command to word others by"):
        Babbler([])


def test_names_are_what_commands_name_and_no_words_between() -> None:
    one = Conversation([ROOM, "."], ["take old key from table", "go north"])
    assert names(one) == ["old key", "table"]
    one.valid = [False, True]  # the first could not be done
    assert names(one) == []


def test_what_worlds_name_again_and_again() -> None:
    told = [
        Conversation([text], []) for text in (ROOM, "The chest is shut, on the table.", "a key.")
    ]
    assert things(told) == ["chest", "table"]


def test_of_what_has_a_number_the_kind_is_renamed_wherever_it_is_told_of() -> None:
    seen = ["Put a mug on the shelf. You see a mug 1, a mug 2, and a shelf 1.", "You hold a mug 2."]
    one = Conversation(seen, ["take mug 2"])
    got = renamed(one, ["mug 2", "cup 1", "cup 7"], np.random.default_rng(0))
    assert got.said == ["take cup 2"] and got.seen == [text.replace("mug", "cup") for text in seen]


def test_other_names_are_the_same_throughout() -> None:
    one = Conversation([ROOM, "You take the old key."], ["take old key from table"])
    got = renamed(one, ["old key", "table", "lamp", "red box"], np.random.default_rng(0))
    assert "old key" not in got.seen[0] and "table" not in got.seen[0]
    thing = got.said[0].removeprefix("take ").split(" from ")
    assert sorted(thing) == ["lamp", "red box"] and f"You take the {thing[0]}." == got.seen[1]
    assert got.seen[0].endswith("There is a chest.")
    assert renamed(one, ["lamp"], np.random.default_rng(0)) == one  # too few to choose from


RACKS = "Look for Dahlen Instruments, then for Oru."


def test_names_without_articles_are_what_commands_repeat_save_for_their_first_word() -> None:
    one = Conversation([RACKS, "."], ["search: Dahlen Instruments", "look at Oru now"])
    assert names(one) == [] and wordings([one]) == ["look at Oru now", "search: Dahlen Instruments"]
    assert names(one, articles=False) == ["Dahlen Instruments", "Oru"]
    assert wordings([one], articles=False) == ["look at {} now", "search: {}"]
    got = renamed(one, ["Mbeki", "Sun Works"], np.random.default_rng(0), articles=False)
    new = [got.said[0].removeprefix("search: "), got.said[1].split(" at ")[1].removesuffix(" now")]
    assert sorted(new) == ["Mbeki", "Sun Works"]
    assert got.seen[0] == f"Look for {new[0]}, then for {new[1]}."


def test_anything_that_was_told_is_named_without_articles() -> None:
    policy = Babbler(["find {}"], articles=False)
    said = {policy.act(policy.carry(1), {"text": _text(RACKS)})[1][0] for _ in range(60)}
    assert said == {f"find {name}" for name in (
        "Look", "Dahlen", "Instruments", "Dahlen Instruments", "Oru"
    )}  # fmt: skip
