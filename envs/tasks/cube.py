"""What the tasks with a cube share: the cube, its randomisation, its tracked pose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from embodied.random import Draw
from embodied.sim import Sim
from embodied.types import Carry, Obs

from .arm import ArmTask
from .tracker import keep_tracking, start_tracking
from .vectors import spread

Array = Any

HALF_M = (0.018, 0.026)
MASS_KG = (0.05, 0.15)
FRICTION = (0.6, 1.1)


class CubeTask(ArmTask):
    """A cube on the table, of any size, mass, friction, place and yaw within ranges.

    Memory: the cube's `half` size (N,), and its `tracked` pose (N, 7): observations see only that,
    rewards see the truth.
    """

    keypoints = ("tool", "cube", "goal")
    # The largest size, so that bounding volumes made from it hold every smaller cube.
    scene = f"""<mujoco><worldbody><body name="cube" pos="0.5 0 {HALF_M[1]}">
      <freejoint name="cube"/>
      <geom name="cube" type="box" size="{HALF_M[1]} {HALF_M[1]} {HALF_M[1]}" mass="0.1"
        rgba="0.85 0.22 0.18 1" contype="1" conaffinity="3" friction="0.8 0.005 0.0001"/>
      </body></worldbody></mujoco>"""

    def bind(self, sim: Sim) -> None:
        super().bind(sim)
        self._cube, self._cube_v = sim.joint("cube")
        geom, body = sim.geom("cube"), sim.body("cube")
        self._nominal = {}
        for name, index in (
            ("geom_size", geom),
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

        def zeros(*shape: int, kind: Any = dtype) -> Array:
            return xp.zeros((n, *shape), dtype=kind, device=dev)

        return {
            **super().memory(sim),
            "half": zeros(),
            "track_key": zeros(kind=xp.int64),
            "track_delayed": zeros(kind=xp.bool),
            "track_noise": zeros(8),
            "track_last": zeros(7),
            "tracked": zeros(7),
        }

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array
    ) -> tuple[dict[str, Array], Carry]:
        xp = sim.xp
        x, y, _ = self.spot(unit)
        yaw = spread(unit[:, 3], -0.5 * math.pi, 0.5 * math.pi)  # half the angle
        half = spread(unit[:, 4], *HALF_M)
        mass = spread(unit[:, 5], *MASS_KG)
        friction = spread(unit[:, 6], *FRICTION)
        flat = xp.zeros_like(half)
        pose = xp.stack([x, y, half, xp.cos(yaw), flat, flat, xp.sin(yaw)], axis=1)
        qpos[:, self._cube] = pose
        values = {
            "geom_size": half[:, None, None],
            "geom_friction": friction[:, None, None],
            "body_mass": mass[:, None],
            "body_inertia": (2.0 / 3.0 * mass * half * half)[:, None, None],
        }
        parameters = {k: rest + mask * values[k] for k, (rest, mask) in self._nominal.items()}
        memory = start_tracking(xp, draw, unit[:, 7:10], pose)
        goal = self.goal(xp, unit[:, 10:13], pose)
        return parameters, {**memory, "half": half, "goal": goal}

    def goal(self, xp: Any, unit: Array, pose: Array) -> Array:
        """Where the centre of a cube at `pose` must go, `(n, 3)`, from three random numbers."""
        raise NotImplementedError(f"{type(self).__name__}.goal")

    def sense(self, sim: Sim, action: Array, memory: Carry) -> Carry:
        xp = sim.xp
        memory = super().sense(sim, action, memory)
        pose = xp.asarray(sim.qpos[:, self._cube], copy=True)
        return {**memory, **keep_tracking(xp, memory, pose)}

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp, seen = sim.xp, memory["tracked"]
        offset = seen[:, :3] - memory["tool"]
        cos, sin = quarter_turn(xp, memory["hand"], seen[:, 3:])
        parts = [
            *self.posture(sim, memory),
            offset,
            in_hand(xp, memory["hand"], offset),
            seen[:, 2:3],
            xp.stack([cos, sin], axis=1),
            memory["goal"] - seen[:, :3],
        ]
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        cube = sim.qpos[:, self._cube][:, :3]
        return sim.xp.stack([memory["tool"], cube, memory["goal"]], axis=1)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp = sim.xp
        fingers = sim.qpos[:, self._fingers]
        return {
            "cube_pose": xp.asarray(sim.qpos[:, self._cube], copy=True),
            "cube_velocity": xp.asarray(sim.qvel[:, self._cube_v], copy=True),
            "cube_half_size": xp.asarray(memory["half"], copy=True),
            "goal": xp.asarray(memory["goal"], copy=True),
            "tool_position": xp.asarray(memory["tool"], copy=True),
            "tool_rotation": xp.asarray(memory["hand"], copy=True),
            "opening": fingers[:, 0] + fingers[:, 1],
        }


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
