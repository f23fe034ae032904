"""Free bodies as MuJoCo and as Bullet describe them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from embodied.envs.bullet.poses import from_centre, rotate, times, to_centre, xyzw
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

NUMBERS = st.floats(-3.0, 3.0)


def unit(quat: np.ndarray) -> np.ndarray:
    return quat / np.linalg.norm(quat, axis=-1, keepdims=True)


QUATS = arrays(float, (2, 4), elements=NUMBERS).filter(
    lambda q: bool((np.linalg.norm(q, axis=1) > 0.1).all())
)


@given(QUATS, arrays(float, (2, 3), elements=NUMBERS))
def test_products_and_turns_are_mujocos(quats: np.ndarray, vectors: np.ndarray) -> None:
    a, b = unit(quats)
    product, turned = np.zeros(4), np.zeros(3)
    mujoco.mju_mulQuat(product, a, b)
    mujoco.mju_rotVecQuat(turned, vectors[0], a)
    np.testing.assert_allclose(times(a[None], b[None])[0], product, atol=1e-12)
    np.testing.assert_allclose(rotate(a, vectors[0]), turned, atol=1e-12)


@given(QUATS, arrays(float, (4, 3), elements=NUMBERS), NUMBERS)
def test_there_and_back(quats: np.ndarray, vectors: np.ndarray, scale: float) -> None:
    turn, axes = unit(quats)
    where, centre, moves, spins = vectors
    pose = np.concatenate([where, turn])[None]
    speed = np.concatenate([moves, scale * spins])[None]
    rows = to_centre(pose, speed, centre, axes)
    again = from_centre(rows, centre, axes)
    np.testing.assert_allclose(again[0], pose, atol=1e-9)
    np.testing.assert_allclose(again[1], speed, atol=1e-8)


def test_a_body_that_turns_about_its_origin_by_hand() -> None:
    # A quarter turn about z; the centre is 1 m along the body's x, so along the world's y.
    half = 0.5**0.5
    pose = np.array([[1.0, 2.0, 3.0, half, 0.0, 0.0, half]])
    speed = np.array([[0.0, 0.0, 0.5, 0.0, 0.0, 2.0]])  # 2 rad/s about z, and rising
    row = to_centre(pose, speed, np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0]))[0]
    assert row == pytest.approx([1, 3, 3, 0, 0, half, half, -2, 0, 0.5, 0, 0, 2])
    assert xyzw(np.array([1.0, 2.0, 3.0, 4.0])) == [2.0, 3.0, 4.0, 1.0]
