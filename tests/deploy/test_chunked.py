from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from embodied.actor import InBlocks
from embodied.deploy.chunked import Chunked, in_time, plans_ahead
from embodied.types import ActionSpec

SPEC = ActionSpec(
    ("x",), ("rad",), np.array([-1.0], np.float32), np.array([1.0], np.float32), "joint_delta", 20.0
)
STEP_NS = 50_000_000


class Planner:
    """Plans to go on from what it sees: actions obs, obs + 1, ...; a plan waits to be let go."""

    action_spec, horizon = SPEC, 8

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0
        self.go.set()

    def carry(self, num_worlds: int) -> dict[str, np.ndarray]:
        return {"plans": np.zeros(num_worlds)}

    def chunk(self, carry: Any, obs: Any, greedy: bool) -> Any:
        self.asked += 1
        self.go.wait(10.0)
        plan = obs["state"][:, None, :1] + np.arange(8.0)[None, :, None]
        return {"plans": carry["plans"] + 1}, plan


class Clock:
    def __init__(self) -> None:
        self.now = 10**9

    def __call__(self) -> int:
        return self.now


def made() -> tuple[Chunked, Planner, Clock]:
    planner, clock = Planner(), Clock()
    return Chunked(planner, 20.0, blend=1, clock=clock), planner, clock


def act(chunked: Chunked, clock: Clock, step: int) -> float:
    _, action = chunked.act({}, {"state": np.array([[float(step)]])})
    clock.now += STEP_NS
    assert action.shape == (1, 1) and action.dtype == np.float32
    return float(action[0, 0])


def settle(chunked: Chunked) -> None:
    """Wait until what was asked for is there."""
    if chunked._open is not None:
        chunked._open[1].result(10.0)


def test_actions_are_those_planned_for_their_time() -> None:
    chunked, _, clock = made()
    chunked.carry(1)
    taken = []
    for step in range(30):
        taken.append(act(chunked, clock, step))
        settle(chunked)
    assert taken[0] == 0.0, "nothing is planned yet"
    assert taken[1:] == [float(step) for step in range(1, 30)]
    assert chunked.counts["late"] == chunked.counts["malformed"] == 0


def test_a_planner_that_hangs_leaves_the_robot_where_it_is_and_is_not_heard_late() -> None:
    chunked, planner, clock = made()
    chunked.carry(1)
    act(chunked, clock, 0)
    settle(chunked)
    assert act(chunked, clock, 1) == 1.0
    planner.go.clear()
    taken = [act(chunked, clock, step) for step in range(2, 30)]
    assert taken[-15:] == [0.0] * 15
    planner.go.set()
    settle(chunked)
    act(chunked, clock, 30)  # the old plan comes, long after its time
    settle(chunked)
    after = act(chunked, clock, 31)
    assert after in (0.0, 31.0)
    assert chunked.counts["late"] >= 1


def test_an_episode_forgets_what_was_planned_before() -> None:
    chunked, planner, clock = made()
    chunked.carry(1)
    act(chunked, clock, 100)
    settle(chunked)
    chunked.carry(1)
    assert act(chunked, clock, 0) == 0.0
    settle(chunked)
    assert act(chunked, clock, 1) == 1.0
    assert planner.asked == 2


def test_planning_does_not_keep_anyone_waiting() -> None:
    chunked, planner, clock = made()
    chunked.carry(1)
    planner.go.clear()
    begin = time.monotonic()
    for step in range(20):
        act(chunked, clock, step)
    assert planner.asked == 1
    assert time.monotonic() - begin < 5.0  # it would wait ten
    planner.go.set()


def test_a_planner_is_found_and_others_are_left_alone() -> None:
    planner = Planner()
    assert plans_ahead(InBlocks(planner)) is planner  # type: ignore[arg-type]
    chunked = in_time(planner, 20.0)  # type: ignore[arg-type]
    assert isinstance(chunked, Chunked)

    class Plain:
        action_spec, horizon = SPEC, 1

    plain: Any = Plain()
    assert in_time(plain, 20.0) is plain


def test_a_planner_that_fails_is_heard() -> None:
    chunked, planner, clock = made()
    chunked.carry(1)

    def fails(carry: Any, obs: Any, greedy: bool) -> Any:
        raise ValueError("no plan")

    planner.chunk = fails  # type: ignore[method-assign]
    act(chunked, clock, 0)
    with pytest.raises(ValueError, match="no plan"):
        settle(chunked)
    with pytest.raises(ValueError, match="no plan"):
        act(chunked, clock, 1)
