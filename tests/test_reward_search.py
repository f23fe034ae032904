"""The search for a reward: what is asked next, what is kept, in all three ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embodied.endpoint import Reply
from embodied.reward_check import Checked
from embodied.reward_folder import read_reward
from embodied.reward_search import Candidate, Search
from embodied.reward_trial import Trial
from tests.test_reward_author import about

Say = dict[str, Any]


class Checks:
    """Refuses what says so; the rest has an `order` by its length."""

    def check(self, reply: str) -> Checked:
        if "bad" in reply:
            return Checked(reply, "units", "it adds m with m/s")
        graph = {"inputs": {}, "nodes": [["as_float", [len(reply)], {}]], "terms": {reply: 0}}
        return Checked(reply + "\n", graph=graph, order=len(reply) / 100)


class Scripted:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, *rounds: list[str], listens: bool = True) -> None:
        self.rounds, self.listens = list(rounds), listens
        self.asked: list[tuple[Any, int, int]] = []

    def write(self, messages: Any, round: int, samples: int) -> list[Reply]:
        self.asked.append((messages, round, samples))
        return [Reply(text) for text in self.rounds.pop(0)] if self.rounds else []


def search(tmp_path: Path, author: Scripted, worth: dict[str, float], **more: Any) -> Search:
    def train_on(folder: Path, number: int) -> Trial:
        code = (folder / "reward.py").read_text().strip()
        return Trial(worth[code], 100, (0.0, worth[code]), {"reach": [0.1, 0.9]}, f"does {code}")

    checks: Any = Checks()
    return Search(about(), "lift it", checks, author, train_on, tmp_path / "out", **more)


def last(author: Scripted, k: int = -1) -> str:
    return str(author.asked[k][0][-1][1])


def test_the_best_of_all_rounds_is_kept_and_goes_on(tmp_path: Path) -> None:
    author = Scripted(["a", "bb"], ["ccc", "d"], ["e", "f"])
    worth = {"a": 0.2, "bb": 0.6, "ccc": 0.1, "d": 0.3, "e": 0.9, "f": 0.0}
    found = search(tmp_path, author, worth, samples=2)
    best = found.run()
    assert best is not None and best.reply == "e" and best.round == 2
    assert [asked[1:] for asked in author.asked] == [(0, 2), (1, 2), (2, 2)]
    assert "lift it" in last(author, 0)
    for k in (1, 2):  # of bb, though the second round was worse
        assert author.asked[k][0][-2] == ("assistant", "```python\nbb\n```")
        assert "truly succeed: 0, 0.6" in last(author, k) and "does bb" in last(author, k)
        assert "reach: 0.1, 0.9" in last(author, k)
    file = read_reward(tmp_path / "out" / "reward")
    assert file.source == "e\n" and file.provenance["scores"]["success"] == 0.9
    assert file.provenance["origin"] == "model" and file.provenance["task"] == "lift it"
    rows = [json.loads(x) for x in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert [row["reply"] for row in rows] == ["a", "bb", "ccc", "d", "e", "f"]


def test_without_any_success_what_orders_others_best_goes_on(tmp_path: Path) -> None:
    author = Scripted(["a", "ccc", "bb"], ["dddd"])
    found = search(tmp_path, author, dict.fromkeys(["a", "bb", "ccc", "dddd"], 0.0), rounds=2)
    best = found.run()
    assert best is not None and best.reply == "dddd"
    assert author.asked[1][0][-2] == ("assistant", "```python\nccc\n```")


def test_what_is_refused_is_told_so_once(tmp_path: Path) -> None:
    author = Scripted(["bad one", "a"], ["good"])
    found = search(tmp_path, author, {"a": 0.1, "good": 0.5}, rounds=1)
    best = found.run()
    assert best is not None and best.reply == "good"
    assert "refused before any training (units): it adds m with m/s" in last(author)
    assert found.counts == {"replies": 2, "refused": 0, "trained": 2}
    deaf = Scripted(["bad one"], ["a"], listens=False)
    assert search(tmp_path / "b", deaf, {"a": 0.1}, rounds=2).run() is not None
    assert len(deaf.asked) == 2


def test_nothing_that_can_be_trained_on_is_nothing(tmp_path: Path) -> None:
    author = Scripted(["bad"], ["bad"], ["bad"], ["bad"])
    found = search(tmp_path, author, {}, rounds=2)
    assert found.run() is None and found.counts["refused"] == 2
    assert not (tmp_path / "out" / "reward").exists()


def test_code_that_does_the_same_is_trained_on_once(tmp_path: Path) -> None:
    found = search(tmp_path, Scripted(["a", "a"], ["a"]), {"a": 0.5}, rounds=2)
    found.run()
    assert found.counts["trained"] == 1


def test_a_person_says_what_is_wrong(tmp_path: Path) -> None:
    told: list[Candidate] = []

    def listen(one: Candidate) -> str:
        told.append(one)
        return "it drops the cube" if len(told) == 1 else ""

    author = Scripted(["a"], ["bb"], ["never"])
    found = search(
        tmp_path, author, {"a": 0.9, "bb": 0.1}, mode="text2reward", rounds=3, listen=listen
    )
    found.run()
    assert [one.reply for one in told] == ["a", "bb"]  # the last, though it is worse
    assert "What is said about it: it drops the cube" in last(author)
    assert [asked[2] for asked in author.asked] == [1, 1]  # one at a time, and no third


def test_a_critic_reads_before_and_an_analyst_after(tmp_path: Path) -> None:
    author = Scripted(["a"], ["better"], ["the cube slips"], ["c"], ["bad"])
    found = search(tmp_path, author, {"better": 0.3, "c": 0.4}, mode="auto_mc", rounds=2, samples=1)
    best = found.run()
    assert best is not None and best.reply == "c"  # what the critic broke is not taken
    critic, analyst, following = (last(author, k) for k in (1, 2, 3))
    assert "a colleague wrote" in critic and "```python\na\n```" in critic
    assert "30 succeeded" in analyst and "does better" in analyst
    assert "What is said about it: the cube slips" in following


@pytest.mark.parametrize("mode", ["eureka", "auto_mc", "text2reward"])
def test_a_recording_is_never_asked_to_listen(tmp_path: Path, mode: str) -> None:
    author = Scripted(["bad", "a"], ["bb"], listens=False)
    best = search(tmp_path, author, {"a": 0.1, "bb": 0.2}, mode=mode, rounds=3).run()
    assert best is not None and best.reply == "bb" and len(author.asked) == 3
