"""Who writes rewards, and that nobody pretends to be a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.abstraction import Abstraction
from embodied.endpoint import Prompt, Reply
from embodied.errors import UserError
from embodied.reward_author import BlindAuthor, FileAuthor, ModelAuthor, RecordedAuthor, spoken
from embodied.sandbox_worker import load, world_of
from embodied.task import Quantity

ASKED = (("system", "rules"), ("user", "task"))


def about() -> Abstraction:
    quantities = (
        Quantity("hand.position", "m", "the hand"),
        Quantity("cube.position", "m", "the cube"),
        Quantity("goal.position", "m", "the goal, on the table"),
        Quantity("hand.opening", "m", "of the fingers"),
        Quantity("cube.velocity", "m/s", "of the cube", real=False),
    )
    shapes: dict[str, tuple[int, ...]] = {
        "hand.position": (3,), "cube.position": (3,), "goal.position": (2,),
        "hand.opening": (), "cube.velocity": (3,),
    }  # fmt: skip
    return Abstraction("toy", "do it", "", quantities, shapes, (("x", "m", -1, 1),), 0.1, 50)


def test_a_model_is_asked_for_answers_that_differ() -> None:
    class Fake:
        def ask(self, prompts: list[Prompt]) -> list[Reply]:
            self.prompts = prompts
            return [Reply(f"reply {p.sample}") for p in prompts]

    fake: Any = Fake()
    replies = ModelAuthor(fake).write(ASKED, 2, 3)
    assert [r.text for r in replies] == ["reply 6", "reply 7", "reply 8"]
    assert {r.origin for r in replies} == {"model"}
    assert all(p.messages == ASKED and p.temperature == 1.0 for p in fake.prompts)
    assert spoken(Reply(None, "deadline")) == "(deadline)"


def recording(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_recording_is_played_back_round_by_round(tmp_path: Path) -> None:
    rows = [{"round": k // 4, "reply": f"r{k}", "origin": "authored"} for k in range(8)]
    path = recording(tmp_path / "rounds.jsonl", rows)
    author = RecordedAuthor(tmp_path, seed=1)
    first, second = author.write(ASKED, 0, 2), author.write((), 1, 2)
    assert {r.text for r in first} == {"r0", "r1", "r2", "r3"}
    assert {r.text for r in second} == {"r4", "r5", "r6", "r7"}
    assert {r.origin for r in first} == {"authored"} and author.write((), 2, 2) == []
    again = RecordedAuthor(path, seed=1).write(ASKED, 0, 2)
    assert [r.text for r in again] == [r.text for r in first]
    orders = {
        tuple(r.text for r in RecordedAuthor(path, seed=k).write(ASKED, 0, 2)) for k in range(9)
    }
    assert len(orders) > 3  # so that a place says nothing


@pytest.mark.parametrize(
    "rows", [[{"round": 0, "reply": "x"}], [{"round": 0, "reply": "x", "origin": "oracle"}], []]
)
def test_a_recording_that_is_none_is_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="replay="):
        RecordedAuthor(recording(tmp_path / "rounds.jsonl", rows))
    with pytest.raises(UserError, match="No such file"):
        RecordedAuthor(tmp_path / "nowhere")


def test_a_file_is_one_reply(tmp_path: Path) -> None:
    (tmp_path / "reply.txt").write_text("code")
    author = FileAuthor(tmp_path / "reply.txt")
    assert author.write(ASKED, 0, 4) == [Reply("code", origin="authored")]
    assert author.write(ASKED, 1, 4) == []
    assert FileAuthor(tmp_path / "reply.txt", "model").reply.origin == "model"
    with pytest.raises(UserError, match="give model or authored"):
        FileAuthor(tmp_path / "reply.txt", "chance")
    with pytest.raises(UserError, match="No such file"):
        FileAuthor(tmp_path / "none.txt")


def test_chance_writes_code_that_runs_and_is_its_own() -> None:
    rng = np.random.default_rng(0)
    rows = {n: rng.normal(size=(4, *s)).astype(np.float32) for n, s in about().shapes.items()}
    replies = BlindAuthor(about(), seed=3).write(ASKED, 0, 40)
    for reply in replies:
        assert reply.origin == "chance" and reply.text is not None
        terms = load(reply.text)(world_of(rows), np.zeros((4, 1)), 0.1)
        assert 1 <= len(terms) <= 4
        assert all(t.shape == (4,) and np.isfinite(t).all() for t in terms.values())
    texts = [reply.text for reply in replies]
    assert len(set(texts)) > 35
    assert texts == [r.text for r in BlindAuthor(about(), seed=3).write((), 0, 40)]
    assert texts != [r.text for r in BlindAuthor(about(), seed=3).write((), 1, 40)]
    assert not any("hand.position - world.goal" in str(text) for text in texts)  # 3 and 2 numbers
