"""Of one small marker two poses look alike: its pixels tell them apart, or else the pose before."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from embodied.deploy.marker_layout import Layout, Lens, Marker, to_matrix, to_pose
from embodied.deploy.marker_pose import Solution, solve

from .pictures import CAMERA, DICTIONARY, LOOK, off, picture

MATRIX = np.array([[CAMERA["fx"], 0, CAMERA["cx"]], [0, CAMERA["fy"], CAMERA["cy"]], [0, 0, 1]])
PLACE = (0.52, 0.04, 0.12)


def tilted(degrees: float, way: float) -> np.ndarray:
    """The pose (4, 4) of a plate that faces the camera, but for a tilt about an axis at `way`."""
    facing = to_matrix((*PLACE, *LOOK[3:])) @ to_matrix((0, 0, 0, 0.0, 1.0, 0.0, 0.0))
    half = math.radians(0.5 * degrees)
    axis = math.cos(math.radians(way)), math.sin(math.radians(way))
    return facing @ to_matrix((0, 0, 0, math.cos(half), *(math.sin(half) * a for a in axis), 0))


def seen(side_m: float, pose: np.ndarray, last: np.ndarray | None = None) -> Solution:
    """What is found of one marker on a plate."""
    plate = (Marker(9, side_m, (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)),)
    grey = cv2.cvtColor(picture((to_pose(pose), plate), rim=1.3), cv2.COLOR_RGB2GRAY)
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    corners, ids, _ = cv2.aruco.ArucoDetector(DICTIONARY, parameters).detectMarkers(grey)
    found = [(int(id), square[0]) for id, square in zip(ids.ravel(), corners, strict=True)]
    away = np.linalg.inv(to_matrix(LOOK))
    before = None if last is None else away @ last
    solution = solve(Layout(plate, DICTIONARY), found, Lens(MATRIX, np.zeros(0)), grey, before)
    assert solution is not None and solution.markers == 1
    return solution


def wrong(solution: Solution, pose: np.ndarray) -> float:
    """How far a solution is turned from the true pose, rad."""
    return off(to_pose(to_matrix(LOOK) @ solution.pose), to_pose(pose))[1]


@pytest.mark.parametrize(
    "degrees, way", [(45.7, 134.1), (30.2, 194.4), (26.8, 288.1), (21.1, 20.2), (28.3, 301.2)]
)
def test_pixels_tell_which_way_a_marker_is_tilted(degrees: float, way: float) -> None:
    pose = tilted(degrees, way)
    assert wrong(seen(0.02, pose), pose) < 0.06


@pytest.mark.parametrize("way", [30.0, 150.0, 240.0])
def test_what_is_seen_counts_more_than_what_was(way: float) -> None:
    pose = tilted(45.0, way)
    assert wrong(seen(0.025, pose, last=tilted(-45.0, way)), pose) < 0.03


@pytest.mark.parametrize("way", [0.0, 135.0, 225.0])
def test_between_poses_that_look_alike_the_one_before_decides(way: float) -> None:
    pose, other = tilted(18.0, way), tilted(-18.0, way)
    assert wrong(seen(0.018, pose, last=pose), pose) < 0.1
    assert wrong(seen(0.018, pose, last=other), other) < 0.1


def test_an_upside_down_print_is_another_pose() -> None:
    pose = tilted(30.0, 30.0)
    over = pose @ to_matrix((0, 0, 0, 0.0, 0.0, 0.0, 1.0))
    assert wrong(seen(0.045, over), over) < 0.03
    assert wrong(seen(0.045, over), pose) == pytest.approx(math.pi, abs=0.03)
