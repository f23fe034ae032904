"""What is in a record of a deployment: steps of the policy, joints over time, events."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.deploy.bag import Bag
from embodied.deploy.messages import Floats, JointState, Malformed, Message, Text
from embodied.deploy.recorder import ABOUT, ACTION, ASKED, CLAMPED, EVENT, OBSERVATION, START
from embodied.deploy.robot_map import RobotMap, robot_map
from embodied.errors import UserError

SENT, MEASURED = "sent", "measured"
CURVES = {ASKED: "asked", CLAMPED: "clamped"}
AT_ONCE_NS = 500_000
"""Messages this near to each other are of one moment, whatever their order."""


@dataclass
class Step:
    """One observation of the policy, and what it answered where that was recorded."""

    time_ns: int
    observation: tuple[float, ...]
    first: bool
    episode: int
    action: tuple[float, ...] | None = None
    acted_ns: int = 0
    seen_ns: int | None = None
    """When what the policy saw had come, where that is told."""


@dataclass(frozen=True)
class Event:
    time_ns: int
    kind: str
    what: str


class Curve:
    """All joints over time, NaN where nothing is said of one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._times, self._values, self._speeds = array("q"), array("d"), array("d")

    def add(self, time_ns: int, row: Mapping[str, float], speed: Mapping[str, float]) -> None:
        self._times.append(time_ns)
        self._values.extend(row.get(name, np.nan) for name in self.names)
        self._speeds.extend(speed.get(name, np.nan) for name in self.names)

    @property
    def times_ns(self) -> np.ndarray:
        """`(T,)`"""
        return np.frombuffer(self._times, np.int64)

    @property
    def values(self) -> np.ndarray:
        """`(T, J)`"""
        return np.frombuffer(self._values).reshape(len(self._times), len(self.names))

    @property
    def speeds(self) -> np.ndarray:
        """`(T, J)`"""
        return np.frombuffer(self._speeds).reshape(len(self._times), len(self.names))


@dataclass
class Record:
    """A record in memory, without its images."""

    about: dict[str, Any]
    robot: RobotMap | None
    joints: tuple[str, ...]
    steps: list[Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    """asked, clamped, sent, measured, as far as they are there."""
    odd: int = 0
    """Messages that are not what their topic says, left out."""

    @property
    def span_ns(self) -> tuple[int, int]:
        """From the first to the last of steps and curves."""
        times = [self.steps[0].time_ns, self.steps[-1].time_ns]
        for curve in self.curves.values():
            times += curve.times_ns[[0, -1]].tolist()
        return min(times), max(times)


def read_record(bag: Bag) -> Record:
    """The record in a bag. Raises `UserError` where it holds no policy's observations."""
    if OBSERVATION not in bag.topics:
        raise UserError(f"{bag.path} holds nothing that a policy saw: it has no {OBSERVATION}")
    about = _about(bag)
    robot = None
    if "robot_map" in about:
        robot = robot_map(about["robot_map"], f"{bag.path}, robot_map")
    record = Record(about, robot, _joints(bag, robot))
    topics = [OBSERVATION, ACTION, EVENT, *CURVES]
    if robot is not None:
        topics += [robot.state_topic, robot.command_topic]
    told = _Told([], [], {})
    for topic, message, time_ns in bag.messages(*topics):
        try:
            _take(record, told, topic, message, time_ns)
        except (Malformed, ValueError, IndexError):
            record.odd += 1
    if not record.steps:
        raise UserError(f"{bag.path} holds nothing that a policy saw")
    _pair(record, told)
    return record


@dataclass
class _Told:
    """What is about steps, not yet put together: by time, what was answered, what came when."""

    starts: list[int]
    actions: list[tuple[int, tuple[float, ...]]]
    came: dict[int, int]


def _about(bag: Bag) -> dict[str, Any]:
    for _, message, _ in bag.messages(ABOUT):
        try:
            about = json.loads(message.data) if isinstance(message, Text) else None
        except (ValueError, RecursionError):
            about = None
        if not isinstance(about, dict):
            raise UserError(f"{bag.path}: what it says of itself ({ABOUT}) is no JSON object")
        return about
    return {}


def _joints(bag: Bag, robot: RobotMap | None) -> tuple[str, ...]:
    if robot is not None:
        return tuple(joint.name for joint in robot.joints)
    for _, message, _ in bag.messages(*CURVES):
        if isinstance(message, JointState):
            return message.names
    return ()


def _take(record: Record, told: _Told, topic: str, message: Message, time_ns: int) -> None:
    """Add a message. Raises `Malformed` or `ValueError` for what is not what its topic says."""
    robot = record.robot
    if topic == OBSERVATION and isinstance(message, Floats):
        record.steps.append(Step(time_ns, message.data, False, 0))
    elif topic == ACTION and isinstance(message, Floats):
        told.actions.append((time_ns, message.data))
    elif topic == EVENT and isinstance(message, Text):
        event = json.loads(message.data)
        if not isinstance(event, dict):
            raise Malformed("an event that is none")
        kind, what = (plain(event.get(key), 200) for key in ("kind", "what"))
        record.events.append(Event(time_ns, kind, what))
        if kind == START:
            told.starts.append(time_ns)
    elif topic in CURVES and isinstance(message, JointState):
        position = dict(zip(message.names, message.position, strict=True))
        speed = dict(zip(message.names, message.velocity, strict=False))
        _curve(record, CURVES[topic]).add(time_ns, position, speed)
        if topic == ASKED:
            told.came[time_ns] = message.stamp_ns
    elif robot is not None and topic == robot.command_topic:
        row = robot.told(message)
        row = {name: x if math.isfinite(x) else math.inf for name, x in row.items()}
        _curve(record, SENT).add(time_ns, row, {})
    elif robot is not None and topic == robot.state_topic and isinstance(message, JointState):
        rows = robot.read(message)
        position, speed = (dict(zip(record.joints, part, strict=True)) for part in rows)
        _curve(record, MEASURED).add(time_ns, position, speed)
    else:
        raise Malformed(f"a {type(message).__name__} on {topic}")


def _pair(record: Record, told: _Told) -> None:
    """Give every observation its episode, its answer, and when what it shows had come."""
    times = np.array([step.time_ns for step in record.steps], np.int64)
    starts = set(np.searchsorted(times, told.starts).tolist())
    for i, step in enumerate(record.steps):
        step.first = i == 0 or i in starts
        step.episode = step.first + (record.steps[i - 1].episode if i else 0)
    came = np.array(sorted(told.came), np.int64)
    for time_ns, action in told.actions:
        i = int(np.searchsorted(times, time_ns + AT_ONCE_NS, "right")) - 1
        if i < 0 or record.steps[i].action is not None:
            record.odd += 1  # of an observation that is not there
            continue
        step = record.steps[i]
        step.action, step.acted_ns = action, time_ns
        j = int(np.searchsorted(came, time_ns - AT_ONCE_NS))
        if j < len(came) and came[j] <= time_ns + AT_ONCE_NS:
            step.seen_ns = told.came[int(came[j])]


def plain(value: Any, most: int) -> str:
    """What a record says, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:most])


def _curve(record: Record, name: str) -> Curve:
    return record.curves.setdefault(name, Curve(record.joints))
