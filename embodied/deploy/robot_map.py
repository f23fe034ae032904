"""`robot.yaml`: what a robot's topics carry, in plain words, and how it is to be kept safe.

Joints are mapped by name, never by order; a number of theirs becomes ours as

    ours = sign * scale * UNITS[unit] * theirs + offset

in rad or m. Everything here is data: nothing is imported and nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embodied.deploy.fields import Fields
from embodied.deploy.messages import Floats, JointState, JointTrajectory, Malformed, Message
from embodied.deploy.messages import TrajectoryPoint as Point
from embodied.errors import UserError

UNITS = {"rad": 1.0, "deg": math.pi / 180.0, "turn": 2.0 * math.pi, "m": 1.0, "mm": 1e-3}
IMAGES = ("compressed", "image")
COMMANDS = {"floats": Floats, "trajectory": JointTrajectory}


@dataclass(frozen=True)
class Joint:
    """One joint: `name` is ours, `theirs` the robot's; limits in our units and directions."""

    name: str
    theirs: str
    factor: float
    offset: float
    low: float
    high: float
    velocity: float
    acceleration: float

    def ours(self, value: float) -> float:
        return self.factor * value + self.offset

    def to_theirs(self, value: float) -> float:
        return (value - self.offset) / self.factor


@dataclass(frozen=True)
class Watchdog:
    """How long things may take, in seconds of a clock that never jumps.

    Observations older than `observation_s`, or actions that come later than `action_s` after the
    last: the robot is held. If that lasts for `patience_s`, it stays so until it is armed again.
    Where objects are tracked and no image came for `image_s`, no action is asked for either.
    """

    observation_s: float = 0.05
    action_s: float = 0.08
    patience_s: float = 0.5
    image_s: float = 0.5


@dataclass(frozen=True)
class Safety:
    """What the guard keeps to beside the limits of joints.

    `stop_s`: how long a stop may take. `blend_s`: how long after arming until full speed.
    `step`: how far a single action may reach, as a share of what the joints' speeds allow in that
    time. `apart_m`: how near parts of the robot may come to each other. `singular`: the smallest
    singular value that the tool's Jacobian may have. `approach`: the share by which a margin may
    shrink in a tick of the guard. `tracking`: how far the robot may be from what it was told (rad
    or m). `jump`: how much faster than its limit a joint may seem to move.
    """

    stop_s: float = 0.08
    blend_s: float = 1.0
    step: float = 1.0
    apart_m: float = 0.01
    singular: float = 0.02
    approach: float = 0.1
    tracking: float = 0.3
    jump: float = 2.0


@dataclass(frozen=True)
class RobotMap:
    """A robot as its `robot.yaml` has it."""

    name: str
    rate_hz: float
    guard_hz: float
    joints: tuple[Joint, ...]
    state_topic: str
    state_hz: float
    command_topic: str
    command_kind: str
    command_order: tuple[str, ...]
    stop_topic: str
    arm_topic: str
    status_topic: str
    workspace: tuple[tuple[float, float], ...] | None
    home: tuple[float, ...] | None
    watchdog: Watchdog
    safety: Safety
    tracker: Mapping[str, Any]
    """Of objects, by their markers: `topic` and `kind` of the images, and what `MarkerTracker`
    takes. Empty where there is none."""
    plain: Mapping[str, Any]
    """What the file says, for other processes to read it again."""

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects that are tracked."""
        return tuple(self.tracker.get("objects", ()))

    def read(self, state: JointState) -> tuple[list[float], list[float]]:
        """Our joints' positions and speeds. Raises `Malformed` where one is missing or is there
        twice, or a number is none."""
        where = {name: i for i, name in enumerate(state.names)}
        if len(where) < len(state.names):
            raise Malformed("a joint is there twice")
        position, velocity = [], []
        for joint in self.joints:
            i = where.get(joint.theirs)
            if i is None or not state.position:
                raise Malformed(f"{joint.theirs} is missing")
            position.append(joint.ours(state.position[i]))
            velocity.append(joint.factor * state.velocity[i] if state.velocity else 0.0)
        if not all(map(math.isfinite, (*position, *velocity))):
            raise Malformed("a number is not finite")
        return position, velocity

    def command(self, position: list[float], velocity: list[float], stamp_ns: int) -> Message:
        """What tells the robot to be at our `position`, moving at `velocity`."""
        theirs = {j.theirs: j.to_theirs(x) for j, x in zip(self.joints, position, strict=True)}
        row = tuple(theirs[name] for name in self.command_order)
        if self.command_kind == "floats":
            return Floats(row)
        speeds = {j.theirs: v / j.factor for j, v in zip(self.joints, velocity, strict=True)}
        moving = tuple(speeds[name] for name in self.command_order)
        after = round(1e9 / self.guard_hz)
        return JointTrajectory(stamp_ns, self.command_order, (Point(row, moving, after),))

    def told(self, message: Message) -> dict[str, float]:
        """Our joints' positions by name in a command: what `command` says, read back."""
        if isinstance(message, JointTrajectory):
            row = dict(zip(message.names, message.points[-1].position, strict=True))
        elif isinstance(message, Floats) and len(message.data) == len(self.command_order):
            row = dict(zip(self.command_order, message.data, strict=True))
        else:
            raise Malformed(f"a command of kind {type(message).__name__}, or of other joints")
        return {j.name: j.ours(row[j.theirs]) for j in self.joints if j.theirs in row}


def load_robot_map(path: Path | str) -> RobotMap:
    """Read a `robot.yaml`. Raises `UserError` that lists everything that is wrong with it."""
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:200]}") from error
    except Exception as error:  # what PyYAML raises is no common kind that it documents
        if not type(error).__module__.startswith("yaml"):
            raise
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}") from error
    return robot_map(plain, str(path))


def robot_map(plain: Any, where: str = "robot.yaml") -> RobotMap:
    """A map from plain data. Raises `UserError` that lists everything that is wrong with it."""
    top = Fields(plain)
    state, command = top.section("state"), top.section("command")
    rate_hz = top.number("rate_hz", low=0.1, high=1000.0)
    joints = tuple(_joint(name, part) for name, part in top.sections("joints").items())
    theirs = [joint.theirs for joint in joints]
    for name in sorted({name for name in theirs if theirs.count(name) > 1}):
        top.wrong("joints", f"{name} is mapped twice")
    result = RobotMap(
        name=top.text("name", "robot"),
        rate_hz=rate_hz,
        guard_hz=top.number("guard_hz", 200.0, low=rate_hz, high=2000.0),
        joints=joints,
        state_topic=state.text("topic", "/joint_states"),
        state_hz=state.number("rate_hz", 200.0, low=1.0, high=10_000.0),
        command_topic=command.text("topic"),
        command_kind=command.choice("kind", COMMANDS, "floats"),
        command_order=command.texts("joints", theirs),
        stop_topic=top.text("stop_topic", "/stop"),
        arm_topic=top.text("arm_topic", "/arm"),
        status_topic=top.text("status_topic", "/status"),
        workspace=_workspace(top),
        home=_home(top, joints),
        watchdog=Watchdog(**top.section("watchdog", {}).numbers(Watchdog)),
        safety=Safety(**top.section("safety", {}).numbers(Safety)),
        tracker=_tracker(top),
        plain=top.node,
    )
    if sorted(result.command_order) != sorted(theirs):
        odd = sorted(set(result.command_order) ^ set(theirs)) or ["one is there twice"]
        command.wrong("joints", f"must be all joints that are mapped: {', '.join(odd)}")
    top.done(where)
    return result


def _joint(name: str, part: Fields) -> Joint:
    sign = part.number("sign", 1.0)
    if sign not in (1.0, -1.0):
        part.wrong("sign", f"{sign:g}: give 1 or -1")
    scale = part.number("scale", 1.0, low=1e-6, high=1e6)
    low, high = part.span("position")
    return Joint(
        name,
        part.text("name", name),
        sign * scale * UNITS[part.choice("unit", UNITS, "rad")],
        part.number("offset", 0.0),
        low,
        high,
        part.number("velocity", low=1e-3, high=100.0),
        part.number("acceleration", low=1e-2, high=10_000.0),
    )


def _workspace(top: Fields) -> tuple[tuple[float, float], ...] | None:
    if not top.has("workspace"):
        top.asked.add("workspace")
        return None
    box = top.section("workspace")
    return tuple(box.span(axis) for axis in "xyz")


def _home(top: Fields, joints: tuple[Joint, ...]) -> tuple[float, ...] | None:
    """Where each joint is at home, None where that is not said."""
    if not top.has("home"):
        top.asked.add("home")
        return None
    home = top.section("home")
    row = tuple(home.number(joint.name, low=joint.low, high=joint.high) for joint in joints)
    return row


def _tracker(top: Fields) -> Mapping[str, Any]:
    """The tracker's section; what a `MarkerTracker` takes is checked by making one."""
    if not top.has("tracker"):
        top.asked.add("tracker")
        return {}
    part = top.section("tracker")
    part.text("topic")
    part.choice("kind", IMAGES, "compressed")
    part.section("camera").asked.update(part.node.get("camera") or ())
    part.section("objects").asked.update(part.node.get("objects") or ())
    part.asked |= {"dictionary", "limits"}
    return part.node
