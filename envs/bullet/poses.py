"""Poses and velocities of free bodies: MuJoCo's, of a body's frame, and Bullet's, of its centre.

Quaternions have the scalar first, as in MuJoCo, but where `xyzw` says otherwise.
"""

from __future__ import annotations

import numpy as np

BACK = np.array([1.0, -1.0, -1.0, -1.0])
"""What turns a unit quaternion into its inverse."""
LAST = [1, 2, 3, 0]
FIRST = [3, 0, 1, 2]


def xyzw(quat: np.ndarray) -> list[float]:
    """A quaternion `(4,)` as Bullet has it, the scalar last."""
    w, x, y, z = quat.tolist()
    return [x, y, z, w]


def rotate(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors `(..., 3)` turned by unit quaternions `(..., 4)`."""
    w, u = quat[..., :1], quat[..., 1:]
    across = 2.0 * np.cross(u, vector)
    return vector + w * across + np.cross(u, across)


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of quaternions `(..., 4)`."""
    w, u, k, x = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    scalar = w * k - np.sum(u * x, axis=-1, keepdims=True)
    return np.concatenate([scalar, w * x + k * u + np.cross(u, x)], axis=-1)


def to_centre(
    pose: np.ndarray, speed: np.ndarray, centre: np.ndarray, axes: np.ndarray
) -> np.ndarray:
    """`qpos` `(n, 7)` and `qvel` `(n, 6)` of free joints as Bullet's rows `(n, 13)`.

    A row is position, quaternion (scalar last), velocity and angular velocity, all in the world's
    frame, of the centre of mass; `centre` `(3,)` is where that is in the body, `axes` `(4,)` how
    its axes of inertia lie there.
    """
    turn = pose[:, 3:] / np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
    arm, spin = rotate(turn, centre), rotate(turn, speed[:, 3:])
    moves = speed[:, :3] + np.cross(spin, arm)
    return np.concatenate([pose[:, :3] + arm, times(turn, axes)[:, LAST], moves, spin], axis=1)


def from_centre(
    rows: np.ndarray, centre: np.ndarray, axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What `to_centre` was given: `qpos` `(n, 7)` and `qvel` `(n, 6)`."""
    turn = times(rows[:, 3:7][:, FIRST], axes * BACK)
    arm, spin = rotate(turn, centre), rows[:, 10:]
    moves = rows[:, 7:10] - np.cross(spin, arm)
    pose = np.concatenate([rows[:, :3] - arm, turn], axis=1)
    return pose, np.concatenate([moves, rotate(turn * BACK, spin)], axis=1)
