"""Messages of every kind, told apart by a number."""

from __future__ import annotations

import math

from embodied.deploy.messages import (
    KINDS,
    CompressedImage,
    Flag,
    Floats,
    Image,
    JointState,
    JointTrajectory,
    Message,
    Text,
    TrajectoryPoint,
    Twist,
)


def slug(kind: type[Message]) -> str:
    """The last part of a topic that carries a kind."""
    return kind.ros.rpartition("/")[2].lower()


def numbered(kind: type[Message], n: int) -> Message:
    """The n-th message of a kind, with every field in use and unlike the others'."""
    x = n + 0.1
    stamp_ns = 1_700_000_000_000_000_000 + n * 1_000_000_007
    names = ("shoulder", "élbow", f"j{n}")
    match kind.ros:
        case "sensor_msgs/JointState":
            effort = (1e-300, x, 3.0) if n % 2 else ()
            return JointState(stamp_ns, names, (x, math.nan, -x), (0.0, -0.0, 1 / 3), effort)
        case "sensor_msgs/Image":
            height = 140 if n % 10 == 0 else 3  # large ones take another way in some transports
            pixels = bytes(i * n % 256 for i in range(160 * 3)) * height
            return Image(stamp_ns, height, 160, "bgr8" if n % 2 else "rgb8", pixels)
        case "sensor_msgs/CompressedImage":
            return CompressedImage(stamp_ns, "png", bytes([137, 80, n % 256]) + b"\0\xff" * n)
        case "std_msgs/Float64MultiArray":
            return Floats((x,) * (n % 9) + (math.nan,))
        case "trajectory_msgs/JointTrajectory":
            points = [TrajectoryPoint((x, 1.0, float(i)), (), 10_000_001 * i) for i in range(n % 4)]
            points.append(TrajectoryPoint((x, x, x), (x, 0.0, math.nan), 3_000_000_000))
            return JointTrajectory(n % 2 * stamp_ns, names, tuple(points))
        case "geometry_msgs/Twist":
            return Twist((x, -x, math.nan), (0.0, 1e9, x))
        case "std_msgs/Bool":
            return Flag(n % 3 == 0)
    return Text(f'{{"text": "№ {n}\\n\\u0000"}} 🤖')


def told(message: Message) -> str:
    """A message as text, in which NaN equals NaN."""
    return repr(message)


ALL = tuple(KINDS.values())
