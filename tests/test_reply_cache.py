"""Replies are found again by what was asked, and a damaged one is not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embodied.reply_cache import ReplyCache, key_of


def test_keys_follow_what_is_asked() -> None:
    asked = {"model": "m", "messages": [["user", "hé"]], "sample": 0}
    assert key_of(asked) == key_of(json.loads(json.dumps(asked)))
    assert key_of(asked) != key_of({**asked, "sample": 1})
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    cache, key = ReplyCache(tmp_path / "replies"), key_of("question")
    assert cache.get(key) is None
    cache.put(key, "question", {"text": "ünïcode\n", "origin": "model"})
    assert ReplyCache(tmp_path / "replies").get(key) == {"text": "ünïcode\n", "origin": "model"}
    assert "ünïcode" in next((tmp_path / "replies").rglob("*.json")).read_text(encoding="utf-8")
    assert not [*(tmp_path / "replies").rglob("*.tmp")]


@pytest.mark.parametrize("damage", ["cut", "changed", "not_json", "other"])
def test_a_damaged_reply_is_counted_and_not_used(damage: str, tmp_path: Path) -> None:
    cache, key = ReplyCache(tmp_path), key_of("question")
    cache.put(key, "question", {"text": "four", "origin": "model"})
    (file,) = tmp_path.rglob("*.json")
    text = file.read_text()
    file.write_text(
        {
            "cut": text[:20],
            "changed": text.replace("four", "five"),
            "not_json": "\0",
            "other": "[]",
        }[damage]
    )
    assert cache.get(key) is None and cache.damaged == 1
    cache.put(key, "question", {"text": "four", "origin": "model"})
    assert cache.get(key) == {"text": "four", "origin": "model"}
