"""Replies of models by what they were asked: never paid for twice, and played back without a model.

    FOLDER/ab/abcdef....json    {"asked": ..., "reply": ..., "sha256": of both}

A file is written whole or not at all; one that is damaged is counted and not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

FORMAT = 1
"""Of what is asked: raise it when the same question would be put to a model differently."""


def key_of(asked: Any) -> str:
    """The name of a question: equal for equal JSON."""
    return _digest({"format": FORMAT, "asked": asked})


class ReplyCache:
    """The replies in `folder`, which is made when the first one is kept."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.damaged = Path(folder), 0

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply to a question, or None."""
        try:
            row = json.loads(self._path(key).read_bytes())
            if row["sha256"] != _digest([row["asked"], row["reply"]]):
                raise ValueError
            return dict(row["reply"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            self.damaged += 1
            return None

    def put(self, key: str, asked: Any, reply: dict[str, Any]) -> None:
        """Keep a reply; on the disk when this returns."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"asked": asked, "reply": reply, "sha256": _digest([asked, reply])}
        temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            with temporary.open("x", encoding="utf-8") as file:
                json.dump(row, file, indent=1, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
