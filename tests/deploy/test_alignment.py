"""All pixels of a marker say where it is, better than its corners, in any light."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from embodied.deploy.alignment import MARGIN_CELLS, PER_CELL, align, print_points
from embodied.deploy.marker_layout import Layout, to_matrix

from .pictures import CAMERA, DICTIONARY, LOOK, MARKERS, picture

POSE = (0.5, 0.05, 0.06, 0.93, 0.1, 0.05, 0.35)
MATRIX = np.array([[CAMERA["fx"], 0, CAMERA["cx"]], [0, CAMERA["fy"], CAMERA["cy"]], [0, 0, 1]])
NONE = np.zeros(0)
LAYOUT = Layout(MARKERS, DICTIONARY)
VIEW = np.linalg.inv(to_matrix(LOOK)) @ to_matrix(POSE)
TURN, SHIFT = cv2.Rodrigues(VIEW[:3, :3])[0].ravel(), VIEW[:3, 3]


def shown() -> tuple[np.ndarray, np.ndarray]:
    """Points and shades of the faces that the camera sees."""
    views = [VIEW @ to_matrix(marker.pose) for marker in MARKERS]
    faces = [k for k, view in enumerate(views) if view[:3, 2] @ view[:3, 3] < -0.01]
    assert len(faces) == 3
    return LAYOUT.points[faces], LAYOUT.shades[faces]


def test_points_lie_on_what_is_printed() -> None:
    bits = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    points, shades = print_points(bits)
    edge = round((4 + 2 * MARGIN_CELLS) * PER_CELL)
    assert points.shape == (edge * edge, 3) and shades.shape == (edge * edge, 4)
    half = 0.5 + MARGIN_CELLS / 4
    assert np.abs(points[:, :2]).max() == pytest.approx(half, abs=0.6 / PER_CELL / 4)
    np.testing.assert_array_equal(shades[:, 0], 1.0)

    def shade(x: float, y: float) -> float:
        return float(shades[np.hypot(points[:, 0] - x, points[:, 1] - y).argmin(), 1])

    assert shade(-0.125, 0.125) > 0.9  # its only white cell: second from the left, and from the top
    assert shade(0.125, 0.125) < 0.1 and shade(-0.375, -0.375) < 0.1
    assert shade(half, half) > 0.9
    sharp, *soft = np.abs(shades[:, 1:] - 0.5).mean(axis=0)
    assert all(sharp > one for one in soft)


@pytest.mark.parametrize("light", [(1.0, 0.0), (0.4, 60.0), (0.15, 100.0)])
def test_a_pose_that_is_a_pixel_off_is_brought_back(light: tuple[float, float]) -> None:
    grey = cv2.cvtColor(picture((POSE, MARKERS)), cv2.COLOR_RGB2GRAY)
    grey = np.rint(light[0] * grey + light[1]).astype(np.uint8)
    turned, shifted = np.array([0.03, -0.02, 0.02]), np.array([0.0008, -0.0008, 0.01])
    turn, shift, left = align(grey, TURN + turned, SHIFT + shifted, MATRIX, NONE, *shown())
    assert np.linalg.norm(turn - TURN) < 0.004 and np.linalg.norm(shift - SHIFT) < 0.0008
    assert left < 0.2
    *_, elsewhere = align(grey, TURN, SHIFT + (0.2, 0.0, 0.0), MATRIX, NONE, *shown())
    assert elsewhere == 1.0  # there is nothing


def test_a_glare_on_a_part_is_left_out() -> None:
    grey = cv2.cvtColor(picture((POSE, MARKERS)), cv2.COLOR_RGB2GRAY)
    corners, _ = cv2.projectPoints(LAYOUT.corners[4], TURN, SHIFT, MATRIX, NONE)
    middle = corners.mean(axis=(0, 1))
    cv2.circle(grey, (int(middle[0]) + 6, int(middle[1])), 6, 255, -1)
    turn, shift, _ = align(grey, TURN, SHIFT, MATRIX, NONE, *shown())
    assert np.linalg.norm(turn - TURN) < 0.01 and np.linalg.norm(shift - SHIFT) < 0.001


def test_far_outside_the_image_nothing_raises() -> None:
    grey = np.full((480, 640), 120, np.uint8)
    for shift in ((5.0, 0.0, 0.5), (0.0, -3.0, 0.3), (0.31, 0.0, 0.5)):
        *_, left = align(grey, np.zeros(3), np.array(shift), MATRIX, NONE, *shown())
        assert np.isfinite(left)


def test_any_number_of_markers_will_do() -> None:
    grey = cv2.cvtColor(picture((POSE, MARKERS)), cv2.COLOR_RGB2GRAY)
    many = [
        np.concatenate([part] * 12) for part in shown()
    ]  # more points than OpenCV takes in a row
    turn, shift, _ = align(grey, TURN, SHIFT, MATRIX, NONE, *many)
    assert np.linalg.norm(turn - TURN) < 0.004 and np.linalg.norm(shift - SHIFT) < 0.0008
