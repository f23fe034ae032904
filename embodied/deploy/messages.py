"""What travels on a robot's topics, in a form that is no transport's own.

Field by field the ROS messages of the same names (1 and 2), as plain Python, so that all that
handles them (the guard, the recorder, a simulated robot) knows nothing of how they travel.
Stamps are nanoseconds since 1970, as the sender's clock has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

MOST_JOINTS = 256
MOST_BYTES = 32_000_000
"""Of an image; what is larger is not taken."""
CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}
"""Bytes of a pixel, by the encodings that are read."""
Numbers = tuple[float, ...]


class Malformed(ValueError):
    """A message that says something impossible; it is counted and left out."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Malformed(what)


@dataclass(frozen=True)
class JointState:
    """Joints by name: angles (rad) or lengths (m), their speeds, their efforts; the last two may
    be empty. Numbers may be anything, NaN too: whether they make sense is for the guard."""

    ros: ClassVar[str] = "sensor_msgs/JointState"
    stamp_ns: int
    names: tuple[str, ...]
    position: Numbers
    velocity: Numbers = ()
    effort: Numbers = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        _require(count <= MOST_JOINTS, f"{count} joints")
        for row in (self.position, self.velocity, self.effort):
            _require(len(row) in (0, count), f"{len(row)} numbers for {count} joints")


@dataclass(frozen=True)
class Image:
    """Pixels by rows, without gaps: `data` has height * width * channels bytes."""

    ros: ClassVar[str] = "sensor_msgs/Image"
    stamp_ns: int
    height: int
    width: int
    encoding: str
    data: bytes

    def __post_init__(self) -> None:
        _require(self.encoding in CHANNELS, f"encoding {self.encoding[:20]!r}")
        size = self.height * self.width * CHANNELS[self.encoding]
        _require(0 < size == len(self.data) <= MOST_BYTES, f"an image of {len(self.data)} bytes")


@dataclass(frozen=True)
class CompressedImage:
    """A JPEG or PNG file."""

    ros: ClassVar[str] = "sensor_msgs/CompressedImage"
    stamp_ns: int
    format: str
    data: bytes

    def __post_init__(self) -> None:
        _require(len(self.data) <= MOST_BYTES, f"an image of {len(self.data)} bytes")


@dataclass(frozen=True)
class Floats:
    """A row of numbers: what a `ros2_control` group position controller is told, for one."""

    ros: ClassVar[str] = "std_msgs/Float64MultiArray"
    data: Numbers

    def __post_init__(self) -> None:
        _require(len(self.data) <= 65536, f"{len(self.data)} numbers")


@dataclass(frozen=True)
class TrajectoryPoint:
    """Where joints are to be, `after_ns` from the trajectory's start."""

    position: Numbers
    velocity: Numbers
    after_ns: int


@dataclass(frozen=True)
class JointTrajectory:
    """Points to pass through, by joint; a stamp of 0 means: from when it arrives."""

    ros: ClassVar[str] = "trajectory_msgs/JointTrajectory"
    stamp_ns: int
    names: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        _require(count <= MOST_JOINTS and len(self.points) <= 4096, "too long a trajectory")
        for point in self.points:
            _require(len(point.position) == count, "a point of other joints")
            _require(len(point.velocity) in (0, count), "a point of other joints")


@dataclass(frozen=True)
class Twist:
    """A velocity: linear (m/s) and angular (rad/s), 3 numbers each."""

    ros: ClassVar[str] = "geometry_msgs/Twist"
    linear: Numbers
    angular: Numbers

    def __post_init__(self) -> None:
        _require(len(self.linear) == len(self.angular) == 3, "a twist has 3 and 3 numbers")


@dataclass(frozen=True)
class Flag:
    """Yes or no: the emergency stop, the wish to arm again."""

    ros: ClassVar[str] = "std_msgs/Bool"
    data: bool


@dataclass(frozen=True)
class Text:
    """Words, or JSON."""

    ros: ClassVar[str] = "std_msgs/String"
    data: str

    def __post_init__(self) -> None:
        _require(len(self.data) <= 1_000_000, f"a text of {len(self.data)} characters")


Message = JointState | Image | CompressedImage | Floats | JointTrajectory | Twist | Flag | Text
KINDS: dict[str, type[Message]] = {
    kind.ros: kind
    for kind in (JointState, Image, CompressedImage, Floats, JointTrajectory, Twist, Flag, Text)
}
"""Every kind by its ROS name; ROS 2 writes it with `/msg/` in the middle."""


def finite(numbers: Numbers) -> bool:
    return all(map(math.isfinite, numbers))
