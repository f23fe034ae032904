"""The outcome: when it is paid, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from embodied.reward_models.turns.outcome import Outcome

from embodied.errors import UserError
from tests.reward_models.turns.plays import by_hand, values

ENDS = ["..T.C", ".C.T-"]
SUCCESS = np.array([[0, 0], [0, 0], [1, 0], [0, 1], [0, 0]], bool)


def test_by_hand_two_episodes_in_one_column() -> None:
    traj = by_hand(ENDS, success=SUCCESS)
    expected = [[0, 0], [0, 0], [1, 0], [0, 1], [0, 0]]
    np.testing.assert_array_equal(values(Outcome(), traj), expected)
    with_cost = [[0, 0], [0, -0.5], [1, 0], [0, 1], [-0.5, 0]]
    np.testing.assert_array_equal(values(Outcome(failure=-0.5), traj), with_cost)
    assert Outcome(-0.5).value_range == (-0.5, 1.0) and Outcome().value_range == (0.0, 1.0)


def test_success_before_the_end_is_no_outcome_and_a_termination_without_it_a_failure() -> None:
    traj = by_hand(["..T"], success=np.array([[1], [1], [0]], bool))
    np.testing.assert_array_equal(values(Outcome(failure=-1.0), traj)[:, 0], [0, 0, -1])


def test_an_episode_that_a_fault_ends_has_no_outcome() -> None:
    traj = by_hand([".C"], success=np.zeros((2, 1), bool))
    traj.valid[1] = False
    np.testing.assert_array_equal(values(Outcome(failure=-1.0), traj), 0.0)


@pytest.mark.parametrize("failure", [-11.0, 1.5, float("nan")])
def test_bad_settings_are_told_in_one_line(failure: float) -> None:
    with pytest.raises(UserError, match=r"reward_model\.outcome\.failure="):
        Outcome(failure)
