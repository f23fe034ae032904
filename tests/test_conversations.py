"""Episodes of text on disk, and those in which the gold actions are said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embodied.conversations import Conversation, experts, read_conversations, write_conversations
from embodied.errors import UserError
from tests.talks import doors


def test_experts_succeed_and_differ() -> None:
    told = experts(doors(4, 1), range(6))
    assert len(told) == 6 and all(one.success for one in told)
    assert all(sum(one.rewards) == 1.0 and len(one.seen) == len(one.said) + 1 for one in told)
    assert len({one.task for one in told}) == 6


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    told = experts(doors(2, 1), range(3))
    write_conversations(tmp_path / "demos.jsonl", told)
    assert read_conversations(tmp_path / "demos.jsonl") == told
    line = json.loads((tmp_path / "demos.jsonl").read_text().splitlines()[0])
    assert [m["role"] for m in line["messages"]] == ["user", "assistant"] * 2 + ["user"]
    with pytest.raises(UserError, match="exists: choose another"):
        write_conversations(tmp_path / "demos.jsonl", told)


def test_any_character_is_kept(tmp_path: Path) -> None:
    told = [Conversation(["a\u2028b", "c\x85"], ["d\u2029\u65e5"])]
    write_conversations(tmp_path / "odd.jsonl", told)
    assert read_conversations(tmp_path / "odd.jsonl") == told


def test_other_people_s_conversations_are_read(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": "Be brief."},
                        {"role": "user", "content": "hi"},
                        {"role": "assistant", "content": "ho"}]}  # fmt: skip
    (tmp_path / "theirs.jsonl").write_text(json.dumps(row) + "\n")
    assert read_conversations(tmp_path / "theirs.jsonl") == [Conversation(["hi", ""], ["ho"])]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no conversation"),
        ("{", "line 1: no conversation"),
        ('{"messages": [{"role": "assistant", "content": "ho"}]}\n', "take turns"),
        ('{"messages": [{"role": "user", "content": 3}]}\n', "contents are texts"),
    ],
)
def test_what_is_no_conversation_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(UserError, match=says):
        read_conversations(tmp_path / "bad.jsonl")


def test_an_expert_that_has_no_time_is_refused() -> None:
    with pytest.raises(UserError, match="do not succeed within 1"):
        experts(doors(2, 1, max_steps=1), range(2))
