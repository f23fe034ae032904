"""What every task of a robot arm on a table shares: the scene, actions, postures, the hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.task import Quantity, Task, Terms
from embodied.types import ActionSpec, Carry

from .layout import COLUMNS as LAYOUT_COLUMNS
from .layout import Placement, layout
from .robot import Robot
from .scene import OBJECTS, scene
from .vectors import clamp, cross, norm, spread

Array = Any

HOLD_STEPS = 10
"""How long a goal must be held to count: half a second."""
JOINT_STEP_RAD = 0.08
TOOL_STEP_M = 0.03
TURN_STEP_RAD = 0.15
OPENING_STEP_M = 0.02
COLUMNS = 16
"""Random numbers of an episode besides the joints' own."""
ARM = (
    Quantity("gripper.position", "m", "the point midway between the fingertips"),
    Quantity("gripper.approach", "1", "unit vector: where the fingers point"),
    Quantity("gripper.sideways", "1", "unit vector: along which the fingers close"),
    Quantity("gripper.opening", "m", "how far apart the fingers are, 0 when shut"),
    Quantity("arm.joint_angles", "rad", "from the base to the hand"),
    Quantity("arm.joint_velocities", "rad/s", "of the same joints"),
)
"""What reward code may read of any arm."""
GOAL = (Quantity("goal.position", "m", "where it is to be brought: the middle of the green ball"),)
LEAD_RAD, LEAD_M = 0.2, 0.03
"""How far a target may run ahead of what is measured: this bounds contact forces and grip."""


class ArmTask(Task):
    """Base of the tabletop tasks. Actions move the targets of position-controlled joints.

    `joint_delta`: a step of every joint's target (rad) and of the gripper's opening (m).
    `ee_delta`: a step of the tool's target in the table's frame, x, y, z (m) and yaw (rad), and
    of the opening (m); the tool is kept pointing down.

    Every task shows all of `scene.OBJECTS`; it moves those of `movable`.

    Memory: `target` (N, A), `opening` (N,), `tool` (N, 3) and `hand` (N, 3, 3), the pose of the
    tool, `action` as last executed, `goal` (N, 3), `poses` (N, K, 7) of the objects at the start,
    `held` steps of success, `stage`; and of the episode so far, for flawed experts: `best`, the
    furthest stage since the last setback, and `setbacks`, how often all was lost.
    """

    rate_hz = 20.0
    readouts = frozenset({"qpos", "qvel"})
    frame = "x points away from the robot's base, y to its left, z up; the table is at z = 0."
    start_noise_rad = 0.15
    movable: tuple[str, ...] = ()
    """Objects of the scene with all their joints; the others are scenery."""
    sliding: tuple[str, ...] = ()
    """Cubes that only slide and rise, without turning."""
    slow_pace = 0.4
    """Speed of the flaw `slow`, and the share of steps in which `hesitates` moves."""

    def __init__(
        self,
        robot: Robot,
        action: str = "joint_delta",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if action not in ("joint_delta", "ee_delta"):
            raise UserError(f"env.task.action={action}: give joint_delta or ee_delta")
        wrong = sorted(set(weights or {}) - set(self.weights))
        if wrong:
            raise UserError(
                f"env.task.weights.{wrong[0]}: {self.name} has no such reward term "
                f"(it has {', '.join(self.weights)})"
            )
        self.robot, self.action = robot, action
        self.weights = {**self.weights, **{k: float(v) for k, v in (weights or {}).items()}}
        self.cameras = robot.cameras
        self.proprio_size = 3 * len(robot.joints) + 12
        low = sum(min(w, 0.0) for w in self.weights.values())
        self.reward_range = (low, sum(max(w, 0.0) for w in self.weights.values()))

    def model(self) -> ModelSource:
        return self._source

    @cached_property
    def _source(self) -> ModelSource:
        return ModelSource(scene(self.robot, self.movable, self.sliding))

    def bind(self, sim: Sim) -> None:
        xp, robot = sim.xp, self.robot
        dtype = sim.qpos.dtype

        def const(value: Any) -> Array:
            return xp.asarray(np.asarray(value), dtype=dtype, device=sim.device)

        self._const = const
        self._chain = robot.kinematics(xp, sim.device, dtype)
        self._q, self._v = _span(sim, robot.joints)
        self._fingers = _span(sim, robot.fingers)[0]
        names = (*robot.joints, *robot.fingers)
        order = [sim.actuator(name) for name in names]
        if order != list(range(len(names))):
            raise ValueError(f"{robot.name}: actuators must be in the order {names}")
        self._low, self._high = const(robot.joint_range[:, 0]), const(robot.joint_range[:, 1])
        self._home = const(robot.home)
        self._start = const(sim.parameter("qpos0"))
        limit = np.minimum(JOINT_STEP_RAD, np.asarray(robot.velocity_limit) / self.rate_hz)
        self._joint_step = const(limit)
        self._step = const(self.action_spec(sim).high)
        # Scaled so that a sum of squares is a mean: `mean` itself is slow on short rows.
        self._per_step = 0.5 / self._step / self._step.shape[0] ** 0.5
        self._per_speed = const(1.0 / np.asarray(robot.velocity_limit) / len(robot.joints) ** 0.5)
        self._down = const([0.0, 0.0, -1.0])
        self._zero, self._one = const(0.0), const(1.0)
        self._widest = const(robot.max_opening_m)
        self._layout = Placement(sim, const, self.movable, self.sliding)

    def action_spec(self, sim: Sim) -> ActionSpec:
        if self.action == "joint_delta":
            limit = np.minimum(JOINT_STEP_RAD, np.asarray(self.robot.velocity_limit) / self.rate_hz)
            names = (*self.robot.joints, "gripper")
            units = ("rad",) * len(self.robot.joints) + ("m",)
            high = np.append(limit, OPENING_STEP_M).astype(np.float32)
        else:
            names = ("x", "y", "z", "yaw", "gripper")
            units = ("m", "m", "m", "rad", "m")
            steps = [TOOL_STEP_M] * 3 + [TURN_STEP_RAD, OPENING_STEP_M]
            high = np.array(steps, np.float32)
        return ActionSpec(names, units, -high, high, self.action, self.rate_hz)

    def memory(self, sim: Sim) -> Carry:
        xp, n, dev, dtype = sim.xp, sim.num_worlds, sim.device, sim.qpos.dtype

        def zeros(*shape: int) -> Array:
            return xp.zeros((n, *shape), dtype=dtype, device=dev)

        whole = xp.zeros(n, dtype=xp.int64, device=dev)
        return {
            "target": zeros(len(self.robot.joints)),
            "opening": zeros(),
            "tool": zeros(3),
            "hand": zeros(3, 3),
            "action": zeros(self._step.shape[0]),
            "goal": zeros(3),
            "poses": zeros(len(OBJECTS), 7),
            "held": whole,
            "stage": xp.zeros_like(whole),
            "best": xp.zeros_like(whole),
            "setbacks": xp.zeros_like(whole),
        }

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        # One draw for all that differs between episodes: resets of few worlds are all overhead.
        # Numbers hang on their column, so a column added at the end shifts no other.
        xp, dtype = sim.xp, self._home.dtype
        count = len(self.robot.joints)
        unit = xp.astype(draw.uniform("episode", (COLUMNS + count,)), dtype)
        q = self._home + self.start_noise_rad * (2.0 * unit[:, COLUMNS:] - 1.0)
        q = clamp(xp, q, self._low, self._high)
        opening = self.robot.max_opening_m * (0.5 + 0.5 * unit[:, 0])
        qpos = xp.zeros((len(draw), 1), dtype=dtype, device=sim.device) + self._start
        qpos[:, self._q] = q
        qpos[:, self._fingers] = 0.5 * opening[:, None]
        tool, hand = self._chain.fk(q)
        chance = xp.astype(draw.uniform("scene", (LAYOUT_COLUMNS,)), dtype)
        poses = layout(xp, self.robot, chance)
        for name, where in self._layout.free.items():
            qpos[:, where] = poses[name]
        parameters, more = self.place(sim, draw, unit[:, 1:COLUMNS], qpos, poses)
        memory = {
            "target": q,
            "opening": opening,
            "tool": tool,
            "hand": hand,
            "poses": xp.stack([poses[name] for name in OBJECTS], axis=1),
            **more,
        }
        rows = {"qpos": qpos, **self._layout.mocap(xp, poses, more["goal"])}
        return rows, {"geom_size": self._layout.sizes(poses), **parameters}, memory

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        """What else differs between episodes: parameters and memory rows, with a `goal` (n, 3).

        `unit` `(n, 15)` are this episode's numbers in (0, 1), to be used column by column;
        `poses` `(n, 7)` say where all objects stand, and are in `qpos` `(n, nq)` already.
        """
        raise NotImplementedError(f"{type(self).__name__}.place")

    def spot(self, unit: Array) -> list[Array]:
        """A random x, y and z of the workspace, `(n,)` each, from three columns of `unit`."""
        return [spread(unit[:, i], *self.robot.workspace[k]) for i, k in enumerate("xyz")]

    def control(self, sim: Sim, action: Array, memory: Carry) -> tuple[Array, Carry]:
        xp = sim.xp
        q, fingers = sim.qpos[:, self._q], sim.qpos[:, self._fingers]
        action = xp.astype(action, q.dtype)
        if self.action == "joint_delta":
            step = action[:, :-1]
        else:
            step = self._tool_step(xp, memory["target"], action)
        target = clamp(xp, memory["target"] + step, q - LEAD_RAD, q + LEAD_RAD)
        target = clamp(xp, target, self._low, self._high)
        wide = fingers[:, 0] + fingers[:, 1]
        opening = clamp(xp, memory["opening"] + action[:, -1], wide - LEAD_M, wide + LEAD_M)
        opening = clamp(xp, opening, self._zero, self._widest)
        half = 0.5 * opening[:, None]
        control = xp.concat([target, half, half], axis=1)
        return control, {**memory, "target": target, "opening": opening}

    def control_rule(self) -> dict[str, Any]:
        """What `control` does, in words and numbers, for those who apply an exported policy."""
        step = {
            "joint_delta": "target[j] += action[j]",
            "ee_delta": "the targets move the tool by the action in the table's frame, upright",
        }[self.action]
        return {
            "commands": [*self.robot.joints, *self.robot.fingers],
            "begin": "targets and opening begin at what is measured",
            "joints": f"{step}; kept within lead_rad of the measured angle, then low to high",
            "fingers": "opening += action[-1]; kept within lead_m of the measured opening (both "
            "fingers together), then within 0 to max_opening_m; each finger is sent half of it",
            "lead_rad": LEAD_RAD,
            "lead_m": LEAD_M,
            "max_opening_m": self.robot.max_opening_m,
        }

    def _tool_step(self, xp: Any, target: Array, action: Array) -> Array:
        """Joint steps that move the tool's target as an `ee_delta` action says, upright."""
        _, hand = self._chain.fk(target)
        tilt = cross(xp, hand[:, :, 2], self._down + xp.zeros_like(hand[:, :, 2]))
        turn = xp.concat([0.5 * tilt[:, :2], action[:, 3:4]], axis=1)
        return self.joint_step(xp, target, xp.concat([action[:, :3], turn], axis=1))

    def joint_step(self, xp: Any, target: Array, twist: Array) -> Array:
        """Joint steps for a tool's `twist` `(N, 6)`, scaled down to what the joints may do."""
        rest = 0.05 * (self._home - target)
        step = self._chain.resolve(target, twist, rest)
        worst = xp.max(xp.abs(step) / self._joint_step, axis=1)
        return step / xp.maximum(worst, self._one)[:, None]

    def sense(self, sim: Sim, action: Array, memory: Carry) -> Carry:
        """Memory with the pose of the tool after the step."""
        tool, hand = self._chain.fk(sim.qpos[:, self._q])
        return {**memory, "tool": tool, "hand": hand}

    def costs(self, sim: Sim, action: Array, memory: Carry) -> tuple[Terms, Carry]:
        """The terms that keep motion smooth, in [0, 1], and the memory that follows."""
        xp = sim.xp
        action = xp.astype(action, self._step.dtype)
        change = (action - memory["action"]) * self._per_step
        speed = sim.qvel[:, self._v] * self._per_speed
        terms = {
            "action_rate": xp.sum(change * change, axis=1),
            "joint_velocity": xp.minimum(xp.sum(speed * speed, axis=1), self._one),
        }
        return terms, {**memory, "action": action}

    def hold(self, xp: Any, memory: Carry, there: Array) -> Carry:
        """Count the steps in a row for which worlds are `there` `(N,)` bool."""
        return {**memory, "held": xp.where(there, memory["held"] + 1, 0)}

    def success(self, sim: Sim, memory: Carry) -> Array:
        return memory["held"] >= HOLD_STEPS

    def stage(self, memory: Carry) -> Array:
        return memory["stage"]

    def advance(self, xp: Any, memory: Carry, passed: list[Array]) -> Carry:
        """Memory with the stage reached: how many of `passed` `(N,)` bool hold from the first on.

        There is one fewer of them than stages. A setback is to be back in the first stage after
        half of them.
        """
        there, stage = passed[0], xp.astype(passed[0], xp.int64)
        for one in passed[1:]:
            there = there & one
            stage = stage + xp.astype(there, xp.int64)
        best = xp.maximum(memory["best"], stage)
        lost = (stage == 0) & (2 * best >= len(self.stages))
        return {
            **memory,
            "stage": stage,
            "best": xp.where(lost, 0, best),
            "setbacks": memory["setbacks"] + xp.astype(lost, xp.int64),
        }

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        """How much of each stage is done, were it the current one: `(N,)` each."""
        raise NotImplementedError(f"{type(self).__name__}.nearness")

    def progress(self, sim: Sim, memory: Carry) -> Array:
        xp, stage = sim.xp, memory["stage"]
        within = xp.zeros_like(memory["goal"][:, 0])
        for k, share in enumerate(self.nearness(sim, memory)):
            within = xp.where(stage == k, clamp(xp, share, self._zero, self._one), within)
        whole = (xp.astype(stage, within.dtype) + within) / len(self.stages)
        return xp.where(self.success(sim, memory), self._one, whole)

    def held_share(self, xp: Any, memory: Carry) -> Array:
        """How much of the hold is done, `(N,)`: the nearness of a last stage."""
        return xp.astype(memory["held"], self._home.dtype) / HOLD_STEPS

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        """True progress, the stage, the goal and the pose of the tool."""
        xp = sim.xp
        copied = {"stage": "stage", "goal": "goal", "tool_position": "tool"}
        copied["tool_rotation"] = "hand"
        out = {name: xp.asarray(memory[key], copy=True) for name, key in copied.items()}
        return {"progress": self.progress(sim, memory), **out}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp, hand, fingers = sim.xp, memory["hand"], sim.qpos[:, self._fingers]
        copied = {
            "gripper.position": memory["tool"],
            "gripper.approach": hand[:, :, 2],
            "gripper.sideways": hand[:, :, 1],
            "arm.joint_angles": sim.qpos[:, self._q],
            "arm.joint_velocities": sim.qvel[:, self._v],
            "goal.position": memory["goal"],
        }
        values = {name: xp.asarray(value, copy=True) for name, value in copied.items()}
        return {**values, "gripper.opening": fingers[:, 0] + fingers[:, 1]}

    def posture(self, sim: Sim, memory: Carry) -> list[Array]:
        """What the robot feels of itself: angles, speeds, fingers, targets, the tool's pose."""
        q = sim.qpos[:, self._q]
        fingers = sim.qpos[:, self._fingers]
        ahead = memory["opening"] - fingers[:, 0] - fingers[:, 1]
        hand = memory["hand"]
        return [
            q,
            sim.qvel[:, self._v],
            fingers,
            memory["target"] - q,
            ahead[:, None],
            memory["tool"],
            hand[:, :, 1],
            hand[:, :, 2],
        ]

    def pace(self, xp: Any, draw: Draw, flaw: str | None) -> Array:
        """How fast the expert goes, `(N,)`: 1, or less in the flaws `slow` and `hesitates`."""
        unit = xp.astype(draw.uniform("pace"), self._home.dtype)
        pace = xp.ones_like(unit)
        if flaw == "slow":
            return self.slow_pace * pace
        if flaw == "hesitates":
            return xp.where(unit < self.slow_pace, self._one, self._zero)
        return pace

    def act(
        self, sim: Sim, memory: Carry, move: Array, yaw: Array, grip: Array, pace: Array
    ) -> Array:
        """The action that moves the tool by `move` `(N, 3)`, turns it by `yaw` `(N,)`, upright.

        Steps are cut to the speed of the expert times `pace` `(N,)`; `grip` `(N,)` in metres.
        """
        xp = sim.xp
        length = norm(xp, move) + 1e-9
        step = pace * xp.minimum(0.5 * length, 0.8 * TOOL_STEP_M * self._one)
        move = move * (step / length)[:, None]
        limit = 0.8 * TURN_STEP_RAD * self._one
        yaw = pace * clamp(xp, 0.7 * yaw, -limit, limit)
        if self.action == "ee_delta":
            return xp.concat([move, yaw[:, None], grip[:, None]], axis=1)
        step = self._tool_step(xp, memory["target"], xp.concat([move, yaw[:, None]], axis=1))
        return xp.concat([step, grip[:, None]], axis=1)


def _span(sim: Sim, joints: tuple[str, ...]) -> tuple[slice, slice]:
    """Where consecutive joints live in `qpos` and `qvel`."""
    places = [sim.joint(name) for name in joints]
    return (
        slice(places[0][0].start, places[-1][0].stop),
        slice(places[0][1].start, places[-1][1].stop),
    )
