"""The library: what is asked follows from the documents, and what is read and cited is known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from embodied.envs.text import library
from embodied.envs.text.facts import OUTER, make_inquiry
from embodied.envs.text.library import Library, find, open_index, read_answer
from hypothesis import given
from hypothesis import strategies as st

from embodied.errors import UserError

SEEDS = 300
SHELF = {
    "The life of Ada Fisk": "Ada Fisk was born in Torvik. Her teacher was Alda Fiske.",
    "Alda Fiske, a portrait": "Alda Fiske was born in Elmar.",
    "A walk through Torvik": "Torvik has steep roofs. The river Orle runs through Torvik.",
    "Elmar": "Elmar has a market square. Ada Fisk never saw it.",
}


def test_a_search_ranks_titles_and_rare_words_first_and_only_what_fits() -> None:
    db = open_index(SHELF)
    assert find(db, "torvik", 9) == ["A walk through Torvik", "The life of Ada Fisk"]
    assert find(db, "Ada FISK!", 9) == ["The life of Ada Fisk", "Elmar"]
    assert find(db, "teacher of Ada Fisk", 1) == ["The life of Ada Fisk"]
    assert find(db, "market", 9) == ["Elmar"]
    for odd in ("", "zebra", '"', "*", "\0", "日本", "title:", "near(", "' OR 1=1 --", "a" * 5000):
        assert find(db, odd, 9) == []
    assert len(find(db, "torvik elmar fisk fiske", 9)) == 4
    assert len(find(db, " ".join(["w"] * 50000), 9)) == 0
    db.close()


@pytest.mark.parametrize(
    ("said", "answer", "cited"),
    [
        ("Torvik", "torvik", []),
        ("  The river Orle. ", "river orle", []),
        ("Torvik [cites: The life of Ada Fisk]", "torvik", ["The life of Ada Fisk"]),
        ("1803 [CITE: A; B, a portrait ;; ]", "1803", ["A", "B, a portrait"]),
        ("[cites: A] Torvik [cites: B]", "torvik", ["A", "B"]),
        ("Torvik [cites: ]", "torvik", []),
        ("Torvik [cites: A", "torvik cites a", []),
        ("[cites: A]", "", ["A"]),
        ("日本", "", []),
    ],
)
def test_an_answer_and_its_citations_are_read(said: str, answer: str, cited: list[str]) -> None:
    assert read_answer(said) == (answer, cited)


def test_gold_actions_solve_every_task_and_the_chain_is_in_its_documents() -> None:
    world, last = Library(), Counter()
    for seed in range(SEEDS):
        first = world.reset(seed)
        plan = world.gold()
        turns = [world.step(action) for action in plan]
        assert all(turn.valid for turn in turns), seed
        assert [turn.success for turn in turns] == [False] * (len(turns) - 1) + [True]
        assert turns[-1].reached == turns[-1].subgoals == first.subgoals and len(plan) <= 9
        told = {name: json.loads(text) for name, text in turns[-1].told.items()}
        assert told["evidence"] == told["cited"] == told["read"]
        hops, shelf = told["rubrics"], world._inquiry.documents
        assert [hop["document"] for hop in hops] == told["evidence"]
        assert 2 <= len(hops) == len(set(told["evidence"])) <= 4
        for hop, following in zip(hops, [*hops[1:], None], strict=True):
            assert _names(shelf[hop["document"]], hop["entity"])
            assert _names(shelf[hop["document"]], hop["value"])
            assert following is None or following["entity"] == hop["value"]
        assert hops[-1]["value"] == told["answer"]
        assert not any(_names(first.text, hop["entity"]) for hop in hops[1:]), "they are hidden"
        begins = [text.split(". ")[0] for text in shelf.values()]
        assert not any(_names(begin, hop["value"]) and _names(begin, hop["entity"])
                       for hop in hops for begin in begins), "a listing tells no fact"  # fmt: skip
        last[hops[-1]["relation"]] += 1
    assert set(last) == set(OUTER)
    world.close()


def _names(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def test_a_task_is_told_by_its_number() -> None:
    inquiry = make_inquiry(0, 2, 2)
    assert inquiry.question == "Who founded the company that made the Orion lantern?"
    assert inquiry.answers == ("Ada Halden", "A Halden", "Halden Ada")
    assert [hop.relation for hop in inquiry.chain] == ["maker", "founder"]
    assert len({make_inquiry(seed, 2, 4).question for seed in range(100)}) > 90
    for hops in (2, 3, 4):
        assert all(len(make_inquiry(seed, hops, hops).chain) == hops for seed in range(30))


def test_reading_counts_and_being_listed_does_not() -> None:
    world = Library(2, 2)
    world.reset(0)
    (one, two) = [hop.document for hop in world._inquiry.chain]
    assert not world.step(f"open: {one}").valid, "nothing has listed it"
    listed = world.step(f"search: {one}")
    assert one in listed.text and listed.reached == 0
    read = world.step(f"I open it.\n  OPEN:  {one.upper()}!  \nThen more.")
    assert read.valid and read.reached == 1 and json.loads(read.told["read"]) == [one]
    assert world.step(f"open: {one}").reached == 1
    assert world.step("search: Dahlen Instruments").reached == 1
    assert world.step(f"open: {two}").reached == 2
    wrong = world.step(f"answer: Ada [cites: {two}; nowhere; {two.lower()}]")
    assert wrong.terminated and not wrong.success and wrong.reached == 2 and wrong.score == 0.0
    assert json.loads(wrong.told["cited"]) == [two, "nowhere"]
    world.close()


def test_a_right_answer_succeeds_however_it_was_found_and_said() -> None:
    world = Library(2, 2)
    for said in ("Ada Halden", "ada halden.", "Halden, Ada", " The  ADA Halden [cites: Elmar]"):
        world.reset(0)
        turn = world.step(f"answer: {said}")
        assert turn.success and turn.score == 1.0 and (turn.reached, turn.subgoals) == (1, 3)
    world.reset(0)
    assert not world.step("answer: Ada Halden or Bela Halden").success
    world.close()


def test_an_alias_means_one_person_only() -> None:
    shortened = 0
    for seed in range(200):
        inquiry = make_inquiry(seed, 2, 4)
        if inquiry.chain[-1].relation in ("teacher", "founder") and len(inquiry.answers) == 3:
            first, name = inquiry.answers[0].split()
            assert inquiry.answers[1] == f"{first[0]} {name}"
            titles = [title for title in inquiry.documents if name in title.split(",")[0].split()]
            people = [t.removeprefix("The life of ").split(",")[0].split() for t in titles]
            assert sum(p[0][0] == first[0] and p[-1] == name for p in people if len(p) == 2) == 1
            shortened += 1
    assert shortened > 10


ODD = ("", "search", "search:", "open:  ", "answer: ", "answer: 日本", "answer: [cites: Elmar]",
       "open: '; DROP TABLE library; --", "search: '; DROP --", 'search: " OR *', "\0", "a" * 5000,
       "search: \0\ud800", "open: \ud800", "[" * 60000, " \n" * 30000,
       "search:" * 9000)  # fmt: skip


@pytest.mark.parametrize("said", ODD)
def test_what_means_nothing_is_answered_so(said: str) -> None:
    world = Library()
    before = world.reset(1)
    turn = world.step(said)
    assert turn.text and not turn.valid and not turn.terminated and turn.told == before.told
    assert all(world.step(action).valid for action in world.gold())
    world.close()


@given(st.lists(st.text() | st.builds("{}: {}".format, st.sampled_from(("search", "open")),
                                      st.text()), max_size=9))  # fmt: skip
def test_no_text_harms_the_library(said: list[str]) -> None:
    world = Library()
    world.reset(2)
    for action in said:
        assert not world.step(action).terminated
    assert [world.step(action).success for action in world.gold()][-1]
    world.close()


def test_another_process_makes_the_same_task() -> None:
    code = "from embodied.envs.text.facts import make_inquiry as m; print(m(7, 2, 4))"
    for hashes in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hashes}
        said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert said.stdout == f"{make_inquiry(7, 2, 4)}\n", said.stderr


def test_settings_that_make_no_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"least_hops": 1}, {"most_hops": 5}, {"results": 0}):
        with pytest.raises(UserError, match="env"):
            Library(**wrong)
    with pytest.raises(UserError, match="more than env.most_hops=2"):
        Library(3, 2)
    connect = library.sqlite3.connect

    def lacking(*args: object, **kwargs: object) -> object:
        db = connect(*args, **kwargs)
        db.set_authorizer(lambda *_: library.sqlite3.SQLITE_DENY)
        return db

    monkeypatch.setattr(library.sqlite3, "connect", lacking)
    with pytest.raises(UserError, match="full-text search"):
        Library()
