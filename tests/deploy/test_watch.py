from __future__ import annotations

import math

import numpy as np
import pytest

from embodied.deploy.messages import JointState
from embodied.deploy.watch import StateWatch
from tests.deploy.arms import robot

MS = 1_000_000


def state(stamp_ms: float, a: float = 0.1, b: float = 0.2, names: str = "left right") -> JointState:
    return JointState(round(stamp_ms * MS), tuple(names.split()), (a, b))


def settled(count: int = 10, every_ms: float = 5.0, delay_ms: float = 1.0) -> StateWatch:
    watch = StateWatch(robot())
    for k in range(1, count + 1):
        assert watch.see(state(k * every_ms), round((k * every_ms + delay_ms) * MS)) is None
    return watch


def test_a_steady_stream_is_believed() -> None:
    watch = settled()
    assert watch.problem(52 * MS) is None
    np.testing.assert_allclose(watch.q, [0.1, 0.2])
    assert watch.accepted == 10 and not watch.refused


def test_the_first_few_are_only_listened_to() -> None:
    watch = StateWatch(robot())
    assert watch.problem(0) == "no observation"
    watch.see(state(5), 6 * MS)
    assert watch.problem(7 * MS) == "observations have just begun"


def test_silence_is_stale_after_a_while_and_says_what_was_refused() -> None:
    watch = settled()
    assert watch.problem(101 * MS) is None
    assert watch.problem(102 * MS) == "observation stale"
    assert watch.see(state(100, a=math.nan), 101 * MS) == "a number is not finite"
    assert watch.problem(102 * MS) == "observation stale: a number is not finite"
    assert watch.refused == {"a number is not finite": 1}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (state(50), "out of order"),
        (state(45), "out of order"),
        (state(55, names="left other"), "right is missing"),
        (state(55, a=0.2, b=0.1), "left jumped"),
        (state(55, b=0.2 + 0.02 + 0.011), "right jumped"),
    ],
)
def test_what_cannot_be_is_left_out(message: JointState, why: str) -> None:
    watch = settled()
    assert watch.see(message, 56 * MS) == why
    np.testing.assert_allclose(watch.q, [0.1, 0.2])


def test_a_joint_may_move_as_far_as_twice_its_speed_allows_in_the_time() -> None:
    assert settled().see(state(55, b=0.2 + 0.02 + 0.009), 56 * MS) is None


def test_clocks_need_not_agree_but_a_growing_delay_is_late() -> None:
    watch = StateWatch(robot())
    for k in range(1, 11):
        watch.see(state(1e6 + 5 * k), round((5 * k + 1) * MS))
    assert watch.problem(52 * MS) is None
    for k in range(11, 31):  # each comes 3 ms later than the one before should have
        watch.see(state(1e6 + 5 * k), round((5 * k + 1 + 3 * (k - 10)) * MS))
    now = (5 * 30 + 1 + 3 * 20) * MS
    assert watch.problem(now) == "observation late"


@pytest.mark.parametrize(
    ("every_ms", "fine"), [(2.0, False), (3.0, True), (9.0, True), (11, False)]
)
def test_the_rate_is_judged_by_the_stamps(every_ms: float, fine: bool) -> None:
    watch = settled(every_ms=every_ms)
    now = round((10 * every_ms + 1) * MS)
    assert watch.problem(now) == (None if fine else "observation rate")


def test_after_it_was_moved_it_may_be_anywhere() -> None:
    watch = settled()
    watch.forget()
    assert watch.problem(52 * MS) == "no observation"
    assert watch.see(state(55, a=1.5, b=-1.0), 56 * MS) is None
