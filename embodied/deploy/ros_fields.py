"""Our messages as ROS's own classes have them, field by field: what every way to ROS shares.

`build` makes a ROS message through any function that makes one part of it by name and fields;
`read` reads whatever has fields of these names, be it of ROS 1 or 2. Rows of numbers are
`array("d")` and pixels `bytes` on the way out, and anything like them on the way in.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from embodied.deploy.messages import (
    CHANNELS,
    CompressedImage,
    Flag,
    Floats,
    Image,
    JointState,
    JointTrajectory,
    Malformed,
    Message,
    Numbers,
    Text,
    TrajectoryPoint,
    Twist,
)

Make = Callable[..., Any]
"""Makes a ROS message, or a part of one: its name, as `std_msgs/Header`, then its fields."""
SECOND = 10**9
LAST_SECOND = 2**31
"""From which on a time no longer fits."""


def ros2_name(kind: type[Message]) -> str:
    """What ROS 2 calls a kind, as `sensor_msgs/msg/JointState`."""
    return kind.ros.replace("/", "/msg/")


def build(message: Message, make: Make) -> Any:
    """The ROS message of ours. Raises `Malformed` for a time that ROS cannot hold."""
    match message:
        case JointState():
            return make(
                message.ros,
                header=_header(message.stamp_ns, make),
                name=list(message.names),
                position=array("d", message.position),
                velocity=array("d", message.velocity),
                effort=array("d", message.effort),
            )
        case Image():
            return make(
                message.ros,
                header=_header(message.stamp_ns, make),
                height=message.height,
                width=message.width,
                encoding=message.encoding,
                is_bigendian=0,
                step=message.width * CHANNELS[message.encoding],
                data=message.data,
            )
        case CompressedImage():
            header = _header(message.stamp_ns, make)
            return make(message.ros, header=header, format=message.format, data=message.data)
        case Floats():
            layout = make("std_msgs/MultiArrayLayout", dim=[], data_offset=0)
            return make(message.ros, layout=layout, data=array("d", message.data))
        case JointTrajectory():
            return make(
                message.ros,
                header=_header(message.stamp_ns, make),
                joint_names=list(message.names),
                points=[_point(point, make) for point in message.points],
            )
        case Twist():
            linear, angular = _vector(message.linear, make), _vector(message.angular, make)
            return make(message.ros, linear=linear, angular=angular)
        case Flag() | Text():
            return make(message.ros, data=message.data)


def _header(stamp_ns: int, make: Make) -> Any:
    stamp = _time("builtin_interfaces/Time", stamp_ns, make)
    return make("std_msgs/Header", stamp=stamp, frame_id="")


def _time(name: str, ns: int, make: Make) -> Any:
    if not 0 <= ns < LAST_SECOND * SECOND:
        raise Malformed(f"a time of {ns} ns")
    return make(name, sec=ns // SECOND, nanosec=ns % SECOND)


def _point(point: TrajectoryPoint, make: Make) -> Any:
    return make(
        "trajectory_msgs/JointTrajectoryPoint",
        positions=array("d", point.position),
        velocities=array("d", point.velocity),
        accelerations=array("d"),
        effort=array("d"),
        time_from_start=_time("builtin_interfaces/Duration", point.after_ns, make),
    )


def _vector(numbers: Numbers, make: Make) -> Any:
    x, y, z = map(float, numbers)
    return make("geometry_msgs/Vector3", x=x, y=y, z=z)


def read(kind: type[Message], ros: Any) -> Message:
    """Our message of a ROS message of `kind`.

    Raises `Malformed`, and nothing else, where a field is missing or cannot be what it says.
    """
    try:
        return _read(kind, ros)
    except (AttributeError, BufferError, OverflowError, TypeError, ValueError) as error:
        raise Malformed(f"{kind.ros}: {error}") from error


def _read(kind: type[Message], ros: Any) -> Message:
    if kind is JointState:
        rows = map(_numbers, (ros.position, ros.velocity, ros.effort))
        return JointState(_ns(ros.header.stamp), _words(ros.name), *rows)
    if kind is Image:
        height, width, step = map(_whole, (ros.height, ros.width, ros.step))
        encoding, data = _word(ros.encoding), memoryview(ros.data).cast("B")
        row = width * CHANNELS.get(encoding, 0)
        pixels = _close_up(data, height, step, row)
        return Image(_ns(ros.header.stamp), height, width, encoding, pixels)
    if kind is CompressedImage:
        picture = bytes(memoryview(ros.data).cast("B"))
        return CompressedImage(_ns(ros.header.stamp), _word(ros.format), picture)
    if kind is Floats:
        return Floats(_numbers(ros.data))
    if kind is JointTrajectory:
        points = [
            TrajectoryPoint(
                _numbers(point.positions), _numbers(point.velocities), _ns(point.time_from_start)
            )
            for point in ros.points
        ]
        return JointTrajectory(_ns(ros.header.stamp), _words(ros.joint_names), tuple(points))
    if kind is Twist:
        linear, angular = ((v.x, v.y, v.z) for v in (ros.linear, ros.angular))
        return Twist(_numbers(linear), _numbers(angular))
    if kind is Flag:
        return Flag(_flag(ros.data))
    return Text(_word(ros.data))


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed(f"{type(value).__name__} for yes or no")
    return value


def _ns(time: Any) -> int:
    """Nanoseconds of a ROS 2 or 1 time."""
    sec, nanosec = (time.sec, time.nanosec) if hasattr(time, "sec") else (time.secs, time.nsecs)
    ns = _whole(sec) * SECOND + _whole(nanosec)
    if not 0 <= ns < LAST_SECOND * SECOND:
        raise Malformed(f"a time of {sec} s")
    return ns


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise Malformed(f"{type(value).__name__} for a whole number")
    return value


def _word(value: Any) -> str:
    if type(value) is not str:
        raise Malformed(f"{type(value).__name__} for text")
    return value


def _words(values: Any) -> tuple[str, ...]:
    return tuple(map(_word, values))


def _numbers(values: Any) -> Numbers:
    if isinstance(values, bytes | bytearray):  # which `array` would take for its memory
        raise Malformed("bytes for numbers")
    return tuple(array("d", values))


def _close_up(data: memoryview, height: int, step: int, row: int) -> bytes:
    """Rows of `row` bytes that start `step` apart, without the gaps."""
    if not 0 < row <= step or height * step != len(data):
        raise Malformed(f"{len(data)} bytes for {height} rows of {step}")
    if row == step:
        return bytes(data)
    return b"".join(data[start : start + row] for start in range(0, len(data), step))
