"""What reward code may read of a walking body: of one in a plane, and of one that is free."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Quantity

Array = Any

JOINTS = (
    Quantity("joints.angles", "rad", "one for each actuated joint, in the order of the action"),
    Quantity("joints.velocities", "rad/s", "of the same joints"),
)
PLANAR = (
    Quantity("torso.x", "m", "how far forward the torso is", real=False),
    Quantity("torso.height", "m", "of the torso's origin above the ground"),
    Quantity("torso.pitch", "rad", "of the torso: 0 is as it starts, positive leans forward"),
    Quantity("torso.velocity", "m/s", "of the torso: forward, and up"),
    Quantity("torso.pitch_rate", "rad/s", "positive tips forward"),
    *JOINTS,
)
FREE = (
    Quantity("torso.position", "m", "x forward, y left, z up from the ground", real=False),
    Quantity("torso.up", "1", "unit vector of the torso's own z axis, (0, 0, 1) upright"),
    Quantity("torso.forward", "1", "unit vector of the torso's own x axis"),
    Quantity("torso.velocity", "m/s", "along x, y and z of the ground"),
    Quantity("torso.angular_velocity", "rad/s", "about the torso's own x, y and z axes"),
    *JOINTS,
)


def planar(sim: Sim, ground: float) -> dict[str, Array]:
    """`PLANAR` of a body whose first joints slide along x and z and turn about y.

    `ground` is the height at which the sliding joint is 0.
    """
    q, v = sim.qpos, sim.qvel
    values = {
        "torso.x": q[:, 0],
        "torso.height": q[:, 1] + ground,
        "torso.pitch": q[:, 2],
        "torso.velocity": v[:, :2],
        "torso.pitch_rate": v[:, 2],
        "joints.angles": q[:, 3:],
        "joints.velocities": v[:, 3:],
    }
    return {name: sim.xp.asarray(value, copy=True) for name, value in values.items()}


def free(sim: Sim) -> dict[str, Array]:
    """`FREE` of a body whose first joint is free."""
    xp, q, v = sim.xp, sim.qpos, sim.qvel
    a, b, c, d = (q[:, i] for i in range(3, 7))
    up = [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a - b * b - c * c + d * d]
    forward = [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)]
    values = {
        "torso.position": q[:, :3],
        "torso.up": xp.stack(up, axis=1),
        "torso.forward": xp.stack(forward, axis=1),
        "torso.velocity": v[:, :3],
        "torso.angular_velocity": v[:, 3:6],
        "joints.angles": q[:, 7:],
        "joints.velocities": v[:, 6:],
    }
    return {name: xp.asarray(value, copy=True) for name, value in values.items()}
