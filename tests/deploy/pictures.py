"""Pictures of objects with markers, made by hand, and how far a pose is from the true one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from embodied.deploy.marker_layout import Marker, cube_markers, to_matrix, to_pose

HEIGHT, WIDTH, HALF_M, SIDE_M = 480, 640, 0.022, 0.036
WHITE, GREY = 235, 120
DICTIONARY = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
CAMERA = {"width": WIDTH, "height": HEIGHT, "fx": 720.0, "fy": 700.0, "cx": 325.5, "cy": 236.0}
LOOK = (0.95, 0.1, 0.5, 0.2682, -0.5926, -0.6919, 0.3132)
"""Where the camera is: in front of the table; it looks back and down."""
MARKERS = cube_markers(range(6), HALF_M, SIDE_M)
CUBE = {"cube": {"ids": [0, 1, 2, 3, 4, 5], "half_m": HALF_M, "side_m": SIDE_M}}


def unit(pose: Any) -> list[float]:
    return to_pose(to_matrix(pose)).tolist()


def config(**changes: Any) -> dict[str, Any]:
    """Of a tracker of the cube, with top keys changed."""
    return {"camera": {**CAMERA, "pose": unit(LOOK)}, "objects": {"cube": CUBE}, **changes}


def picture(
    *things: tuple[Any, Sequence[Marker]], distortion: Sequence[float] = (), rim: float = 7.0 / 6.0
) -> np.ndarray:
    """What the camera sees of things at poses (7,) with markers, `(H, W, 3)` uint8.

    Cards `rim` times as wide as the markers are pasted by homographies, three times as large.
    """
    fx, fy, cx, cy = (CAMERA[key] for key in ("fx", "fy", "cx", "cy"))
    matrix = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    fine = np.array([[3.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0]])
    image = np.full((3 * HEIGHT, 3 * WIDTH), GREY, np.uint8)
    away = np.linalg.inv(to_matrix(LOOK))
    for pose, marker in ((pose, marker) for pose, markers in things for marker in markers):
        view = away @ to_matrix(pose) @ to_matrix(marker.pose)
        if view[:3, 2] @ view[:3, 3] >= 0.0:
            continue  # it shows its back
        black = np.minimum(DICTIONARY.generateImageMarker(marker.id, 240), WHITE)
        edge = round(120 * (rim - 1.0))
        card = cv2.copyMakeBorder(black, *[edge] * 4, cv2.BORDER_CONSTANT, value=WHITE)
        h, size = 0.5 * marker.side_m * rim, len(card)
        square = np.array([[-h, h, 0, 1], [h, h, 0, 1], [h, -h, 0, 1], [-h, -h, 0, 1]])
        seen = (view @ square.T)[:3]
        at = (fine @ matrix @ seen)[:2] / seen[2]
        corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32) - 0.5
        paste = cv2.getPerspectiveTransform(corners, at.T.astype(np.float32))
        shape = image.shape[::-1]
        cv2.warpPerspective(card, paste, shape, image, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    if len(distortion):
        x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        grid = np.stack([x, y], axis=-1).reshape(-1, 1, 2).astype(np.float64)
        ideal = cv2.undistortPoints(grid, matrix, np.array(distortion), P=matrix)
        where = ideal.reshape(HEIGHT, WIDTH, 2).astype(np.float32)
        small = cv2.remap(small, where, None, cv2.INTER_LINEAR)
    return cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)


def off(found: np.ndarray, true: Any) -> tuple[float, float]:
    """How far a pose is from the true one, in m and rad."""
    cosine = abs(float(np.dot(found[3:], unit(true)[3:])))
    away = float(np.linalg.norm(found[:3] - np.asarray(true)[:3]))
    return away, 2.0 * math.acos(min(1.0, cosine))


def poses(count: int) -> np.ndarray:
    """Poses in the workspace, turned in any way, `(count, 7)`."""
    rng = np.random.default_rng(3)
    place = rng.uniform((0.4, -0.1, 0.02), (0.6, 0.2, 0.2), (count, 3))
    turn = rng.normal(size=(count, 4))
    return np.concatenate([place, turn / np.linalg.norm(turn, axis=1, keepdims=True)], axis=1)
