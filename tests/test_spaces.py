"""Flat views of dict observations."""

import gymnasium as gym
import numpy as np
import pytest

from embodied.errors import UserError
from embodied.spaces import to_vector, vector_keys, vector_size

SPACE = gym.spaces.Dict(
    {
        "joints": gym.spaces.Box(-1, 1, (3,), np.float32),
        "frame": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
        "pose": gym.spaces.Box(-1, 1, (2, 2), np.float64),
        "phase": gym.spaces.Box(-1, 1, (), np.float32),
        "button": gym.spaces.Discrete(2),
    }
)


def some_obs(*lead: int) -> dict[str, np.ndarray]:
    return {key: np.full((*lead, *(box.shape or ())), 0.5) for key, box in SPACE.spaces.items()}


def test_floats_are_learned_from_and_pictures_left_out() -> None:
    assert sorted(vector_keys(SPACE)) == ["joints", "phase", "pose"]
    assert vector_size(SPACE) == 3 + 1 + 4


@pytest.mark.parametrize(("lead", "axes"), [((5,), 1), ((7, 5), 2), ((0,), 1)])
def test_the_leading_axes_stay(lead: tuple[int, ...], axes: int) -> None:
    flat = to_vector(some_obs(*lead), vector_keys(SPACE), lead=axes)
    assert flat.shape == (*lead, 8)
    assert flat.dtype == np.float32


def test_parts_are_laid_side_by_side_in_the_order_of_the_keys() -> None:
    obs = {"a": np.array([[1.0], [2.0]]), "b": np.array([[[3.0, 4.0]], [[5.0, 6.0]]])}
    assert to_vector(obs, ("b", "a")).tolist() == [[3, 4, 1], [5, 6, 2]]


def test_nothing_numeric_to_learn_from() -> None:
    space = gym.spaces.Dict({"frame": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    with pytest.raises(UserError, match="no numeric observation to learn from.*frame"):
        vector_keys(space)
