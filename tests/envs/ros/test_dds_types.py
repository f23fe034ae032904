"""Cyclone's bytes and ours are the same: two authors' reading of what ROS 2 sends."""

from __future__ import annotations

from typing import Any

import pytest

from embodied.deploy.cdr import decode, encode
from embodied.deploy.messages import KINDS, Image, Message
from embodied.deploy.ros_fields import build, read
from tests.envs.ros.kinds import ALL, numbered, told

pytest.importorskip("cyclonedds")
from embodied.envs.ros import dds_types  # noqa: E402


def of_cyclone(ros: str, /, **fields: Any) -> Any:
    """A part of a message as Cyclone's own classes have it, for it to write by itself."""
    parts = {
        "builtin_interfaces/Time": dds_types._TIME,
        "builtin_interfaces/Duration": dds_types._DURATION,
        "std_msgs/Header": dds_types._HEADER,
        "std_msgs/MultiArrayLayout": dds_types._LAYOUT,
        "geometry_msgs/Vector3": dds_types._VECTOR,
        "trajectory_msgs/JointTrajectoryPoint": dds_types._POINT,
        **{kind.ros: made for kind, made in dds_types.TYPES.items()},
    }
    return parts[ros](**{k: list(v) if isinstance(v, bytes) else v for k, v in fields.items()})


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.ros)
@pytest.mark.parametrize("n", range(5))
def test_cyclone_writes_and_reads_the_same_bytes(kind: type[Message], n: int) -> None:
    message = numbered(kind, n)
    theirs = build(message, of_cyclone).serialize(use_version_2=False)
    assert encode(message) == theirs
    assert told(decode(kind, theirs)) == told(message)
    back = dds_types.TYPES[kind].deserialize(encode(message))
    if kind.ros.endswith("Image"):
        back.data = bytes(back.data)
    assert told(read(kind, back)) == told(message)


def test_every_kind_has_a_type_with_the_name_that_ros_2_gives_it() -> None:
    assert dds_types.TYPES.keys() == set(KINDS.values())
    name = dds_types.TYPES[Image].__idl_typename__
    assert name == "sensor_msgs.msg.dds_.Image_"
    assert dds_types.dds_name("sensor_msgs/Image") == "sensor_msgs::msg::dds_::Image_"
