"""Our messages as JSON, with ROS's own names of fields: for ends that speak no CDR."""

from __future__ import annotations

import json
import math
from array import array
from types import SimpleNamespace
from typing import Any

from embodied.deploy.messages import Malformed

MOST_LETTERS = 3_000_000
"""Of a text, unless it is an image, which is plain letters."""
MOST_PARTS = 150_000
"""Of what is in a text: numbers, lists, and so on."""


def as_json(ros: str, /, **fields: Any) -> dict[str, Any]:
    """A part of a message, for `embodied.deploy.ros_fields.build`; NaN stays NaN."""
    return {k: list(v) if isinstance(v, array) else v for k, v in fields.items()}


def as_strict_json(ros: str, /, **fields: Any) -> dict[str, Any]:
    """The same in JSON that anybody reads: what is no number is null."""
    return {key: _strict(value) for key, value in fields.items()}


def _strict(value: Any) -> Any:
    if isinstance(value, array):
        return [x if math.isfinite(x) else None for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse(text: bytes) -> Any:
    """What a JSON text says, its objects with fields; null is NaN.

    Raises `Malformed` for text that is no JSON, or that would take many times its own memory.
    """
    if len(text) > MOST_LETTERS and (not text.isascii() or b"\\u" in text):
        raise Malformed(f"{len(text)} letters that are not plain")
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_PARTS:
        raise Malformed(f"{len(text)} letters in too many parts")
    try:
        return json.loads(text, object_hook=_fields)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {error}") from error


def _fields(values: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{key: _number(value) for key, value in values.items()})


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [math.nan if each is None else each for each in value]
    return math.nan if value is None else value
