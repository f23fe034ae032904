from __future__ import annotations

from typing import Any

import numpy as np

from embodied.deploy.requests import Wish
from embodied.deploy.session import Session
from tests.deploy.arms import robot


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
