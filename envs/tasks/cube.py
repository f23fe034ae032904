"""What the tasks with a cube share: the cube, its randomisation, its tracked pose."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Quantity
from embodied.types import Carry, Obs

from .arm import ARM, ArmTask
from .tracker import keep_tracking, no_tracking, start_tracking
from .vectors import clamp, norm, spread

Array = Any

MASS_KG = (0.05, 0.15)
FRICTION = (0.6, 1.1)
CUBE = (
    Quantity("red_cube.position", "m", "the cube's middle"),
    Quantity("red_cube.half_size", "m", "half of an edge: its height when it lies on the table"),
    Quantity("red_cube.velocity", "m/s", "of its middle", real=False),
)
"""What reward code may read of the cube."""


class CubeTask(ArmTask):
    """A cube on the table, of any size, mass, friction, place and yaw within ranges.

    Memory: the cube's `half` size (N,), and its `tracked` pose (N, 7): observations see only that,
    rewards see the truth.
    """

    keypoints: tuple[str, ...] = ("tool", "cube", "goal")
    movable: tuple[str, ...] = ("cube",)
    tracked: tuple[str, ...] = ("cube",)
    quantities: tuple[Quantity, ...] = (*ARM, *CUBE)

    def bind(self, sim: Sim) -> None:
        super().bind(sim)
        self._cube, self._cube_v = sim.joint("cube")
        geom, body = sim.geom("cube"), sim.body("cube")
        self._nominal = {}
        for name, index in (
            ("geom_friction", geom),
            ("body_mass", body),
            ("body_inertia", body),
        ):
            value = sim.parameter(name)
            mask = np.zeros(value.shape)
            mask[index] = 1.0
            if name == "geom_friction":
                mask[:, 1:] = 0.0
            rest = (value * (1.0 - mask))[None]  # numpy still
            self._nominal[name] = self._const(rest), self._const(mask[None])

    def memory(self, sim: Sim) -> Carry:
        xp, n, dev, dtype = sim.xp, sim.num_worlds, sim.device, sim.qpos.dtype

        half = xp.zeros(n, dtype=dtype, device=dev)
        return {**super().memory(sim), "half": half, **no_tracking(sim)}

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        xp, pose = sim.xp, poses["cube"]
        half = pose[:, 2]
        mass, friction = spread(unit[:, 0], *MASS_KG), spread(unit[:, 1], *FRICTION)
        values = {
            "geom_friction": friction[:, None, None],
            "body_mass": mass[:, None],
            "body_inertia": (2.0 / 3.0 * mass * half * half)[:, None, None],
        }
        parameters = {k: rest + mask * values[k] for k, (rest, mask) in self._nominal.items()}
        memory = start_tracking(sim, draw, unit[:, 2:5], pose)
        goal = self.goal(xp, unit[:, 5:8], poses)
        return parameters, {**memory, "half": half, "goal": goal}

    def goal(self, xp: Any, unit: Array, poses: dict[str, Array]) -> Array:
        """Where the centre of the cube must go, `(n, 3)`, from three random numbers."""
        raise NotImplementedError(f"{type(self).__name__}.goal")

    def sense(self, sim: Sim, action: Array, memory: Carry) -> Carry:
        xp = sim.xp
        memory = super().sense(sim, action, memory)
        pose = xp.asarray(sim.qpos[:, self._cube], copy=True)
        return {**memory, **keep_tracking(xp, memory, pose)}

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp, seen = sim.xp, memory["tracked"]
        parts = [*self.posture(sim, memory), *self.seen(xp, memory, seen)]
        parts.append(memory["goal"] - seen[:, :3])
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def seen(self, xp: Any, memory: Carry, pose: Array) -> list[Array]:
        """How a cube at a tracked `pose` `(N, 7)` lies to the hand, and its height."""
        offset = pose[:, :3] - memory["tool"]
        turn = xp.stack(quarter_turn(xp, memory["hand"], pose[:, 3:]), axis=1)
        return [offset, in_hand(xp, memory["hand"], offset), pose[:, 2:3], turn]

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        cube = sim.qpos[:, self._cube][:, :3]
        return sim.xp.stack([memory["tool"], cube, memory["goal"]], axis=1)

    def wide(self, sim: Sim) -> Array:
        """How far apart the fingers are, `(N,)` in metres."""
        fingers = sim.qpos[:, self._fingers]
        return fingers[:, 0] + fingers[:, 1]

    def closed(self, sim: Sim, thickness: Array) -> Array:
        """How far the fingers have closed on something of `thickness` `(N,)`, in [0, 1]."""
        share = (self._widest - self.wide(sim)) / (self._widest - thickness)
        return clamp(sim.xp, share, self._zero, self._one)

    def fetch(
        self, sim: Sim, memory: Carry, pose: Array, half: Array, aim: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Grasp the cube at `pose` `(N, 7)`, of `half` size `(N,)`, and bring its middle to `aim`.

        The tool's move `(N, 3)`, its turn and the fingers' step `(N,)`, for `act`; and whether the
        cube is in the hand.
        """
        xp, hand = sim.xp, memory["hand"]
        offset = pose[:, :3] - memory["tool"]
        turn = nearest_turn(xp, hand, pose[:, 3:])
        aside = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        aligned = (aside < 0.01) & (xp.abs(turn) < 0.08)
        inside = (aside < 0.012) & (xp.abs(offset[:, 2]) < 0.01)
        pressed = self.pressed(sim, memory, half)
        gripped = pressed & (norm(xp, in_hand(xp, hand, offset)) < 0.03)
        above = 0.08 * xp.where(aligned, self._zero, self._one)
        approach = offset + xp.stack([0.0 * above, 0.0 * above, above], axis=1)
        move = xp.where(gripped[:, None], aim - pose[:, :3], approach)
        turn = xp.where(gripped, self._zero, turn)
        grip = self._step[-1] * xp.where(inside | gripped, -self._one, self._one)
        return move, turn, grip, gripped

    def pressed(self, sim: Sim, memory: Carry, half: Array) -> Array:
        """Whether the fingers press on something of a cube's size, `(N,)` bool."""
        wide = self.wide(sim)
        return (memory["opening"] < wide - 0.01) & (wide < 2.0 * half + 0.01)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp = sim.xp
        return {
            **super().readout(sim, memory),
            "cube_pose": xp.asarray(sim.qpos[:, self._cube], copy=True),
            "cube_velocity": xp.asarray(sim.qvel[:, self._cube_v], copy=True),
            "cube_half_size": xp.asarray(memory["half"], copy=True),
            "opening": self.wide(sim),
        }

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        copied = {
            "red_cube.position": memory["track_last"][:, :3],
            "red_cube.half_size": memory["half"],
            "red_cube.velocity": sim.qvel[:, self._cube_v][:, :3],
        }
        values = {name: sim.xp.asarray(value, copy=True) for name, value in copied.items()}
        return {**super().world(sim, memory), **values}


def in_hand(xp: Any, hand: Array, vector: Array) -> Array:
    """Rows `(N, 3)` in the axes of the hand `(N, 3, 3)`."""
    return xp.sum(hand * vector[:, :, None], axis=1)


def quarter_turn(xp: Any, hand: Array, quat: Array) -> tuple[Array, Array]:
    """How the fingers' axis lies to a cube about the vertical: all that matters of its yaw.

    Cosine and sine `(N,)` of four times the angle from the cube's x axis to the fingers' axis.
    """
    w, x, y, z = quat[:, 0], quat[:, 1], quat[:, 2], quat[:, 3]
    a, b = w * w + x * x - y * y - z * z, 2.0 * (w * z + x * y)
    c, d = hand[:, 0, 1], hand[:, 1, 1]
    cos, sin = c * a + d * b, d * a - c * b
    for _ in range(2):
        cos, sin = cos * cos - sin * sin, 2.0 * cos * sin
    length = xp.sqrt(cos * cos + sin * sin) + 1e-9
    return cos / length, sin / length


def nearest_turn(xp: Any, hand: Array, quat: Array) -> Array:
    """The smallest turn of the hand that lays the fingers along a cube's side, `(N,)` in rad."""
    cos, sin = quarter_turn(xp, hand, quat)
    return -xp.atan2(sin, cos) / 4.0
