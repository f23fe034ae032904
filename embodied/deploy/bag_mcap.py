"""Reading the messages of an MCAP file, whoever wrote it, without trusting a length that it states.

A file whose end is missing is read as far as it goes. The format: https://mcap.dev/spec
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from embodied.deploy.bag_chunk import CHUNK_BYTES, HEAD, Broken, at, fits, unpacked

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 3, 4, 5, 6, 15
HEADER = struct.Struct("<HIQQ")
"""Of a message: channel, number, when it was recorded, when sent."""
WORDS_BYTES = 1_000_000
"""Of a record that defines a channel or a type."""
NAME_BYTES = 1000


class McapFile:
    """`rows` says what is in it, `reading` gets at it. Both raise `Broken`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, tuple[str, str]] = {}
        """Topic and type, as ROS 2 names it ("": not to be read), as far as `rows` has come."""
        self.truncated = False
        self._types: dict[int, str] = {0: ""}
        self._chunks: list[int] = []
        self._end = 0

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """(time in ns, channel, place) of every message, as they lie."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            if at(file, 0, len(MAGIC)) != MAGIC:
                raise Broken("is no MCAP file")
            whole = at(file, size - len(MAGIC), len(MAGIC)) == MAGIC and size > len(MAGIC)
            self._end = size - len(MAGIC) * whole
            self.truncated = not whole
            yield from self._rows_of_file(file, whole)

    def _rows_of_file(self, file: BinaryIO, whole: bool) -> Iterator[tuple[int, int, int]]:
        place = len(MAGIC)
        while place + HEAD.size <= self._end:
            kind, length = HEAD.unpack(at(file, place, HEAD.size))
            body, following = place + HEAD.size, place + HEAD.size + length
            if kind == DATA_END:
                return
            if following > self._end and whole:
                raise Broken(f"has a record of {length:,} bytes, more than are left")
            if kind == CHUNK:
                yield from self._rows_of_chunk(file, place)
            elif following > self._end:
                return
            elif kind == MESSAGE:
                yield *self._known(at(file, body, min(fits(length), HEADER.size))), ~place
            elif kind in (SCHEMA, CHANNEL):
                self._define(kind, at(file, body, fits(length, WORDS_BYTES)))
            place = following

    def _rows_of_chunk(self, file: BinaryIO, place: int) -> Iterator[tuple[int, int, int]]:
        """The rows of a chunk, also of the part that is there of one that was cut off."""
        base = len(self._chunks) * CHUNK_BYTES
        self._chunks.append(place)
        data, cut = unpacked(file, place, self._end)
        start = 0
        while start + HEAD.size <= len(data):
            kind, length = HEAD.unpack_from(data, start)
            body, following = start + HEAD.size, start + HEAD.size + length
            if following > len(data):
                break
            if kind == MESSAGE:
                yield *self._known(data[body : body + min(length, HEADER.size)]), base + start
            elif kind in (SCHEMA, CHANNEL):
                self._define(kind, bytes(data[body : body + fits(length, WORDS_BYTES)]))
            start = following
        if start < len(data) and not cut:
            raise Broken("has a chunk that ends inside a record")

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], bytes]]:
        """A function that gives the payload of the message at a place."""
        chunk, data = -1, bytearray()
        with self.path.open("rb") as file:

            def read(place: int) -> bytes:
                nonlocal chunk, data
                if place < 0:
                    _, length = HEAD.unpack(at(file, ~place, HEAD.size))
                    return at(file, ~place + HEAD.size, fits(length))[HEADER.size :]
                number, start = divmod(place, CHUNK_BYTES)
                if number != chunk:
                    chunk, data = -1, bytearray()  # let go of one before the next
                    data, _ = unpacked(file, self._chunks[number], self._end)
                    chunk = number
                _, length = HEAD.unpack_from(data, start)
                body = start + HEAD.size
                return bytes(data[body + HEADER.size : body + length])

            yield read

    def _known(self, head: bytes | bytearray) -> tuple[int, int]:
        """Time and channel of a message."""
        if len(head) < HEADER.size:
            raise Broken(f"has a message of {len(head)} bytes")
        channel, _, time, _ = HEADER.unpack(head)
        if channel not in self.channels:
            raise Broken(f"has a message of channel {channel}, which it does not define")
        if time >= 2**63:
            raise Broken("has a message of no time")
        return time, channel

    def _define(self, kind: int, record: bytes) -> None:
        """Note a type or a channel."""
        try:
            if kind == SCHEMA:
                (number,) = struct.unpack_from("<H", record)
                name, _ = _text(record, 2)
                new = self._types.setdefault(number, name) == name
            else:
                number, schema = struct.unpack_from("<HH", record)
                topic, rest = _text(record, 4)
                encoding, _ = _text(record, rest)
                known = topic, self._types[schema] if encoding == "cdr" else ""
                new = self.channels.setdefault(number, known) == known
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise Broken("has a definition that is none") from error
        if not new:
            raise Broken(f"defines {number} twice")


def _text(record: bytes, start: int) -> tuple[str, int]:
    """A text, and where it ends. Raises `struct.error`."""
    (length,) = struct.unpack_from("<I", record, start)
    end = start + 4 + length
    if length > NAME_BYTES or end > len(record):
        raise struct.error
    return record[start + 4 : end].decode(), end
