"""Tiers beneath the outcome: how they are cut, and that they never outweigh it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.tiered import Tiered, tier
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UserError
from tests.reward_models.turns.plays import by_hand, play, values
from tests.talks import doors


def ended(reached: list[float], success: list[bool], subgoals: int) -> Any:
    """Episodes of one turn, one a world."""
    return by_hand(
        ["C"] * len(reached),
        success=np.array([success]),
        world__reached=np.array([reached], np.float32),
        world__subgoals=np.full((1, len(reached)), subgoals, np.float32),
    )


def test_quartiles_by_hand() -> None:
    # of 5 blocks: 0, 1 (.2), 2 (.4), 3 (.6), 4 (.8) and all right, cut into quarters
    traj = ended([0, 1, 2, 3, 4, 5, 5], [False] * 6 + [True], 5)
    got = values(Tiered(alpha=0.5), traj)[0]
    np.testing.assert_array_equal(got, [0, 0, 0.125, 0.25, 0.375, 0.5, 1.5])
    got = values(Tiered(alpha=0.25, tiers=1), traj)[0]
    np.testing.assert_array_equal(got, [0, 0, 0, 0, 0, 0.25, 1.25])


def test_it_is_paid_on_the_last_turn_of_each_episode_alone() -> None:
    traj = by_hand(
        [".T.C-"],
        success=np.array([[0, 1, 0, 0, 0]], bool).T,
        world__reached=np.array([[1, 2, 1, 1, 1]], np.float32).T,
        world__subgoals=np.full((5, 1), 2, np.float32),
    )
    np.testing.assert_array_equal(values(Tiered(), traj)[:, 0], [0, 1.5, 0, 0.25, 0])
    traj.valid[3] = False
    np.testing.assert_array_equal(values(Tiered(), traj)[:, 0], [0, 1.5, 0, 0, 0])


def test_gaussian_tiers_by_hand() -> None:
    # sigma 2: exp(-1/8) = .8825, exp(-1/2) = .6065, exp(-9/8) = .3247, exp(-2) = .1353
    away = [0, 1, 2, 3, 4, -2, 1e30, np.inf, np.nan]
    traj = by_hand(["C"] * 9, success=np.zeros((1, 9), bool), distance=np.array([away], np.float32))
    model = Tiered(alpha=0.5, distance="distance", sigma=2.0)
    got = values(model, traj)[0]
    np.testing.assert_array_equal(got, [0.5, 0.375, 0.25, 0.125, 0, 0.25, 0, 0, 0])
    assert model.needs.readouts == model.needs.privileged == {"success", "distance"}


def test_every_number_of_tiers_cuts_exact_shares_exactly() -> None:
    for tiers in range(1, 30):
        for part in range(tiers + 1):
            assert tier(np.float32(part), np.float32(tiers), tiers) == part / tiers


COUNTS = st.lists(st.integers(0, 9), min_size=2, max_size=6)


@settings(max_examples=100, deadline=None)
@given(COUNTS, COUNTS, st.floats(0.0, 0.999999), st.integers(1, 12))
def test_every_success_is_paid_more_than_every_failure(
    won: list[int], lost: list[int], alpha: float, tiers: int
) -> None:
    traj = ended([*won, *lost], [True] * len(won) + [False] * len(lost), 9)
    model = Tiered(alpha, tiers)
    got = values(model, traj)[0]
    assert got[: len(won)].min() > got[len(won) :].max()
    assert got.min() >= 0.0 and got.max() <= np.float32(model.value_range[1])
    failures = got[len(won) :]
    order = np.argsort(lost)
    assert (np.diff(failures[order]) >= 0.0).all()


def test_on_real_doors() -> None:
    told = play(doors(4), Tiered())
    np.testing.assert_array_equal(told.reward, [[0.0] * 4, [1.5] * 4])
    env = doors(2, max_steps=3)
    env.reset()
    halfway = [[env.gold()[0][0], "dance"]] * 2
    told = play(doors(2, max_steps=3), Tiered(), halfway)
    np.testing.assert_array_equal(told.reward, [[0.0] * 2, [0.0] * 2, [0.25] * 2])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": 1.0}, "tiered.alpha=1.0"),
        ({"alpha": 1.0 - 1e-12}, "tiered.alpha="),  # as it is paid, in single precision, 1
        ({"alpha": -0.1}, "tiered.alpha="),
        ({"alpha": float("nan")}, "tiered.alpha="),
        ({"alpha": 1e300}, "tiered.alpha="),
        ({"tiers": 0}, "tiered.tiers=0"),
        ({"sigma": 0.0}, "tiered.sigma=0"),
    ],
)
def test_bad_settings_are_told_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as told:
        Tiered(**options)
    assert "\n" not in str(told.value)
