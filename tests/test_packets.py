"""Packets: what goes in comes out, and nothing that a stranger sends does harm."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from embodied.packets import (
    ARRAY,
    DTYPES,
    HEAD,
    MOST_BYTES,
    MOST_DEPTH,
    MOST_ITEMS,
    MOST_TEXT,
    BadPacket,
    decode,
    encode,
    take,
)

MESSAGE = {
    "op": "act",
    "id": 7,
    "greedy": True,
    "deadline_ms": 20.0,
    "nothing": None,
    "obs": {"state": np.arange(12, dtype=np.float32).reshape(3, 4), "ünï": np.zeros((0, 5))},
    "carry": {"count": np.arange(3), "seen": np.array([True, False, True])},
    "texts": ["push", "öffne"],
    "deep": [[{"a": [1, -2, 2**40, -(2**40)]}]],
}

arrays = nps.arrays(
    st.sampled_from([np.dtype(name) for name in DTYPES]),
    nps.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=3),
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
)
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and (a.tobytes() == b.tobytes())
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_what_goes_in_comes_out(message: dict[str, Any]) -> None:
    assert same(message, decode(encode(message)))


def test_arrays_are_contiguous_aligned_and_read_only() -> None:
    awkward = np.arange(24, dtype=">f8").reshape(4, 6)[::2, ::-1]
    (found,) = decode(encode({"a": awkward})).values()
    np.testing.assert_array_equal(found, awkward)
    assert found.dtype == np.dtype("<f8")
    assert found.flags.c_contiguous and found.flags.aligned and not found.flags.writeable


def test_texts_and_numbers_of_numpy_travel_as_pythons() -> None:
    texts = np.array(["push", "öffne", ""], np.dtypes.StringDType())
    message = {"t": texts, "u": np.array(["ab"]), "x": np.float32(0.5), "n": np.int8(3),
               "yes": np.True_, "pair": (1, 2)}  # fmt: skip
    assert decode(encode(message)) == {
        "t": ["push", "öffne", ""], "u": ["ab"], "x": 0.5, "n": 3, "yes": True, "pair": [1, 2],
    }  # fmt: skip


UNSENDABLE = {
    "bytes": b"bytes",
    "number as a key": {1: 2},
    "set": {"a", "b"},
    "object": object(),
    "large number": 2**64,
    "small number": -(2**63) - 1,
    "complex number": 1j,
    "surrogate": "\ud800",
    "complex array": np.zeros(2, complex),
    "array of objects": np.array([None]),
    "seven axes": np.zeros((1,) * 7),
    "uint16": np.zeros(2, "uint16"),
    "dates": np.array(["2026"], "datetime64[Y]"),
    "records": np.zeros(1, [("a", "f4")]),
    "long text": "x" * (MOST_TEXT + 1),
    "much text": ["x" * MOST_TEXT] * 17,
    "many values": [0] * MOST_ITEMS,
    "many bytes": np.zeros(MOST_BYTES // 8),
}


@pytest.mark.parametrize("name", UNSENDABLE)
def test_what_could_not_be_read_is_not_written(name: str) -> None:
    with pytest.raises(BadPacket):
        encode({"value": UNSENDABLE[name]})


def test_a_nest_is_as_deep_as_it_may_be() -> None:
    nest: Any = []
    for _ in range(MOST_DEPTH - 2):
        nest = [nest]
    assert decode(encode({"nest": nest})) == {"nest": nest}
    with pytest.raises(BadPacket, match="deep"):
        encode({"nest": [nest]})


# --- what strangers send


def head(name: bytes = b"float32", axes: int = 1, *lengths: int) -> bytes:
    return HEAD.pack(name, axes, *lengths, *(0,) * (6 - len(lengths)))


def holding(payload: bytes, code: int = ARRAY) -> bytes:
    """A packet with one extension."""
    return msgpack.packb({"a": msgpack.ExtType(code, payload)})


LYING = [
    holding(head(b"float32", 2, 2**62, 0)),
    holding(head(b"float32", 3, 2**31, 2**31, 0)),
    holding(head(b"float32", 6, *(2**24,) * 5, 0)),
    holding(head(b"float32", 2, 2**32, 2**32)),
    holding(head(b"float32", 2, 2**63, 2) + bytes(8)),
    holding(head(b"float32", 1, 2**64 - 1) + bytes(8)),
    holding(head(b"float32", 1, 3) + bytes(8)),
    holding(head(b"float32", 1, 1) + bytes(8)),
    holding(head(b"float32", 0, 3) + bytes(12)),
    holding(head(b"float32", 7, 1) + bytes(4)),
    holding(head(b"float32", 255) + bytes(4)),
    holding(head(b"float32", 1, 2, 3) + bytes(8)),
    holding(head(b"object", 1, 1) + bytes(8)),
    holding(head(b"O", 1, 1) + bytes(8)),
    holding(head(b"V8", 1, 1) + bytes(8)),
    holding(head(b"<U4", 1, 1) + bytes(16)),
    holding(head(b"f4,f4", 1, 1) + bytes(8)),
    holding(head(b"\xff\xfe", 1, 1) + bytes(8)),
    holding(head(b"", 1, 1) + bytes(8)),
    holding(head(b"bool", 1, 2) + b"\x00\x02"),
    holding(head()[:-1]),
    holding(b""),
    holding(head(b"float32", 1, 1) + bytes(4), code=2),
    b"\x81\xa1a\xd6\xff" + bytes(4),  # a timestamp, which msgpack would make
    holding(b"cos\nsystem\n(S'true'\ntR.", code=3),
]
"""Arrays that are not what they say."""
DECLARED = [
    b"\x81\xa1a" + start + struct.pack(form, size) + rest
    for start, form, size in (
        (b"\xdb", ">I", 2**32 - 1),
        (b"\xda", ">H", 2**16 - 1),
        (b"\xd9", ">B", 255),
        (b"\xc6", ">I", 2**32 - 1),
        (b"\xc4", ">B", 1),
        (b"\xdd", ">I", 2**32 - 1),
        (b"\xdc", ">H", 2**16 - 1),
        (b"\xdf", ">I", 2**32 - 1),
        (b"\xde", ">H", 2**16 - 1),
        (b"\xc9", ">I", 2**32 - 1),
        (b"\xc8", ">H", 2**16 - 1),
        (b"\xc7", ">B", 255),
    )
    for rest in (b"", b"\x01", b"\x01" * 40)
]
"""Lengths of what is not there."""
SHAPES = [
    b"", b"\xc1", b"\x81\xa1a\xc1", b"\x80\x80", b"\x81", b"\x81\xa1", b"\x81\xa1a", b"\x90",
    b"\x05", b"\xa1a", b"\xc0", b"\x82\xa1a\x01\xa1a\x02", b"\x81\x01\x02", b"\x81\xc0\x02",
    b"\x81\x90\x01", b"\x81\xa2\xff\xfe\x01", b"\x81\xa1a\xa2\xc3\x28",
    b"\x81\xa1a\xa3\xed\xa0\x80", b"\x81\xa1a" + b"\x91" * 100 + b"\x01",
    b"\x91" * 5000, b"\x81\xa1a" * 5000,
    b"\x81\xc4\x01a\x01", b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", b"\x00" * 64, b"\xff" * 64,
    b"GET / HTTP/1.1\r\n\r\n", b"\x80\x04\x95cposix\nsystem\n", b'{"op": "act"}',
]  # fmt: skip
"""No maps from text, cut short, or followed by something."""


def mutations(count: int) -> Iterator[bytes]:
    """A valid packet with one to three things wrong with it."""
    rng = random.Random(0)
    whole = encode(MESSAGE)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            match rng.randrange(5):
                case 0:
                    data[at] ^= 1 << rng.randrange(8)
                case 1:
                    data[at] = rng.randrange(256)
                case 2:
                    del data[at:]
                case 3:
                    del data[at : at + rng.randint(1, 9)]
                case 4:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
            if not data:
                break
        yield bytes(data)


def is_message(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and is_message(part, depth + 1) for key, part in value.items())
    if isinstance(value, list):
        return depth <= MOST_DEPTH and all(is_message(part, depth + 1) for part in value)
    if isinstance(value, np.ndarray):
        return value.dtype.name in DTYPES and value.ndim <= 6
    return value is None or type(value) in (bool, int, float, str)


@pytest.mark.parametrize("packets", [LYING, DECLARED, SHAPES], ids=["lying", "declared", "shapes"])
def test_a_malformed_packet_is_refused(packets: list[bytes]) -> None:
    for packet in packets:
        with pytest.raises(BadPacket):
            decode(packet)


def test_a_mutation_is_refused_or_is_a_message() -> None:
    refused = 0
    for packet in mutations(3000):
        try:
            message = decode(packet)
        except BadPacket:
            refused += 1
        else:
            assert type(message) is dict and is_message(message)
            assert same(message, decode(encode(message)))
    assert refused > 1500


def test_random_bytes_are_refused_or_are_a_message() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        body = b"\x8f" * rng.randrange(2) + rng.randbytes(rng.randrange(60))
        with suppress(BadPacket):
            assert is_message(decode(body))


def test_numbers_that_are_no_numbers_pass() -> None:
    message = decode(encode({"x": float("nan"), "y": np.array([np.inf, np.nan], np.float16)}))
    assert np.isnan(message["x"]) and np.isinf(message["y"][0]) and np.isnan(message["y"][1])


def greedy() -> dict[str, bytes]:
    """Packets that are made to cost memory, most of them as large as they may be."""
    room = MOST_BYTES - 100
    flat = 2**16 - 1
    emoji = "😀".encode()
    text = b"\xda\xff\xff" + emoji + b"a" * (flat - len(emoji))  # four bytes a letter once read
    level = b"\xdd" + struct.pack(">I", MOST_ITEMS)
    return {
        "array": encode({"a": np.zeros(room // 8, np.float64)}),
        "truths": encode({"a": np.ones(room, bool)}),
        "nothing": encode({"a": np.zeros((0, 1000, 1000))}),
        "empty lists": b"\x81\xa1a\xdd" + struct.pack(">I", room) + b"\x90" * room,
        "empty maps": b"\x81\xa1a\xdd" + struct.pack(">I", room) + b"\x80" * room,
        "negative numbers": b"\x81\xa1a\xdd" + struct.pack(">I", room) + b"\xe0" * room,
        "lists of lists": b"\x81\xa1a\x91" + (b"\xdc\xff\xff" + b"\x90" * flat) * (room // 70_000),
        "declared lists": b"\x81\xa1a" + level * 1000,
        "texts": b"\x81\xa1a\xdc\x00\xff" + text * 255,
        "a text": b"\x81\xa1a\xdb" + struct.pack(">I", room) + b"a" * room,
        "bytes": b"\x81\xa1a\xc6" + struct.pack(">I", room) + b"a" * room,
        "an extension": b"\x81\xa1a\xc9" + struct.pack(">I", room) + b"\x05" + b"a" * room,
        "maps": b"\x81\xa1a" * (room // 3) + b"\x01",
        "too long": bytes(MOST_BYTES + 1),
    }


@pytest.mark.parametrize("name", greedy())
def test_memory_stays_within_twice_the_cap(name: str) -> None:
    packet = greedy()[name]
    tracemalloc.start()
    try:
        decode(packet)
    except BadPacket:
        assert name not in ("array", "truths", "nothing")
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak + len(packet) <= 2 * MOST_BYTES + 2**16


WATCHED = """
import sys
from embodied.packets import BadPacket, decode
from tests.test_packets import DECLARED, LYING, SHAPES, mutations
packets = [*LYING, *DECLARED, *SHAPES, *mutations(500)]
heard, listening = set(), False
sys.addaudithook(lambda event, _: heard.add(event) if listening else None)
def look(packet):
    try:
        decode(packet)
    except BadPacket:
        pass
look(packets[0])
listening = True
for packet in packets:
    look(packet)
listening = False
print(len(packets), sorted(heard - {"object.__getattr__"}))
"""


def test_reading_packets_runs_and_opens_nothing() -> None:
    command = [sys.executable, "-c", WATCHED]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    count, heard = run.stdout.split(maxsplit=1)
    assert int(count) > 500
    assert heard.strip() == "[]"


def test_take_says_what_is_wanted() -> None:
    message = {"a": np.zeros((3, 2), np.float32)}
    assert take(message, "a", (None, 2), "f").shape == (3, 2)
    for key, shape, kinds in (("b", (3, 2), "f"), ("a", (3,), "f"), ("a", (3, 3), "f"),
                              ("a", (3, 2), "iu")):  # fmt: skip
        with pytest.raises(BadPacket, match=f"^{key}: "):
            take(message, key, shape, kinds)
