"""A chunk of an MCAP file: records in one piece, compressed or not, unpacked within a bound."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from embodied.errors import UserError

HEAD = struct.Struct("<BQ")
"""Of a record: its kind, and the length of what follows."""
CHUNK_BYTES = 64_000_000
"""Of a chunk, compressed or not, or of a record; a larger one is refused before it is read."""
WINDOW_LOG = 25
"""How far back, as a power of 2, compressed data may refer: memory that its reading takes."""
PIECE = 1 << 16


class Broken(Exception):
    """What is wrong with a file, as the end of a sentence about it."""


def at(file: BinaryIO, place: int, size: int) -> bytes:
    """The bytes of a file from a place on."""
    file.seek(max(0, place))
    data = file.read(size)
    if len(data) < size:
        raise Broken("ends too early")
    return data


def fits(length: int, most: int = CHUNK_BYTES) -> int:
    """A length, if it is not too long."""
    if length > most:
        raise Broken(f"has a record of {length:,} bytes, over {most:,}")
    return length


def unpacked(file: BinaryIO, place: int, end: int) -> tuple[bytearray, bool]:
    """What is in the chunk whose record begins at `place` of a file that ends at `end`, and whether
    it was cut off there. Raises `Broken`."""
    _, length = HEAD.unpack(at(file, place, HEAD.size))
    body = place + HEAD.size
    cut = body + length > end
    head = at(file, body, min(64, length, end - body))
    try:
        _, _, size, checksum, letters = struct.unpack_from("<QQQII", head)
        name = bytes(head[32 : 32 + letters])
        (packed,) = struct.unpack_from("<Q", head, 32 + letters)
    except struct.error:
        if cut:
            return bytearray(), True
        raise Broken("has a chunk that is none") from None
    start = body + 40 + letters
    if start + packed > body + length:
        raise Broken("has a chunk that is longer than its record")
    pieces = _pieces(file, start, min(start + fits(packed), end))
    data = _filled(pieces, name, fits(size))
    if len(data) < size and not cut:
        raise Broken("has a chunk that is shorter than it says")
    if checksum and len(data) == size and zlib.crc32(data) != checksum:
        raise Broken("has a chunk that was damaged: its checksum is another")
    return data, cut


def _pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    for place in range(start, end, PIECE):
        yield at(file, place, min(PIECE, end - place))


def _filled(pieces: Iterator[bytes], name: bytes, size: int) -> bytearray:
    """At most `size` bytes from compressed pieces: fewer where those end too early."""
    decompressor, errors = _decompressor(name)
    data, filled = bytearray(size), 0
    for piece in pieces:
        while True:
            try:
                part = decompressor.decompress(piece, PIECE)
            except errors as error:
                raise Broken(f"has a chunk that cannot be unpacked: {error}") from error
            if filled + len(part) > size:
                raise Broken("has a chunk that is longer than it says")
            data[filled : filled + len(part)] = part
            filled += len(part)
            if decompressor.needs_input or decompressor.eof:
                break
            piece = b""
        if decompressor.eof:
            break
    del data[filled:]
    return data


class _Plain:
    """What is not compressed."""

    needs_input, eof = True, False

    def decompress(self, data: bytes, most: int) -> bytes:
        return data


def _decompressor(name: bytes) -> tuple[Any, tuple[type[Exception], ...]]:
    """What unpacks a compression, and what it raises."""
    if name == b"":
        return _Plain(), ()
    try:
        if name == b"lz4":
            from lz4.frame import LZ4FrameDecompressor

            return LZ4FrameDecompressor(), (RuntimeError, EOFError, ValueError)
        if name == b"zstd":
            if sys.version_info >= (3, 14):
                from compression import zstd
            else:
                from backports import zstd

            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
            return zstd.ZstdDecompressor(options=options), (zstd.ZstdError, EOFError)
    except ImportError:
        what = f"a bag in {name.decode()}"
        raise UserError(f"{what} needs rosbags: pip install 'embodied-rl[ros]'") from None
    raise Broken(f"is compressed as {name[:20]!r}: neither zstd nor lz4")
