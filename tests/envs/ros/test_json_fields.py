"""JSON from elsewhere: what it says, or `Malformed`, at a bounded price."""

from __future__ import annotations

import json
import math
import tracemalloc
from array import array

import pytest
from embodied.envs.ros.json_fields import as_json, as_strict_json, parse

from embodied.deploy.messages import Malformed


def test_objects_have_fields_and_null_is_nan() -> None:
    said = parse(b'{"a": {"b": [1, null, 2.5]}, "x": null, "y": true}')
    assert said.a.b[0] == 1 and math.isnan(said.a.b[1]) and said.a.b[2] == 2.5
    assert math.isnan(said.x) and said.y is True


def test_strict_json_has_null_for_what_is_no_number() -> None:
    row = array("d", [1.0, math.nan, -math.inf])
    assert as_strict_json("std_msgs/X", data=row, x=math.nan, n=3) == {
        "data": [1.0, None, None], "x": None, "n": 3,
    }  # fmt: skip
    plain = as_json("std_msgs/X", data=row)
    assert json.dumps(plain) == '{"data": [1.0, NaN, -Infinity]}'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"{'a': 1}",
        b"[" * 100_000,
        b"1" * 5000,  # more digits than Python makes a whole number of
        b"[" + b"[]," * 10_000_000 + b"0]",
        b'{"a":0},' * 3_000_000,
        b'"' + b"a" * 20_000_000 + "🤖".encode() + b'"',  # each letter would take 4 bytes
        b'"' + b"a" * 20_000_000 + rb"\ud83e" + b'"',
    ],
    ids=lambda text: f"{text[:8]!r}..{text[-8:]!r}",
)
def test_bad_or_costly_text_is_malformed_and_costs_little(text: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            parse(text)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def test_the_costliest_text_that_is_read_stays_within_bounds() -> None:
    text = b"[" + b'{"a":0},' * 74_000 + b"0]"
    tracemalloc.start()
    try:
        assert len(parse(text)) == 74_001
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()
