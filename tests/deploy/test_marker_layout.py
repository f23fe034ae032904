"""Where a cube's markers are, and poses as numbers and as matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.deploy.marker_layout import (
    FACES,
    Layout,
    Marker,
    apart,
    cube_markers,
    to_matrix,
    to_pose,
)

from .pictures import DICTIONARY

NUMBER = st.floats(-1.0, 1.0)


@given(st.tuples(*[NUMBER] * 3), st.tuples(*[NUMBER] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_poses_survive_being_matrices(position: tuple, turn: tuple) -> None:  # type: ignore[type-arg]
    matrix = to_matrix((*position, *turn))
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
    pose = to_pose(matrix)
    assert np.linalg.norm(pose[3:]) == pytest.approx(1.0, abs=1e-9) and pose[3] >= 0.0
    np.testing.assert_allclose(pose[:3], position)
    same = abs(np.dot(pose[3:], turn) / np.linalg.norm(turn))
    assert same == pytest.approx(1.0, abs=1e-6)


def test_a_quarter_turn_by_hand() -> None:
    matrix = to_matrix((1.0, 2.0, 3.0, 0.5**0.5, 0.0, 0.0, 0.5**0.5))
    np.testing.assert_allclose(matrix @ [1.0, 0.0, 0.0, 1.0], [1.0, 3.0, 3.0, 1.0], atol=1e-12)
    assert apart(matrix, np.eye(4)) == pytest.approx(np.pi / 2 + 14.0**0.5 / 0.05)


def test_prints_on_a_cube_look_outwards_and_stand_upright() -> None:
    layout = Layout(cube_markers(range(6), 0.02, 0.03), DICTIONARY)
    for k, face in enumerate(FACES):
        normal = np.zeros(3)
        normal["xyz".index(face[1])] = 1.0 if face[0] == "+" else -1.0
        top_left, top_right, _, bottom_left = layout.corners[k]
        np.testing.assert_allclose(layout.corners[k] @ normal, 0.02, atol=1e-12)
        right, up = (top_right - top_left) / 0.03, (top_left - bottom_left) / 0.03
        np.testing.assert_allclose(np.cross(right, up), normal, atol=1e-12)
        if face[1] != "z":
            np.testing.assert_allclose(up, [0.0, 0.0, 1.0], atol=1e-12)
        else:
            np.testing.assert_allclose(right, [1.0, 0.0, 0.0], atol=1e-12)
    assert layout.points.shape[:1] == layout.shades.shape[:1] == (6,)


def test_points_go_where_the_marker_is() -> None:
    layout = Layout([Marker(3, 0.1, (0.2, 0.0, 0.0, 0.5**0.5, 0.0, 0.0, 0.5**0.5))], DICTIONARY)
    np.testing.assert_allclose(layout.points[0].mean(axis=0), [0.2, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(layout.corners[0, 0], [0.15, -0.05, 0.0], atol=1e-12)
