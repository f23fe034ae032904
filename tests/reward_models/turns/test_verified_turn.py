"""Verified turns: what is newly reached, what it costs, and what is never paid twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.verified_turn import VerifiedTurn
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.reward_model import Channel, due, start
from embodied.rewards import Rewards
from embodied.types import Trajectory
from tests.reward_models.turns.plays import by_hand, play, values
from tests.talks import doors
from tests.toys import chunks, episode_step


def turns(ends: list[str], reached: Any, valid: Any = None, subgoals: int = 4) -> Trajectory:
    """Worlds' turns, `(N, T)` each."""
    reached = np.array(reached, np.float32).T
    valid = np.ones(reached.shape, bool) if valid is None else np.array(valid, bool).T
    whole = np.full(reached.shape, subgoals, np.float32)
    told = {"world__reached": reached, "world__valid": valid, "world__subgoals": whole}
    return by_hand(ends, **told, world__begun=np.zeros_like(whole))


def test_two_episodes_in_one_column_by_hand() -> None:
    traj = turns(["..T.C", "...C-"], [[1, 1, 4, 0, 2], [0, 1, 2, 2, 2]])
    expected = [[0.25, 0, 0.75, 0, 0.5], [0, 0.25, 0.25, 0, 0]]
    np.testing.assert_array_equal(values(VerifiedTurn(), traj).T, expected)


def test_what_a_turn_costs_by_hand() -> None:
    traj = turns([".." + "C-"], [[0, 2, 2, 2]], [[0, 1, 0, 0]])  # the last row rests
    got = values(VerifiedTurn(invalid=0.5, turn_cost=0.125), traj)[:, 0]
    np.testing.assert_array_equal(got, [-0.625, 0.375, -0.625, 0])
    assert VerifiedTurn(0.5, 0.125).value_range == (-0.625, 1.0)


def test_a_bound_holds_for_the_sum_at_every_turn() -> None:
    traj = turns([".....C"], [[2, 3, 3, 3, 3, 4]], [[1, 1, 0, 0, 0, 1]])
    got = values(VerifiedTurn(invalid=0.5, bound=0.625), traj)[:, 0]
    # 0.5; up to 0.625; down by 0.5 to 0.125, -0.375 and no further than -0.625; then + 0.25
    np.testing.assert_array_equal(got, [0.5, 0.125, -0.5, -0.5, -0.25, 0.25])


def test_what_is_undone_and_done_again_is_paid_once() -> None:
    traj = turns(["....C"], [[2, 1, 2, 1, 3]])
    np.testing.assert_array_equal(values(VerifiedTurn(), traj)[:, 0], [0.5, 0, 0, 0, 0.25])


def test_what_held_at_the_start_is_not_paid() -> None:
    traj = turns([".T.T"], [[1, 4, 2, 4]])
    traj.readouts["world.begun"] = np.array([[1, 1, 2, 2]], np.float32).T
    model = VerifiedTurn()
    np.testing.assert_array_equal(values(model, traj)[:, 0], [0, 0.75, 0, 0.5])
    assert "world.begun" in model.needs.privileged


def test_a_step_that_is_not_valid_is_not_paid_nor_made_up_for() -> None:
    traj = turns(["..C"], [[1, 2, 2]])
    traj.valid[1] = False
    np.testing.assert_array_equal(values(VerifiedTurn(), traj)[:, 0], [0.25, 0, 0])


def test_asked_about_every_second_turn_it_pays_what_came_since() -> None:
    traj = turns(["....T"], [[1, 2, 2, 3, 4]])
    traj.due = due(2, episode_step(traj), traj.terminated)
    np.testing.assert_array_equal(values(VerifiedTurn(), traj)[:, 0], [0, 0.5, 0, 0.25, 0.25])


@st.composite
def any_turns(draw: Any) -> Trajectory:
    """Two worlds of some six turns, of episodes that end at any of them."""
    ends, reached, valid = [], [], []
    for _ in range(2):
        letters = draw(st.lists(st.sampled_from("...TC"), min_size=6, max_size=6))
        row, most = [], 0
        for letter in letters:
            most = min(5, most + draw(st.integers(0, 2)))
            row.append(most)
            most = 0 if letter in "TC" else most
        ends.append("".join(letters))
        reached.append(row)
        valid.append(draw(st.lists(st.booleans(), min_size=6, max_size=6)))
    return turns(ends, reached, valid, subgoals=5)


OPTIONS = ({}, {"invalid": 0.3, "turn_cost": 0.01}, {"invalid": 0.3, "bound": 0.5})


@settings(max_examples=40, deadline=None)
@given(any_turns(), st.sampled_from(OPTIONS), st.integers(1, 5))
def test_in_chunks_it_is_scored_as_the_whole_is(
    traj: Trajectory, options: Any, length: int
) -> None:
    whole = values(VerifiedTurn(**options), traj)
    np.testing.assert_array_equal(values(VerifiedTurn(**options), traj, length), whole)
    rewards = Rewards({"it": Channel("it", VerifiedTurn(**options))}, 2, 1.0)
    rewards.begin(start(traj, 0))
    for part in chunks(traj, length):
        rewards.label(part, np.zeros(part.shape, int))
        rows = slice(int(part.step_id[0, 0]) // 2, int(part.step_id[-1, 0]) // 2 + 1)
        np.testing.assert_array_equal(part.reward, whole[rows])


@settings(max_examples=40, deadline=None)
@given(any_turns(), st.floats(0.01, 2.0))
def test_an_episode_adds_up_to_what_it_reached_within_the_bound(
    traj: Trajectory, bound: float
) -> None:
    plain = values(VerifiedTurn(), traj)
    bounded = values(VerifiedTurn(invalid=0.4, turn_cost=0.1, bound=bound), traj)
    done = traj.terminated | traj.truncated
    for n in range(2):
        sums, kept = 0.0, 0.0
        for t in range(len(plain)):
            sums, kept = sums + plain[t, n], kept + bounded[t, n]
            assert abs(kept) <= bound + 1e-5
            assert abs(sums - traj.readouts["world.reached"][t, n] / 5) < 1e-5
            if done[t, n]:
                sums = kept = 0.0


def test_on_real_doors_the_gold_talk_is_paid_one_in_all() -> None:
    env = doors(4)
    told = play(env, VerifiedTurn(turn_cost=0.25))
    np.testing.assert_array_equal(told.reward.sum(0), 1.0 - 2 * 0.25)
    longer = [["dance", *plan] for plan in env.gold()]
    told = play(env, VerifiedTurn(invalid=0.5), longer)  # other tasks: an env goes on to its next
    assert (told.reward[0] == -0.5).all()


@pytest.mark.parametrize("name", ["invalid", "turn_cost", "bound"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_bad_settings_are_told_in_one_line(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"reward_model\.verified_turn\.{name}="):
        VerifiedTurn(**{name: value})
