"""Reading the messages of a bag in SQLite, without running anything that is written in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from embodied.deploy.bag_chunk import CHUNK_BYTES, Broken

ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
TABLES = {"topics": {"id", "name", "type", "serialization_format"},
          "messages": {"id", "topic_id", "timestamp", "data"}}  # fmt: skip


class SqliteFile:
    """`rows` says what is in it, `reading` gets at it. Both raise `Broken`.

    A file whose writer was killed is put right first, as SQLite does from the journal beside it.
    """

    truncated = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, tuple[str, str]] = {}

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """(time in ns, topic's number, message's number) of every message, as they lie."""
        with self._connected() as file:
            for number, topic, kind, encoding in file.execute(
                "SELECT id, name, type, serialization_format FROM topics NOT INDEXED"
            ):
                if not all(isinstance(word, str) for word in (topic, kind, encoding)):
                    raise Broken("has a topic that is none")
                self.channels[number] = topic, kind if encoding == "cdr" else ""
            for row in file.execute("SELECT timestamp, topic_id, id FROM messages NOT INDEXED"):
                time, number, place = row
                if not all(type(part) is int for part in row) or time < 0:
                    raise Broken("has a message of no time or topic")
                if number not in self.channels:
                    raise Broken(f"has a message of topic {number}, which it does not define")
                yield time, number, place

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], bytes]]:
        """A function that gives the payload of a message, by its number."""
        with self._connected() as file:

            def read(place: int) -> bytes:
                row = file.execute("SELECT data FROM messages WHERE id = ?", [place]).fetchone()
                if row is None or type(row[0]) is not bytes:
                    raise Broken("has a message without content")
                return row[0]

            yield read

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The file, from which only plain tables can be read."""
        journal = self.path.with_name(f"{self.path.name}-journal")
        mode = "rw" if journal.exists() else "ro"
        try:
            with closing(
                sqlite3.connect(f"file:{quote(str(self.path))}?mode={mode}", uri=True)
            ) as file:
                file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CHUNK_BYTES)
                file.execute("PRAGMA trusted_schema = OFF")
                file.execute("PRAGMA cell_size_check = ON")
                self._check(file)
                file.set_authorizer(_only_reading)
                yield file
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise Broken(f"cannot be read: {error}") from error

    def _check(self, file: sqlite3.Connection) -> None:
        """That the two tables are tables, and have the columns that a bag has."""
        for table, columns in TABLES.items():
            query = "SELECT type, sql FROM sqlite_master WHERE name = ?"
            found = file.execute(query, [table]).fetchall()
            plain = [kind == "table" and str(sql).startswith("CREATE TABLE") for kind, sql in found]
            if plain != [True]:
                raise Broken("is no bag")
            there = {row[1] for row in file.execute(f"PRAGMA table_info({table})")}
            if not columns <= there:
                raise Broken(f"is no bag: {', '.join(sorted(columns - there))} is missing")


def _only_reading(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY
