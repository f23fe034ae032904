from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.deploy.body import MARGINS
from embodied.deploy.limits import Limiter
from embodied.deploy.robot_map import Safety
from tests.deploy.arms import body, robot

TICK_S = 0.005
JOINTS = robot().joints  # 2 rad/s, 10 rad/s^2, within 3 rad
ANGLE = st.floats(-4.0, 4.0, allow_subnormal=False)


def limiter(q: tuple[float, float] = (0.0, 0.0), box: object = None, **body_is: float) -> Limiter:
    shape = body(box, **body_is) if box is not None or body_is else None
    made = Limiter(JOINTS, Safety(), shape, TICK_S)
    made.start(np.array(q))
    return made


def test_a_motion_speeds_up_slows_down_and_arrives_as_by_hand() -> None:
    moving, target = limiter(), np.array([0.5, 0.0])
    assert moving.follow(target) == ["velocity", "acceleration"]
    assert moving.v[0] == pytest.approx(0.05)  # 10 rad/s^2 for 5 ms
    assert moving.q[0] == pytest.approx(0.05 * TICK_S)
    ticks, fastest = 1, 0.0
    while abs(moving.q[0] - 0.5) > 1e-4 or moving.v[0]:
        moving.follow(target)
        fastest = max(fastest, moving.v[0])
        ticks += 1
        assert ticks < 200
    assert fastest <= 2.0 + 1e-9
    # 0.2 s to 2 rad/s and as long to rest take 0.2 rad each, and 0.1 rad between them 0.05 s.
    assert ticks * TICK_S == pytest.approx(0.45, abs=0.03)
    assert moving.q[1] == 0.0


def test_a_target_that_moves_is_followed_without_lag() -> None:
    moving, speed = limiter(), np.array([1.0, 0.0])
    for k in range(1, 200):
        moving.follow(k * TICK_S * speed, speed)
    assert moving.q[0] == pytest.approx(199 * TICK_S, abs=1e-3)
    assert moving.v[0] == pytest.approx(1.0, abs=1e-3)


def test_the_pace_is_a_share_of_the_speed() -> None:
    moving = limiter()
    for _ in range(100):
        moving.follow(np.array([3.0, 0.0]), pace=0.25)
    assert moving.v[0] == pytest.approx(0.5)


def test_a_stop_takes_no_longer_than_it_may() -> None:
    moving = limiter()
    for _ in range(60):
        moving.follow(np.array([3.0, -3.0]))
    assert moving.v == pytest.approx([2.0, -2.0])
    moving.brake()
    for tick in range(16):  # 0.08 s
        before = np.abs(moving.v)
        moving.stop()
        assert (np.abs(moving.v) < before).all(), tick
    assert not moving.v.any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANGLE, ANGLE, st.floats(-3, 3), st.floats(0.02, 1.0)), min_size=1))
def test_no_joint_leaves_its_limits_whatever_is_asked(
    asked: list[tuple[float, float, float, float]],
) -> None:
    moving = limiter((2.9, -2.9))
    for a, b, speed, pace in asked:
        for _ in range(7):
            before = moving.v
            moving.follow(np.array([a, b]), np.array([speed, -speed]), pace)
            assert (np.abs(moving.q) <= 3.0 + 1e-9).all()
            assert (np.abs(moving.v) <= 2.0 + 1e-9).all()
            inside = np.abs(moving.q) < 2.9  # beside a limit, stopping comes first
            assert (np.abs(moving.v - before) <= 10.0 * TICK_S + 1e-9)[inside].all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ANGLE, ANGLE), min_size=1, max_size=12))
def test_no_margin_that_was_there_is_ever_lost(asked: list[tuple[float, float]]) -> None:
    box = [[-0.9, 0.8], [-0.7, 0.7], [-1.0, 1.0]]
    moving = limiter((0.3, 1.0), box, singular=0.05, apart_m=0.02)
    assert moving.body is not None
    assert (moving.body.margins(moving.q) > 0).all()
    for target in asked:
        for _ in range(60):
            moving.follow(np.array(target))
            margins = moving.body.margins(moving.q)
            assert (margins > -1e-6).all(), dict(zip(MARGINS, margins, strict=True))


def test_along_a_wall_the_tool_slides() -> None:
    """The wall is at x = 0.8; the hand is told to go on in y beyond it."""
    moving = limiter((-0.9, 1.4), [[-2.0, 0.8], [-2.0, 2.0], [-1.0, 1.0]])
    assert moving.body is not None
    start, held = moving.body.tool(moving.q), set()
    for _ in range(400):
        held |= set(moving.follow(np.array([0.5, 0.2])))
    end = moving.body.tool(moving.q)
    assert "x high" in held
    assert end[0] <= 0.8 + 1e-6 and end[0] > 0.75
    assert abs(end[1] - start[1]) > 0.1


def test_a_singularity_is_approached_ever_slower_and_not_passed() -> None:
    moving = limiter((0.3, 1.0), singular=0.3)
    assert moving.body is not None
    speeds = []
    for _ in range(600):
        held = moving.follow(np.array([0.3, -1.0]))
        speeds.append(abs(moving.v[1]))
    assert "singularity" in held
    assert moving.q[1] > 0.0
    assert speeds[-1] < 1e-3 < max(speeds)
