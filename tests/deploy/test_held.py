"""What the hand holds goes where the hand goes."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.deploy.held import KEPT, Held

from embodied.envs.tasks.robot import panda  # isort: skip

ROBOT = panda()
JOINTS = (*ROBOT.fingers, *ROBOT.joints)  # in any order
HALF_M = 0.02
HOME = np.array([0.04, 0.04, *ROBOT.home])
GRIPPED = np.array([HALF_M, HALF_M, *ROBOT.home])
MOVED = GRIPPED + np.array([0.0, 0.0, 0.3, -0.1, 0.0, 0.2, 0.0, 0.1, -0.2])


def hand(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tool, turn = ROBOT.kinematics(np).fk(q[None, 2:])
    return tool[0], turn[0]


def in_hand(q: np.ndarray, aside: float = 0.0) -> np.ndarray:
    """The pose of a cube in the hand, its axes those of the tool's at `HOME`'s."""
    tool, turn = hand(q)
    _, first = hand(HOME)
    whole = turn @ first.T
    w = 0.5 * np.sqrt(1.0 + np.trace(whole))
    xyz = np.array(
        [whole[2, 1] - whole[1, 2], whole[0, 2] - whole[2, 0], whole[1, 0] - whole[0, 1]]
    )
    return np.concatenate([tool + aside * turn[:, 0], [w], xyz / (4.0 * w)])


@pytest.fixture
def held() -> Held:
    return Held(ROBOT, JOINTS, {"cube": HALF_M})


def test_what_is_held_and_hidden_goes_along(held: Held) -> None:
    shown = in_hand(GRIPPED, aside=0.01)
    seen = {"cube": (1000, shown)}
    assert held.poses(seen, GRIPPED, 1000)["cube"] == pytest.approx(shown)
    half_way = 0.5 * (GRIPPED + MOVED)
    held.poses(seen, half_way, 2000)
    found = held.poses(seen, MOVED, 3000)["cube"]
    assert found == pytest.approx(in_hand(MOVED, aside=0.01), abs=1e-6)


def test_a_late_image_is_brought_up_to_date(held: Held) -> None:
    held.poses({}, GRIPPED, 1000)
    middle = 0.25 * GRIPPED + 0.75 * MOVED
    held.poses({}, MOVED, 2000)
    late = {"cube": (1750, in_hand(middle))}
    assert held.poses(late, MOVED, 3000)["cube"] == pytest.approx(in_hand(MOVED), abs=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "aside", "half_m"),
    [
        (GRIPPED, MOVED + np.array([0.02, 0.02, *np.zeros(7)]), 0.0, HALF_M),  # let go
        (HOME, MOVED, 0.0, HALF_M),  # was not held when it was seen
        (GRIPPED, MOVED, 0.05, HALF_M),  # something else is held
        (GRIPPED, MOVED, 0.0, 0.03),  # the fingers hold something smaller
        (GRIPPED, MOVED, 0.0, 0.0),  # of unknown size
    ],
)
def test_what_is_not_held_stays(
    held: Held, start: np.ndarray, end: np.ndarray, aside: float, half_m: float
) -> None:
    held.define({"cube": half_m})
    shown = in_hand(start, aside)
    held.poses({"cube": (1000, shown)}, start, 1000)
    assert held.poses({"cube": (1000, shown)}, end, 2000)["cube"] == pytest.approx(shown)


def test_a_camera_with_another_clock_is_believed_as_it_is(held: Held) -> None:
    held.poses({}, GRIPPED, 10_000)
    shown = in_hand(MOVED)
    for stamp_ns in (5, 99_000):
        assert held.poses({"cube": (stamp_ns, shown)}, MOVED, 20_000)["cube"] == pytest.approx(
            shown
        )


def test_where_it_was_is_forgotten(held: Held) -> None:
    held.poses({"cube": (1000, in_hand(GRIPPED))}, GRIPPED, 1000)
    held.forget()
    assert held.poses({}, GRIPPED, 2000) == {}
    shown = in_hand(MOVED)
    assert held.poses({"cube": (1000, shown)}, MOVED, 3000)["cube"] == pytest.approx(shown)
    for step in range(2 * KEPT):
        held.poses({}, MOVED, 4000 + step)
    assert len(held._measured) == KEPT
