"""Advantages in groups, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embodied.group_advantages import grpo, in_group, rloo, same_state, same_turn, to_go

GROUP = np.array([0, 0, 0, 1, 1])
RETURNS = np.array([1.0, 0.0, 2.0, 5.0, 5.0])


def test_grpo_by_hand() -> None:
    # group 0: mean 1, deviation sqrt(2/3) = 0.8165: 0, -1.2247, 1.2247; group 1 has no spread
    np.testing.assert_allclose(grpo(RETURNS, GROUP), [0, -1.2247, 1.2247, 0, 0], atol=1e-4)
    np.testing.assert_allclose(grpo(RETURNS, GROUP, scale=False), [0, -1, 1, 0, 0])


def test_rloo_by_hand() -> None:
    # against the mean of the others: 1 - 1, 0 - 1.5, 2 - 0.5
    np.testing.assert_allclose(rloo(RETURNS, GROUP), [0, -1.5, 1.5, 0, 0])
    np.testing.assert_allclose(rloo(np.array([3.0, 4.0]), np.array([0, 1])), [0, 0])  # alone


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_rloo_is_the_return_less_the_others_mean(returns: list[float]) -> None:
    values = np.array(returns)
    others = [np.delete(values, i).mean() for i in range(len(values))]
    np.testing.assert_allclose(rloo(values, np.zeros(len(values))), values - others, atol=1e-5)


def test_sums_to_the_end_by_hand() -> None:
    reward = np.array([[1.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
    valid = np.array([[True, True], [True, True], [True, False]])
    # first world: 4, 2 + .5 * 4, 1 + .5 * 4; the second ends after two turns
    np.testing.assert_allclose(to_go(reward, valid, 0.5), [[3, 2], [4, 4], [4, 0]])


def test_a_turn_that_was_taken_out_hands_on_what_comes() -> None:
    reward, valid = (
        np.array([[0.0], [9.0], [0.0], [1.0]]),
        np.array([[True], [False], [True], [True]]),
    )
    np.testing.assert_allclose(to_go(reward, valid, 0.5)[:, 0], [0.25, 0, 0.5, 1])


def test_gigpo_s_step_part_by_hand() -> None:
    states = [["a", "a", "a"], ["b", "a", "b"]]
    values = np.array([[1.0, 3.0, 9.0], [5.0, 5.0, 7.0]])
    valid = np.ones((2, 3), bool)
    group = np.array([0, 0, 1])
    # group 0 saw "a" with 1, 3 and 5: mean 3; its "b" once. Group 1 saw each once
    got = same_state(values, states, valid, group)
    np.testing.assert_allclose(got, [[-2, 0, 0], [0, 2, 0]])
    scaled = same_state(values, states, valid, group, scale=True)
    np.testing.assert_allclose(scaled, [[-1.2247, 0, 0], [0, 1.2247, 0]], atol=1e-4)


def test_a_turn_that_is_not_valid_counts_for_nothing() -> None:
    states, values = [["a", "a"], ["a", "a"]], np.array([[1.0, 3.0], [99.0, 99.0]])
    valid = np.array([[True, True], [False, False]])
    got = same_state(values, states, valid, np.zeros(2))
    np.testing.assert_allclose(got, [[-1, 1], [0, 0]])
    np.testing.assert_allclose(in_group(values, valid, np.zeros(2)), [[-1, 1], [0, 0]], atol=1e-5)


def test_turns_are_held_against_the_same_turn_of_their_group() -> None:
    values = np.array([[0.0, 1.0, 5.0, 7.0], [2.0, 6.0, 9.0, 7.0]])
    valid, group = np.array([[1, 1, 1, 1], [1, 1, 0, 1]], bool), np.array([0, 0, 0, 1])
    got = same_turn(values, valid, group, scale=False)
    # first turns 0, 1, 5: mean 2; second ones 2, 6: mean 4, as the third world's is over by then
    np.testing.assert_allclose(got, [[-2, -1, 3, 0], [-2, 2, 0, 0]])
    got = same_turn(values, valid, group)  # deviations sqrt(14/3) = 2.1602 and 2
    np.testing.assert_allclose(got, [[-0.9258, -0.4629, 1.3887, 0], [-1, 1, 0, 0]], atol=1e-4)


def test_turns_of_a_group_are_standardised_together() -> None:
    values = np.array([[0.0, 2.0, 7.0], [2.0, 4.0, 7.0]])
    got = in_group(values, np.ones((2, 3), bool), np.array([0, 0, 1]))
    # group 0: 0, 2, 2, 4: mean 2, deviation sqrt 2
    np.testing.assert_allclose(got, [[-1.4142, 0, 0], [0, 1.4142, 0]], atol=1e-4)
    got = in_group(values, np.ones((2, 3), bool), np.array([0, 0, 1]), scale=False)
    np.testing.assert_allclose(got, [[-2, 0, 0], [0, 2, 0]])
