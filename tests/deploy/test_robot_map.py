from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.deploy.deploy import ROBOTS
from embodied.deploy.messages import Floats, JointState, JointTrajectory, Malformed
from embodied.deploy.robot_map import UNITS, load_robot_map, robot_map
from embodied.errors import UserError
from tests.deploy.arms import plain, robot

LIMITS = {"position": [-3.0, 3.0], "velocity": 2.0, "acceleration": 10.0}


def state(names: tuple[str, ...] = ("right", "left"), **fields: Any) -> JointState:
    return JointState(**{"stamp_ns": 1, "names": names, "position": (0.2, 0.1), **fields})


def test_joints_are_found_by_name_and_never_by_order() -> None:
    position, velocity = robot().read(state(velocity=(2.0, 1.0)))
    assert position == [0.1, 0.2] and velocity == [1.0, 2.0]
    position, _ = robot().read(state(("left", "spare", "right"), position=(0.1, 9.0, 0.2)))
    assert position == [0.1, 0.2]


def test_units_signs_scales_and_offsets_as_by_hand() -> None:
    a = {"name": "left", "unit": "deg", "sign": -1, "scale": 2, "offset": 0.5, **LIMITS}
    mapped = robot(joints={"a": a, "b": {"name": "right", "unit": "mm", **LIMITS}})
    position, velocity = mapped.read(state(position=(30.0, 45.0), velocity=(10.0, 90.0)))
    assert position == pytest.approx([-2 * math.pi / 4 + 0.5, 0.03])
    assert velocity == pytest.approx([-math.pi, 0.01])
    told = mapped.command([-2 * math.pi / 4 + 0.5, 0.03], [0.0, 0.0], 0)
    assert isinstance(told, Floats) and told.data == pytest.approx((45.0, 30.0))


@given(
    st.sampled_from(sorted(UNITS)), st.sampled_from([-1, 1]), st.floats(0.01, 100.0),
    st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.sampled_from(["floats", "trajectory"]),
)  # fmt: skip
def test_what_is_commanded_is_read_back(
    unit: str, sign: int, scale: float, offset: float, value: float, kind: str
) -> None:
    a = {"name": "left", "unit": unit, "sign": sign, "scale": scale, "offset": offset, **LIMITS}
    command = {"topic": "/c", "kind": kind, "joints": ["right", "left"]}
    mapped = robot(joints={"a": a, "b": {"name": "right", **LIMITS}}, command=command)
    told = mapped.told(mapped.command([value, 0.25], [0.0, 0.0], 7))
    assert told == pytest.approx({"a": value, "b": 0.25}, abs=1e-9)


def test_a_trajectory_says_where_to_be_a_tick_later_and_how_fast() -> None:
    mapped = robot(command={"topic": "/c", "kind": "trajectory"})
    told = mapped.command([0.1, 0.2], [1.0, 2.0], 7)
    assert isinstance(told, JointTrajectory)
    assert told.names == ("left", "right") and told.stamp_ns == 7
    assert told.points[0].position == (0.1, 0.2) and told.points[0].velocity == (1.0, 2.0)
    assert told.points[0].after_ns == 5_000_000


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (state(("left",), position=(0.1,)), "right is missing"),
        (state(("left", "left"), position=(0.1, 0.2)), "twice"),
        (state(position=()), "missing"),
        (state(position=(0.1, math.nan)), "not finite"),
        (state(velocity=(math.inf, 0.0)), "not finite"),
    ],
)
def test_a_state_that_cannot_be_read_says_why(message: JointState, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        robot().read(message)


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = plain(rate_hz="fast", guardhz=200, workspace={"x": [1, 0], "y": [0, 1], "z": [0, 1]})
    wrong["joints"]["a"] |= {"unit": "inch", "sign": 2}
    wrong["joints"]["b"] |= {"name": "left", "velocity": -1}
    del wrong["command"]["topic"]
    with pytest.raises(UserError) as error:
        robot_map(wrong, "mine.yaml")
    text = str(error.value)
    assert text.startswith("mine.yaml: ") and "\n" not in text
    for part in (
        "rate_hz: give a number", "guardhz: unknown (did you mean guard_hz?)", "workspace.x: give",
        "joints.a.unit: 'inch' is none of rad", "joints.a.sign: 2: give 1 or -1",
        "joints: left is mapped twice", "joints.b.velocity: -1: give a number", "command.topic: is",
    ):  # fmt: skip
        assert part in text, part


def test_every_joint_is_commanded_and_no_other() -> None:
    with pytest.raises(UserError, match="all joints that are mapped: right"):
        robot(command={"topic": "/c", "joints": ["left"]})
    with pytest.raises(UserError, match="all joints that are mapped: spare"):
        robot(command={"topic": "/c", "joints": ["left", "right", "spare"]})


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: ${oc.env:HOME}", "x: !!python/name:os"])
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="robot.yaml"):
        load_robot_map(path)
    with pytest.raises(UserError, match="No such file"):
        load_robot_map(tmp_path / "other.yaml")


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_maps_that_ship_can_be_read(path: Path) -> None:
    assert len(load_robot_map(path).joints) == 9
