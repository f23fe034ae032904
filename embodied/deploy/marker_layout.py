"""Markers, where they are on an object, and poses as seven numbers and as matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from embodied.deploy.alignment import print_points

FACES = ("+x", "-x", "+y", "-y", "+z", "-z")
SQUARE = np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]], float)
"""A marker's corners in halves of its side, clockwise from the top left of the print."""


@dataclass(frozen=True)
class Marker:
    """A square marker: its number in the dictionary, the side of its black square, and where it is.

    `pose` (7,): its middle in the object's frame (m), then a quaternion (w, x, y, z); x points to
    the right of the print, y to its top, z out of it.
    """

    id: int
    side_m: float
    pose: tuple[float, ...]


@dataclass(frozen=True)
class Lens:
    """A camera's matrix (3, 3), in pixels whose centres are whole numbers, and its distortion as
    OpenCV has it, (0,) to (14,)."""

    matrix: np.ndarray
    distortion: np.ndarray


def cube_markers(ids: Sequence[int], half_m: float, side_m: float) -> tuple[Marker, ...]:
    """Markers in the middle of a cube's faces, in the order of `FACES`.

    On the four faces at the sides prints stand upright, their tops to +z; on top and below their
    right is +x. `half_m` is half the cube's edge, `side_m` the side of a black square.
    """
    turns = {
        "+x": (0.5, 0.5, 0.5, 0.5),
        "-x": (0.5, 0.5, -0.5, -0.5),
        "+y": (0.0, 0.0, 0.5**0.5, 0.5**0.5),
        "-y": (0.5**0.5, 0.5**0.5, 0.0, 0.0),
        "+z": (1.0, 0.0, 0.0, 0.0),
        "-z": (0.0, 1.0, 0.0, 0.0),
    }
    out = []
    for id, face in zip(ids, FACES, strict=True):
        at = [0.0, 0.0, 0.0]
        at["xyz".index(face[1])] = half_m if face[0] == "+" else -half_m
        out.append(Marker(id, side_m, (*at, *turns[face])))
    return tuple(out)


class Layout:
    """An object's markers, ready to be found: `corners` `(M, 4, 3)`, `points` `(M, P, 3)` in m."""

    def __init__(self, markers: Sequence[Marker], dictionary: cv2.aruco.Dictionary) -> None:
        self.rows = {marker.id: row for row, marker in enumerate(markers)}
        self.half_m = np.array([0.5 * marker.side_m for marker in markers])
        self.poses = np.stack([to_matrix(marker.pose) for marker in markers])
        self.corners = self._placed(np.stack([SQUARE] * len(markers)))
        cells = dictionary.markerSize + 2
        prints = [
            print_points(dictionary.generateImageMarker(marker.id, cells) > 127)
            for marker in markers
        ]
        self.points = self._placed(np.stack([2.0 * points for points, _ in prints]))
        self.shades = np.stack([shades for _, shades in prints])

    def _placed(self, points: np.ndarray) -> np.ndarray:
        """Points `(M, P, 3)` in halves of the markers' sides, in the object's frame (m)."""
        turned = (points * self.half_m[:, None, None]) @ self.poses[:, :3, :3].transpose(0, 2, 1)
        return turned + self.poses[:, None, :3, 3]


def to_matrix(pose: Sequence[float] | np.ndarray) -> np.ndarray:
    """A pose (7,), of which the quaternion may have any length, as a matrix (4, 4)."""
    w, *v = np.asarray(pose[3:], float) / np.linalg.norm(pose[3:])
    sine = float(np.linalg.norm(v))
    angle = 2.0 * math.atan2(sine, w)
    return rigid(np.array(v) * (angle / sine if sine > 0.0 else 0.0), np.asarray(pose[:3], float))


def to_pose(matrix: np.ndarray) -> np.ndarray:
    """A rigid matrix (4, 4) as a pose (7,): position, and a unit quaternion with w >= 0."""
    turn = cv2.Rodrigues(matrix[:3, :3])[0].ravel()
    angle = float(np.linalg.norm(turn))
    axis = turn / angle if angle > 0.0 else turn
    cosine = max(0.0, math.cos(0.5 * angle))
    return np.array([*matrix[:3, 3], cosine, *(math.sin(0.5 * angle) * axis)])


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """How far two poses (4, 4) are apart: the angle between them in rad, and 5 cm count as one."""
    cosine = 0.5 * (float(np.trace(one[:3, :3].T @ other[:3, :3])) - 1.0)
    away = float(np.linalg.norm(one[:3, 3] - other[:3, 3]))
    return math.acos(min(1.0, max(-1.0, cosine))) + away / 0.05


def rigid(turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = cv2.Rodrigues(np.asarray(turn, float))[0], np.ravel(shift)
    return out
