"""The types of our messages for DDS, under the names that ROS 2 gives them there."""

from __future__ import annotations

from typing import Any

from cyclonedds.idl import make_idl_struct
from cyclonedds.idl import types as idl
from cyclonedds.idl.types import float64, int32, uint8, uint32

from embodied.deploy.messages import KINDS, Message

sequence: Any = idl.sequence


def dds_name(ros: str) -> str:
    """What DDS calls a part of a message, as `std_msgs::msg::dds_::String_`."""
    return ros.replace("/", "::msg::dds_::") + "_"


def _struct(ros: str, **fields: Any) -> Any:
    name = dds_name(ros).replace("::", ".")
    return make_idl_struct(ros.rpartition("/")[2] + "_", name, fields)


_TIME = _struct("builtin_interfaces/Time", sec=int32, nanosec=uint32)
_DURATION = _struct("builtin_interfaces/Duration", sec=int32, nanosec=uint32)
_HEADER = _struct("std_msgs/Header", stamp=_TIME, frame_id=str)
_VECTOR = _struct("geometry_msgs/Vector3", x=float64, y=float64, z=float64)
_DIMENSION = _struct("std_msgs/MultiArrayDimension", label=str, size=uint32, stride=uint32)
_LAYOUT = _struct("std_msgs/MultiArrayLayout", dim=sequence[_DIMENSION], data_offset=uint32)
_NUMBERS, _WORDS, _BYTES = sequence[float64], sequence[str], sequence[uint8]
_POINT = _struct(
    "trajectory_msgs/JointTrajectoryPoint",
    positions=_NUMBERS,
    velocities=_NUMBERS,
    accelerations=_NUMBERS,
    effort=_NUMBERS,
    time_from_start=_DURATION,
)
FIELDS: dict[str, dict[str, Any]] = {
    "sensor_msgs/JointState": {
        "header": _HEADER,
        "name": _WORDS,
        "position": _NUMBERS,
        "velocity": _NUMBERS,
        "effort": _NUMBERS,
    },
    "sensor_msgs/Image": {
        "header": _HEADER,
        "height": uint32,
        "width": uint32,
        "encoding": str,
        "is_bigendian": uint8,
        "step": uint32,
        "data": _BYTES,
    },
    "sensor_msgs/CompressedImage": {"header": _HEADER, "format": str, "data": _BYTES},
    "std_msgs/Float64MultiArray": {"layout": _LAYOUT, "data": _NUMBERS},
    "trajectory_msgs/JointTrajectory": {
        "header": _HEADER,
        "joint_names": _WORDS,
        "points": sequence[_POINT],
    },
    "geometry_msgs/Twist": {"linear": _VECTOR, "angular": _VECTOR},
    "std_msgs/Bool": {"data": bool},
    "std_msgs/String": {"data": str},
}
"""Names and types of the fields of every kind."""
TYPES: dict[type[Message], Any] = {kind: _struct(ros, **FIELDS[ros]) for ros, kind in KINDS.items()}
