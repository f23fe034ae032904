"""What the hand holds goes where the hand goes."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.deploy.in_hand import KEPT, InHand

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


def cube_in(q: np.ndarray, aside: float = 0.0) -> np.ndarray:
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
def carried() -> InHand:
    return InHand(ROBOT, JOINTS, {"cube": HALF_M})


def test_what_is_held_and_hidden_goes_along(carried: InHand) -> None:
    shown = cube_in(GRIPPED, aside=0.01)
    seen = {"cube": (1000, shown)}
    assert carried.poses(seen, GRIPPED, 1000)["cube"] == pytest.approx(shown)
    half_way = 0.5 * (GRIPPED + MOVED)
    carried.poses(seen, half_way, 2000)
    found = carried.poses(seen, MOVED, 3000)["cube"]
    assert found == pytest.approx(cube_in(MOVED, aside=0.01), abs=1e-6)


def test_a_late_image_is_brought_up_to_date(carried: InHand) -> None:
    carried.poses({}, GRIPPED, 1000)
    middle = 0.25 * GRIPPED + 0.75 * MOVED
    carried.poses({}, MOVED, 2000)
    late = {"cube": (1750, cube_in(middle))}
    assert carried.poses(late, MOVED, 3000)["cube"] == pytest.approx(cube_in(MOVED), abs=1e-6)


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
    carried: InHand, start: np.ndarray, end: np.ndarray, aside: float, half_m: float
) -> None:
    carried.define({"cube": half_m})
    shown = cube_in(start, aside)
    carried.poses({"cube": (1000, shown)}, start, 1000)
    assert carried.poses({"cube": (1000, shown)}, end, 2000)["cube"] == pytest.approx(shown)


def test_a_camera_with_another_clock_is_believed_as_it_is(carried: InHand) -> None:
    carried.poses({}, GRIPPED, 10_000)
    shown = cube_in(MOVED)
    for stamp_ns in (5, 99_000):
        assert carried.poses({"cube": (stamp_ns, shown)}, MOVED, 20_000)["cube"] == pytest.approx(
            shown
        )


def test_where_it_was_is_forgotten(carried: InHand) -> None:
    carried.poses({"cube": (1000, cube_in(GRIPPED))}, GRIPPED, 1000)
    carried.forget()
    assert carried.poses({}, GRIPPED, 2000) == {}
    shown = cube_in(MOVED)
    assert carried.poses({"cube": (1000, shown)}, MOVED, 3000)["cube"] == pytest.approx(shown)
    for step in range(2 * KEPT):
        carried.poses({}, MOVED, 4000 + step)
    assert len(carried._measured) == KEPT
