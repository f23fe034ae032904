"""Gated accumulation: what opens a gate, and what is paid behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.gated import Gated
from embodied.reward_models.turns.outcome import Outcome
from embodied.reward_models.turns.verified_turn import VerifiedTurn
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.types import Trajectory
from tests.reward_models.turns.plays import by_hand, values
from tests.toys import episode_step


def paid(ends: list[str], **terms: Any) -> Trajectory:
    traj = by_hand(ends)
    traj.reward_terms = {name: np.array(value, np.float32).T for name, value in terms.items()}
    return traj


def test_a_chain_of_three_by_hand() -> None:
    # three episodes in two columns: a = 1, 0 (shut), 2; b = 0.5 (open above 0.4), 3, 0.25 (shut)
    traj = paid(
        ["..T.T", "..C--"],
        a=[[0, 0, 1, 0, 0], [1, 0, 1, 0, 0]],
        b=[[0.25, 0.25, 0, 1, 2], [0.25, 0, 0, 0, 0]],
        c=[[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]],
    )
    chain = Gated(over=("a", "b", "c"), above=(0.0, 0.4))
    expected = [[0.25 + 1, 0.25 + 2, 1 + 3, 0, 0], [1 + 0.25, 0, 1, 0, 0]]
    np.testing.assert_allclose(values(chain, traj).T, expected)
    weighted = Gated(over=("a", "b", "c"), above=(0.0, 0.4), weights=(2.0, 0.0, 10.0))
    expected = [[10, 20, 2 + 30, 0, 0], [2, 0, 2, 0, 0]]
    np.testing.assert_allclose(values(weighted, traj).T, expected)
    parts = chain.score({}, traj)[1].terms
    np.testing.assert_array_equal(parts["a_open"], 1.0)
    np.testing.assert_array_equal(parts["b_open"].T, [[1, 1, 1, 0, 0], [1] * 5])
    np.testing.assert_array_equal(parts["c_open"].T, [[1, 1, 1, 0, 0], [0] * 5])


def test_a_gate_opens_above_its_threshold_not_at_it() -> None:
    traj = paid(["C", "C"], a=[[0.5], [0.75]], b=[[1], [1]])
    shut, open_ = values(Gated(("a", "b"), (0.5,)), traj)[0]
    assert (shut, open_) == (0.5, 1.75)


def test_what_is_not_valid_opens_nothing_and_is_not_paid() -> None:
    traj = paid(["..C"], a=[[0, np.nan, 0]], b=[[1, 1, 1]])
    traj.valid[1] = False
    np.testing.assert_array_equal(values(Gated(("a", "b"), (0.0,)), traj)[:, 0], 0.0)
    traj.reward_terms["a"][2] = 1.0
    np.testing.assert_array_equal(values(Gated(("a", "b"), (0.0,)), traj)[:, 0], [1, 0, 2])


def test_in_a_run_verified_turns_count_only_where_the_outcome_is_reached() -> None:
    success = np.array([[0, 0, 1], [0, 0, 0]], bool).T
    reached = np.array([[1, 1, 2], [1, 1, 1]]).T
    traj = by_hand(
        ["..T", "..C"],
        success=success,
        world__reached=reached,
        world__subgoals=np.full((3, 2), 2),
        world__begun=np.zeros((3, 2)),
        world__valid=np.ones((3, 2), bool),
    )
    models = {"gated": Gated(), "outcome": Outcome(), "verified_turn": VerifiedTurn()}
    channels = {name: Channel(name, model, whole=True) for name, model in models.items()}
    rewards = Rewards(channels, 2, 1.0)
    rewards.begin(None)
    rewards.label(traj, episode_step(traj))
    np.testing.assert_array_equal(traj.reward.T, [[0.5, 0, 1.5], [0, 0, 0]])
    assert traj.weights == {"gated": 1.0, "outcome": 0.0, "verified_turn": 0.0}
    assert rewards.parts["gated/verified_turn_open"] == 0.5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=3, max_size=3))
def test_no_gate_shuts_what_comes_first_and_all_open_is_the_sum(rows: list[list[int]]) -> None:
    traj = paid([".T.C"], a=[rows[0]], b=[rows[1]], c=[rows[2]])
    terms = traj.reward_terms
    whole = values(Gated(("a", "b", "c"), (-99.0, -99.0)), traj)
    np.testing.assert_allclose(whole, terms["a"] + terms["b"] + terms["c"])
    np.testing.assert_allclose(values(Gated(("a", "b", "c"), (99.0, 99.0)), traj), terms["a"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"over": ("outcome",)}, "gated.over="),
        ({"over": ("outcome", "outcome")}, "gated.over="),
        ({"above": ()}, "gated.above="),
        ({"above": (float("nan"),)}, "gated.above=nan"),
        ({"weights": (1.0,)}, "gated.weights="),
        ({"weights": (1.0, float("inf"))}, "gated.weights=inf"),
    ],
)
def test_bad_settings_are_told_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as told:
        Gated(**options)
    assert "\n" not in str(told.value)
