"""Messages between a server of ours and its clients: maps, texts, numbers and arrays, as bytes.

A packet is MessagePack: a map from text to None, bool, int, float, text, arrays, and lists and maps
of those. Nothing in it is ever run. What a stranger sends is walked through before anything is
built of it, so that neither a length that lies nor a nest of lists costs more memory than twice
`MOST_BYTES`; whatever is wrong with it raises `BadPacket`.

An array is an extension of type `ARRAY`: 64 bytes of head (the dtype's name in 8, the number of
axes in 1, 7 unused, 6 lengths in 8 each), then its numbers, little-endian, in C order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.errors import UserError

try:
    import msgpack
except ImportError as missing:
    raise UserError(
        "servers and their clients need msgpack: pip install 'embodied-rl[serve]'"
    ) from missing

MOST_BYTES = 16 * 2**20
"""Of a packet."""
MOST_ITEMS, MOST_DEPTH = 10_000, 8
"""Values in a packet, those in its lists and maps included, and lists and maps in one another."""
MOST_TEXT, MOST_TEXTS = 2**16, 2**20
"""Bytes of a text, and of all texts of a packet."""
MOST_AXES = 6
ARRAY = 1
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
    )  # fmt: skip
}
HEAD = struct.Struct("<8sB7x6Q")


class BadPacket(ValueError):
    """A packet that is malformed, too large, or does not hold what it should."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a packet. Arrays of texts travel as lists, NumPy's numbers as Python's.

    Raises `BadPacket` for what `decode` would refuse.
    """
    try:
        packet: bytes = msgpack.packb(dict(message), default=_pack)
    except BadPacket:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadPacket(f"cannot be sent: {error}") from error
    _walk(packet)
    return packet


def decode(packet: bytes) -> dict[str, Any]:
    """The message in a packet; its arrays are contiguous and read-only.

    Raises `BadPacket`, and nothing else."""
    packet = bytes(packet)
    _walk(packet)
    try:
        message: dict[str, Any] = msgpack.unpackb(
            packet,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_map,
            ext_hook=_unpack,
            max_str_len=MOST_TEXT,
            max_bin_len=0,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
            max_ext_len=MOST_BYTES,
        )
    except BadPacket:
        raise
    except (ValueError, TypeError, OverflowError) as error:  # text that is not UTF-8, above all
        raise BadPacket(f"no packet: {type(error).__name__}") from error
    return message


def take(
    message: Mapping[str, Any], key: str, shape: Sequence[int | None], kinds: str
) -> np.ndarray:
    """The array `key` of a message, where its dtype is of `kinds` (as NumPy letters them: "f",
    "iu", "b") and its shape is `shape`, None being any length. Raises `BadPacket`."""
    value = message.get(key)
    if not isinstance(value, np.ndarray):
        raise BadPacket(f"{key}: an array is wanted")
    fits = len(shape) == value.ndim and all(
        want in (None, have) for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits or value.dtype.kind not in kinds:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise BadPacket(f"{key}: {value.dtype} {value.shape}, not {kinds} ({wanted})")
    return value


# --- the parts of a packet

_SCALAR, _TEXT, _LIST, _MAP, _EXTENSION, _NEVER = range(6)


def _heads() -> list[tuple[int, int, int]]:
    """For every first byte: the kind, how many bytes of length follow, or else the size."""
    heads = [(_NEVER, 0, 0)] * 256
    for byte in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):
        heads[byte] = (_SCALAR, 0, 0)
    for byte, size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True):
        heads[byte] = (_SCALAR, 0, size)
    for n in range(16):
        heads[0x80 + n], heads[0x90 + n] = (_MAP, 0, n), (_LIST, 0, n)
    for n in range(32):
        heads[0xA0 + n] = (_TEXT, 0, n)
    for n in range(5):
        heads[0xD4 + n] = (_EXTENSION, 0, 2**n)
    for first, kind, widths in (
        (0xD9, _TEXT, (1, 2, 4)),
        (0xDC, _LIST, (2, 4)),
        (0xDE, _MAP, (2, 4)),
        (0xC7, _EXTENSION, (1, 2, 4)),
    ):
        for n, width in enumerate(widths):
            heads[first + n] = (kind, width, 0)
    return heads


_HEADS = _heads()


def _walk(packet: bytes) -> None:
    """Raise `BadPacket` unless a packet is whole and within all bounds; nothing is built."""
    end, at, items, texts = len(packet), 0, 0, 0
    if end > MOST_BYTES:
        raise BadPacket(f"{end} bytes: {MOST_BYTES} at most")
    left, keyed = [1], [False]  # of every list and map that is open: values to come, has it keys
    while left:
        if not left[-1]:
            left.pop(), keyed.pop()
            continue
        is_key = keyed[-1] and left[-1] % 2 == 0
        left[-1] -= 1
        kind, size, at = _head(packet, at)
        items += 1
        if items > MOST_ITEMS:
            raise BadPacket(f"more than {MOST_ITEMS} values")
        if (is_key and kind != _TEXT) or (items == 1 and kind != _MAP):
            raise BadPacket("a packet is a map from text")
        if kind in (_LIST, _MAP):
            if len(left) > MOST_DEPTH or size > MOST_ITEMS:
                raise BadPacket("too deep, or too many values")
            left.append(2 * size if kind == _MAP else size)
            keyed.append(kind == _MAP)
            continue
        if kind == _TEXT:
            texts += size
            if size > MOST_TEXT or texts > MOST_TEXTS:
                raise BadPacket("too much text")
        at += size
        if at > end:
            raise BadPacket("cut short")
    if at != end:
        raise BadPacket("something follows")


def _head(packet: bytes, at: int) -> tuple[int, int, int]:
    """What begins at a place: its kind, its size, and where its content begins."""
    if at >= len(packet):
        raise BadPacket("cut short")
    kind, width, size = _HEADS[packet[at]]
    at += 1
    if kind == _NEVER:
        raise BadPacket("bytes, or of an unknown kind")
    if width:
        size = int.from_bytes(packet[at : at + width], "big")
        at += width
    if kind == _EXTENSION:
        if packet[at : at + 1] != bytes([ARRAY]):
            raise BadPacket("an extension that is no array")
        at += 1
    return kind, size, at


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadPacket("a key that is there twice")
    return found


def _pack(value: Any) -> Any:
    """What MessagePack does not know, as what it knows."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "UT":
            return value.tolist()
        name = value.dtype.name
        if name not in DTYPES or value.ndim > MOST_AXES:
            raise BadPacket(f"an array of {value.dtype} with {value.ndim} axes cannot be sent")
        head = HEAD.pack(name.encode(), value.ndim, *value.shape, *(0,) * (MOST_AXES - value.ndim))
        return msgpack.ExtType(ARRAY, head + np.asarray(value, DTYPES[name]).tobytes())
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    raise BadPacket(f"a {type(value).__name__} cannot be sent")


def _unpack(code: int, data: bytes) -> np.ndarray:
    """The array in an extension: its size is found in Python's integers, which do not overflow."""
    if code != ARRAY or len(data) < HEAD.size:
        raise BadPacket("an array without a head")
    name, axes, *lengths = HEAD.unpack_from(data)
    dtype = DTYPES.get(name.rstrip(b"\0").decode("latin-1"))
    if dtype is None or axes > MOST_AXES or any(lengths[axes:]):
        raise BadPacket("an array of a kind that is not sent")
    shape = lengths[:axes]
    count = math.prod(shape)
    if math.prod(n or 1 for n in shape) > MOST_BYTES or any(n > MOST_BYTES for n in shape):
        raise BadPacket("an array that is too large")
    if count * dtype.itemsize != len(data) - HEAD.size:
        raise BadPacket("an array whose shape is not that of its bytes")
    if not count:
        array = np.empty(shape, dtype)
        array.flags.writeable = False
        return array
    array = np.frombuffer(data, dtype, count, HEAD.size)
    if dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise BadPacket("a truth value that is neither 0 nor 1")
    return array.reshape(shape)
