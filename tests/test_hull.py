"""Where demonstrations have been, and how trust falls off elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from embodied.hull import DOUBT, LEAST, MARGIN, Hull


def triangle() -> Hull:
    """One number of the robot's own, then a point of the triangle 0 <= y <= x <= 1."""
    hull = Hull(3, own=1)
    unit = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    low, high = unit.amin(1), unit.amax(1)
    hull.learn(torch.stack([torch.zeros(20_000), high, low], 1))
    return hull


def known(hull: Hull, *points: tuple[float, float], robot: float = 0.0) -> list[float]:
    return hull(torch.tensor([[robot, *point] for point in points])).tolist()


def test_inside_everything_is_known_and_outside_less_the_farther_it_is() -> None:
    told = known(triangle(), (0.5, 0.2), (0.9, 0.8), (1.5, 0.5), (2.0, 0.5), (9.0, 0.5))
    assert told[:2] == [1.0, 1.0]
    assert 1.0 > told[2] > told[3] > told[4] >= 0.0


def test_numbers_that_were_never_seen_together_are_outside() -> None:
    corner = (0.1, 0.9)  # either number alone is nothing new
    assert known(triangle(), corner)[0] < 0.6
    box = Hull(2, own=1)
    box.learn(torch.rand(100, 2))
    assert box(torch.tensor([[0.0, 0.9], [0.0, 0.1]])).tolist() == [1.0, 1.0]


def test_one_number_by_hand() -> None:
    hull = Hull(1, own=0)
    hull.learn(torch.linspace(0.0, 1.0, 1001)[:, None])
    deviation = math.sqrt((1001**2 - 1) / 12) / 1000
    width = 1.0 / deviation
    high = 1.0 / deviation + MARGIN * width + LEAST
    whole = width + 2 * (MARGIN * width + LEAST)
    beyond = (2.0 / deviation - high) / whole
    told = hull(torch.tensor([[2.0]]))
    assert float(told) == pytest.approx(math.exp(-DOUBT * beyond), rel=1e-4)


def test_the_robots_own_numbers_do_not_count() -> None:
    assert known(triangle(), (0.5, 0.2), robot=1e6) == [1.0]
    own = Hull(2, own=2)
    own.learn(torch.rand(10, 2))
    assert own(torch.full((3, 2), 1e6)).tolist() == [1.0] * 3


def test_before_and_after_it_holds_everything() -> None:
    assert known(Hull(3, own=1), (1e6, -1e6)) == [1.0]
    hull = triangle()
    hull.forget()
    assert known(hull, (1e6, -1e6)) == [1.0]


def test_a_number_that_never_changed_may_hardly_change() -> None:
    hull = Hull(2, own=0)
    rows = torch.rand(50, 2)
    rows[:, 1] = 0.5
    hull.learn(rows)
    told = hull(torch.tensor([[0.5, 0.5], [0.5, 0.5 + 1e-4], [0.5, 0.5 + 1e-2]]))
    assert told[0] == 1.0 and told[1] > 0.7 and told[2] < 0.01
