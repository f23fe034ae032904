"""Our messages as the bytes that ROS 2 sends and records: CDR, with the types of Jazzy.

And as ROS 1 sends them, of which only the reading is here.
"""

from __future__ import annotations

import struct
from array import array
from functools import cache
from typing import Any

from embodied.deploy.messages import (
    MOST_BYTES,
    CompressedImage,
    Floats,
    Image,
    Malformed,
    Message,
)
from embodied.deploy.ros_fields import build, read, ros2_name
from embodied.errors import UserError

MOST_AROUND = 1024
"""Bytes of an image message that are not its pixels."""
OF_PIXELS = (MOST_BYTES + MOST_AROUND, MOST_BYTES)
MOST = {Image: OF_PIXELS, CompressedImage: OF_PIXELS, Floats: (1_000_000, 65536)}
MOST_ELSE = (4_000_000, 4096)
"""Bytes of a message, and parts of a row in it, by kind; and of the kinds that are not named."""


@cache
def typestore(most_items: int = MOST_BYTES, release: str = "ROS2_JAZZY") -> Any:
    """The types of a release, as `rosbags` has them. Raises `UserError` without `rosbags`."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise UserError("ROS messages need rosbags: pip install 'embodied-rl[ros]'") from None
    store = get_typestore(Stores[release])
    store.max_sequence_length = most_items
    return store


def encode(message: Message) -> bytes:
    """The bytes of a message, little-endian. Raises `Malformed` for what CDR cannot hold."""
    store = typestore()
    try:
        return bytes(store.serialize_cdr(build(message, _make), ros2_name(type(message))))
    except (OverflowError, UnicodeError, struct.error) as error:
        raise Malformed(f"{message.ros}: {error}") from error


def _make(ros: str, /, **fields: Any) -> Any:
    """A part of a message as a class of `rosbags`, which wants NumPy's rows."""
    import numpy as np

    for key, value in fields.items():
        if isinstance(value, array):
            fields[key] = np.frombuffer(value)
        elif isinstance(value, bytes):
            fields[key] = np.frombuffer(value, np.uint8)
    return typestore().types[ros.replace("/", "/msg/")](**fields)


def decode(kind: type[Message], data: bytes | memoryview) -> Message:
    """The message of a kind that is in `data`, of any byte order.

    Raises `Malformed`, and nothing else, for bytes that are none, whatever lengths they declare.
    """
    return _decode(kind, data, "deserialize_cdr", "ROS2_JAZZY")


def decode_ros1(kind: type[Message], data: bytes | memoryview) -> Message:
    """The message of a kind in the bytes of ROS 1. Raises `Malformed`, and nothing else."""
    return _decode(kind, data, "deserialize_ros1", "ROS1_NOETIC")


def _decode(kind: type[Message], data: bytes | memoryview, reader: str, release: str) -> Message:
    most_bytes, most_items = MOST.get(kind, MOST_ELSE)
    if len(data) > most_bytes:
        raise Malformed(f"{kind.ros}: {len(data)} bytes")
    store = typestore(most_items, release)
    from rosbags.serde import SerdeError

    try:
        ros = getattr(store, reader)(memoryview(data), ros2_name(kind))
    except (SerdeError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise Malformed(f"{kind.ros}: {error}") from error
    return read(kind, ros)
