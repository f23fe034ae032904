from __future__ import annotations

from typing import Any

import numpy as np

from embodied.deploy.in_hand import InHand
from embodied.deploy.requests import Mode, State, Wish
from embodied.deploy.session import Session
from tests.deploy.arms import robot

from embodied.envs.tasks.robot import panda  # isort: skip


class Asked:
    """A keeper that notes what is asked of it."""

    def __init__(self) -> None:
        self.wishes: list[tuple[Wish, Any]] = []

    def ask(self, wish: Wish, target: Any = None) -> int:
        self.wishes.append((wish, target))
        return len(self.wishes)


class Seen:
    """A tracker whose newest image is so old."""

    age = 0.0

    def age_s(self) -> float:
        return self.age


def test_without_the_camera_no_action_is_asked_for() -> None:
    keeper, tracker = Asked(), Seen()
    session = Session(robot(watchdog={"image_s": 0.3}), keeper, tracker)  # type: ignore[arg-type]
    target = np.array([0.1, 0.2])
    session.command(target)
    assert [wish for wish, _ in keeper.wishes] == [Wish.RUN] and session.blind == 0
    tracker.age = 0.31
    session.command(target)
    session.command(target)
    assert len(keeper.wishes) == 1 and session.blind == 2
    tracker.age = 0.1
    session.command(target)
    assert len(keeper.wishes) == 2


def test_who_sees_no_objects_needs_no_camera() -> None:
    keeper = Asked()
    session = Session(robot(), keeper)  # type: ignore[arg-type]
    session.command(np.zeros(2))
    assert len(keeper.wishes) == 1 and session.objects() == {}


def test_what_is_in_the_hand_is_where_the_joints_were_measured() -> None:
    """And no later: the policy sees the joints and the objects of one moment."""
    arm, half = panda(), 0.02
    keeper, tracker = Asked(), Seen()
    session = Session(
        robot(),
        keeper,  # type: ignore[arg-type]
        tracker,  # type: ignore[arg-type]
        in_hand=InHand(arm, (*arm.joints, *arm.fingers), {"cube": half}),
    )
    start = np.array([*arm.home, half, half])
    tool, _ = arm.kinematics(np).fk(start[None, :-2])
    shown = np.array([*tool[0], 1.0, 0.0, 0.0, 0.0])
    tracker.sightings = lambda: {"cube": (10, shown)}  # type: ignore[attr-defined]
    for turn, stamp_ns in ((0.0, 10), (0.2, 20)):
        q = start + np.array([turn, *np.zeros(8)])
        keeper.state = measured(q, stamp_ns)  # type: ignore[attr-defined]
        session.joints()
        keeper.state = measured(start, stamp_ns + 5)  # type: ignore[attr-defined]
        found = session.objects()["cube"]
        tool, _ = arm.kinematics(np).fk(q[None, :-2])
        np.testing.assert_allclose(found[:3], tool[0], atol=1e-9)
    session.in_hand = None
    assert session.objects()["cube"] is shown


def measured(q: np.ndarray, stamp_ns: int) -> State:
    head = {"received_ns": 0, "number": 0, "trips": 0, "holds": 0, "refused": 0, "armed": 1}
    return State(stamp_ns=stamp_ns, mode=Mode.RUNNING, q=q, v=0.0 * q, command=q, **head)
