"""Messages as ROS 2's bytes: back unchanged, and whatever is no message is `Malformed`."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.deploy.cdr import decode, encode
from embodied.deploy.messages import (
    KINDS,
    CompressedImage,
    Flag,
    Floats,
    Image,
    JointState,
    JointTrajectory,
    Malformed,
    Message,
    Text,
    TrajectoryPoint,
    Twist,
)

ALL = [
    JointState(1_700_000_000_123_456_789, ("a", "bé"), (0.5, -1.0), (2.0, 3.0), (4.0, 5.0)),
    Image(7, 2, 3, "rgb8", bytes(range(18))),
    CompressedImage(8, "jpeg", b"\xff\xd8 not a picture"),
    Floats((1.0, 2.0, 3.0)),
    JointTrajectory(
        0,
        ("a", "b"),
        (
            TrajectoryPoint((1.0, 2.0), (), 100_000_000),
            TrajectoryPoint((3.0, 4.0), (5.0, 6.0), 1_200_000_000),
        ),
    ),
    Twist((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
    Flag(True),
    Text("stop ✋"),
]
numbers = st.floats(allow_nan=False)
stamps = st.integers(0, 2**31 * 10**9 - 1)


@st.composite
def joint_states(draw: st.DrawFn) -> JointState:
    names = draw(st.lists(st.text(max_size=9), max_size=9))
    row = st.lists(numbers, min_size=len(names), max_size=len(names)).map(tuple)
    return JointState(draw(stamps), tuple(names), *(draw(row | st.just(())) for _ in range(3)))


@st.composite
def trajectories(draw: st.DrawFn) -> JointTrajectory:
    names = draw(st.lists(st.text(max_size=9), max_size=5))
    row = st.lists(numbers, min_size=len(names), max_size=len(names)).map(tuple)
    point = st.builds(TrajectoryPoint, row, row | st.just(()), stamps)
    return JointTrajectory(draw(stamps), tuple(names), tuple(draw(st.lists(point, max_size=5))))


@pytest.mark.parametrize("message", ALL, ids=lambda message: message.ros)
def test_every_kind_comes_back_as_it_was(message: Message) -> None:
    assert {type(each) for each in ALL} == set(KINDS.values())
    assert decode(type(message), encode(message)) == message


@given(joint_states() | trajectories() | st.builds(Text, st.text()))
def test_whatever_is_said_comes_back_as_it_was(message: Message) -> None:
    assert decode(type(message), encode(message)) == message


def test_bytes_of_a_message_worked_out_by_hand() -> None:
    """Little-endian CDR: a header of 4 bytes, from which 8-byte numbers are aligned to 8."""
    expected = bytes([0, 1, 0, 0])
    expected += struct.pack("<iI", 3, 4)  # seconds, nanoseconds
    expected += struct.pack("<I", 1) + b"\0"  # an empty frame with its zero
    expected += b"\0" * 3 + struct.pack("<II", 1, 2) + b"j\0"  # one name
    expected += b"\0" * 2 + struct.pack("<I", 1) + struct.pack("<d", 0.5)
    expected += struct.pack("<II", 0, 0)  # no speeds, no efforts
    assert encode(JointState(3_000_000_004, ("j",), (0.5,))) == expected


def test_a_nan_arrives() -> None:
    back = decode(Floats, encode(Floats((float("nan"), float("inf")))))
    assert isinstance(back, Floats)
    assert back.data[0] != back.data[0] and back.data[1] == float("inf")


def test_a_peer_of_the_other_byte_order_is_understood() -> None:
    data = b"\0\0\0\0" + struct.pack(">IIIxxxxd", 0, 0, 1, 0.25)
    assert decode(Floats, data) == Floats((0.25,))


def test_gaps_between_rows_of_pixels_are_left_out() -> None:
    """Cameras may align their rows: here 2 rows of 1 pixel, 4 bytes apart."""
    plain = encode(Image(0, 2, 1, "mono8", b"ab"))
    step, size = struct.pack("<II", 1, 2), struct.pack("<II", 4, 8)
    data = plain.replace(step + b"ab", size + b"a\1\2\3b\4\5\6")
    assert data != plain
    assert decode(Image, data) == Image(0, 2, 1, "mono8", b"ab")


@pytest.mark.parametrize("stamp_ns", [-1, 2**31 * 10**9])
def test_a_time_that_ros_cannot_hold_is_refused(stamp_ns: int) -> None:
    with pytest.raises(Malformed, match="time"):
        encode(JointState(stamp_ns, (), ()))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Flag, b""),
        (Flag, b"\0\1"),
        (Flag, b"\0\7\0\0\1"),  # an encoding of CDR that ROS does not use
        (Flag, b"\0\1\0\0\1 and more"),
        (Text, b"\0\1\0\0" + struct.pack("<I", 2) + b"\xff\0"),  # no UTF-8
        (Text, b"\0\1\0\0" + struct.pack("<I", 3) + b"abc"),  # no zero at its end
        (Text, encode(Text("a" * 999_999)).replace(b"a\0", b"aa\0")),  # longer than it says
        (Image, encode(Image(0, 1, 1, "mono8", b"a")).replace(b"mono8", b"yuv42")),
        (JointState, encode(Text("hello"))),
        (Twist, encode(Floats((1.0, 2.0)))),
    ],
)
def test_bytes_that_are_no_message_are_malformed(kind: type[Message], data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(kind, data)


def test_a_stamp_before_1970_is_malformed() -> None:
    data = encode(CompressedImage(0, "png", b""))
    with pytest.raises(Malformed, match="time"):
        decode(CompressedImage, data[:4] + struct.pack("<i", -1) + data[8:])


def mangled(data: bytes, dice: random.Random) -> bytes:
    """`data` with a few bytes changed, cut short, or made longer; or nothing but noise."""
    if dice.random() < 0.2:
        return bytes([0, 1, 0, 0]) + dice.randbytes(dice.randrange(200))
    changed = bytearray(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.5 else data)
    for _ in range(dice.randrange(1, 5)):
        if changed:
            at = dice.randrange(len(changed))
            changed[at : at + 1] = dice.randbytes(dice.choice([1, 1, 1, 4]))
    return bytes(changed)


@pytest.mark.parametrize("message", ALL, ids=lambda message: message.ros)
def test_noise_is_read_or_malformed_and_nothing_else(message: Message) -> None:
    dice, refused = random.Random(0), 0
    data = encode(message)
    for _ in range(700):
        try:
            read = decode(type(message), mangled(data, dice))
        except Malformed:
            refused += 1
        else:
            assert isinstance(read, type(message))
    assert refused > 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        # lengths that were declared and are not there, or that are of nothing but empty parts
        (Floats, struct.pack("<III", 0, 0, 2**32 - 1)),
        (JointTrajectory, struct.pack("<iIIxxxxII", 0, 0, 1, 0, 2**32 - 1)),
        (JointTrajectory, struct.pack("<iIIxxxxII", 0, 0, 1, 0, 65_000) + bytes(1_560_000)),
        (JointState, struct.pack("<iIIxxxxI", 0, 0, 1, 2**31) + bytes(1000)),
        (JointState, struct.pack("<iIIxxxxI", 0, 0, 1, 490_000) + b"\1\0\0\0\0\0\0\0" * 490_000),
        (Image, struct.pack("<iIIxxxxII", 0, 0, 1, 2**31, 2**31) + bytes(100)),
        (Text, struct.pack("<I", 2**32 - 1) + bytes(100)),
        (Text, bytes(40_000_000)),
    ],
)
def test_a_length_that_is_a_lie_costs_no_memory(kind: type[Message], body: bytes) -> None:
    data = b"\0\1\0\0" + body
    decode(Flag, encode(Flag(True)))  # what is loaded once is not counted
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode(kind, data)
        assert tracemalloc.get_traced_memory()[1] < 32_000_000
    finally:
        tracemalloc.stop()


def test_a_large_image_takes_as_much_memory_as_it_has_bytes() -> None:
    image = Image(0, 3000, 3500, "rgb8", bytes(3000 * 3500 * 3))
    data = encode(image)
    tracemalloc.start()
    try:
        assert decode(Image, data) == image
        assert tracemalloc.get_traced_memory()[1] < 1.1 * len(data)
    finally:
        tracemalloc.stop()
