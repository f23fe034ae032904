"""Whether a policy's task and a robot fit each other, and all that does not, in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from embodied.deploy.robot_map import RobotMap
from embodied.errors import UserError

KINDS = ("joint_delta", "ee_delta")
"""Actions that move the targets of position-controlled joints."""


def check_fit(robot: RobotMap, task: Any, sim: Any) -> None:
    """Raise `UserError` with everything that keeps a task from being done with this robot.

    `sim` is any simulator of the task's model.
    """
    if not hasattr(task, "robot"):
        raise UserError(f"{task.name} is no task of a robot arm: there is nothing to deploy it on")
    problems = [*_rates(robot, task, sim), *_joints(robot, task), *_objects(robot, task, sim)]
    if problems:
        raise UserError(f"{robot.name} and {task.name} do not fit: {'; '.join(problems)}")


def start_pose(robot: RobotMap, task: Any) -> list[float]:
    """Where joints `(A,)` go at the end: the map's home, else the model's, fingers open."""
    if robot.home is not None:
        return list(robot.home)
    arm = dict(zip(task.robot.joints, task.robot.home, strict=True))
    fingers = dict.fromkeys(task.robot.fingers, 0.5 * task.robot.max_opening_m)
    return [float({**arm, **fingers}[joint.name]) for joint in robot.joints]


def body_settings(robot: RobotMap, task: Any) -> dict[str, Any]:
    """What the guard's `Body` is made of."""
    return {
        "xml": task.robot.xml,
        "joints": [joint.name for joint in robot.joints],
        "moving": list(task.robot.joints),
        "tool": task.robot.tool,
        "home": start_pose(robot, task),
        "box": robot.workspace,
        "apart_m": robot.safety.apart_m,
        "singular": robot.safety.singular,
    }


def _rates(robot: RobotMap, task: Any, sim: Any) -> list[str]:
    problems = []
    if not math.isclose(robot.rate_hz, task.rate_hz):
        problems.append(f"rate_hz is {robot.rate_hz:g}, the policy acts at {task.rate_hz:g}")
    kind = task.action_spec(sim).kind
    if kind not in KINDS:
        problems.append(f"its actions are {kind}, which is none of {', '.join(KINDS)}")
    return problems


def _joints(robot: RobotMap, task: Any) -> list[str]:
    needed = [*task.robot.joints, *task.robot.fingers]
    mapped = {joint.name: joint for joint in robot.joints}
    problems = [f"joints.{name} is not mapped" for name in needed if name not in mapped]
    extra = sorted(set(mapped) - set(needed))
    problems += [f"joints.{name}: {task.robot.name} has no such joint" for name in extra]
    spans = dict(zip(task.robot.joints, np.asarray(task.robot.joint_range), strict=True))
    for name, (low, high) in spans.items():
        joint = mapped.get(name)
        if joint is not None and not (low - 1e-6 <= joint.low and joint.high <= high + 1e-6):
            span = f"[{joint.low:g}, {joint.high:g}]"
            problems.append(f"joints.{name}.position {span} leaves [{low:g}, {high:g}]")
    return problems


def _objects(robot: RobotMap, task: Any, sim: Any) -> list[str]:
    problems = []
    for name in task.tracked:
        try:
            place, _ = sim.joint(name)
            free = place.stop - place.start == 7
        except UserError:
            free = False
        if not free:
            problems.append(f"the policy sees where {name} is, which a tracker cannot say yet")
            continue
        if name not in robot.objects:
            problems.append(f"objects.{name} is not given: the policy sees where it is")
    return problems
