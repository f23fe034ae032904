"""What demonstrations have shown of every stage, and how far outside of it a state is."""

from __future__ import annotations

import math

import pytest
import torch
from embodied.reward_models.support import (
    DONE_MARGIN,
    FAR,
    INNER,
    LEAST,
    NARROW,
    UNIT,
    Support,
    SupportEncoder,
    outside,
)


def encoder() -> SupportEncoder:
    """One number of the robot's own, then one that is 0 to 1 in stage 1, and 4 to 5 when done."""
    found = SupportEncoder(2, 0, stages=3)
    reached = torch.cat([torch.linspace(0, 1, 101), torch.linspace(2, 5, 101)])
    stage = torch.cat([torch.ones(101), torch.full((101,), 2)]).long()
    found.support.learn(reached[:, None], reached >= 4.0, stage)
    return found


def far(found: SupportEncoder, *numbers: float, robot: float = 0.0) -> torch.Tensor:
    state = torch.tensor([[robot, number] for number in numbers])
    return outside(found(state, []), 3)


def test_inside_of_a_stage_nothing_is_far_and_outside_it_grows() -> None:
    told = far(encoder(), 0.5, 1.0, 1.5, 2.0, 9.0)[:, 1]
    assert told[0] == 0.0 and told[1] < 0.5
    assert 0.0 < told[1] + 1e-6 < told[2] < told[3] < told[4]


def test_every_stage_and_being_done_have_ranges_of_their_own() -> None:
    first, one, two, done = far(encoder(), 4.5)[0].tolist()
    assert (first, two, done) == (0.0, 0.0, 0.0) and one > FAR
    assert far(encoder(), 1.7)[0, 3] > far(encoder(), 1.9)[0, 3] > 0.0


def test_what_is_far_can_still_be_farther_by_hand() -> None:
    support = Support(1, stages=0)
    rows = torch.linspace(4, 5, 101)[:, None]
    support.learn(rows, torch.ones(101, dtype=torch.bool))
    width, least = 1.0 - 2.0 * INNER, LEAST * rows.std(correction=0).item()
    high, unit = 5.0 - INNER + DONE_MARGIN * width + least, UNIT * width + least
    for units in (0.0, 8.0, 80.0):
        state, told = torch.tensor([[high + units * unit]]), FAR * math.log1p(units / FAR)
        assert support(state)[0, -1].item() == pytest.approx(told, abs=1e-3)
        assert support.allowed(state).item() == pytest.approx(math.exp(-NARROW * told), abs=1e-4)


def test_demonstrators_are_more_precise_than_they_have_to_be() -> None:
    told = far(encoder(), 2.2, 6.8)
    assert (told[:, 3] == 0.0).all() and told[1, 2] > 0.0


def test_the_robots_own_numbers_and_the_first_stage_have_no_range() -> None:
    found = encoder()
    assert torch.equal(far(found, 0.5, robot=1e3), far(found, 0.5))
    assert (far(found, -50.0, 50.0)[:, 0] == 0.0).all()


def test_without_stages_or_without_other_numbers_nothing_is_outside() -> None:
    for columns, stage in ((1, torch.zeros(5)), (0, torch.ones(5))):
        found = SupportEncoder(2, 0, stages=3)
        found.support.learn(torch.rand(5, columns), stage.bool(), stage.long())
        assert (far(found, -1e6, 1e6) == 0.0).all()
