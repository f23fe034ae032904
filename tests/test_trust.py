"""The gap between a judge and the truth is measured, and said when it opens."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.trust import WINDOW, Trust
from tests.toys import rollout, through_disk


def episodes(
    trust: Trust, judged: np.ndarray, true: np.ndarray, proxy: np.ndarray, truth: np.ndarray
) -> None:
    """Add two-step episodes, one a world; what is judged or true is so in the first step alone."""
    count = len(judged)
    zeros = np.zeros((2, count, 1))
    ends = np.zeros((2, count), bool)
    ends[1] = True
    traj = rollout(zeros, zeros, np.zeros_like(ends), ends)
    half = np.full((2, count), 0.5)
    once = np.array([[True], [False]])
    trust.add(traj, once & judged, once & true, half * proxy, half * truth)


def test_shares_and_returns_of_whole_episodes() -> None:
    trust = Trust(4)
    assert trust.figures() == {}
    flags = np.array([True, True, True, False]), np.array([True, False, False, False])
    episodes(trust, *flags, np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40]))
    figures = trust.figures()
    assert figures["judge/success"] == 0.75 and figures["judge/true_success"] == 0.25
    assert figures["judge/gap"] == 0.5 and figures["judge/correlation"] == pytest.approx(1.0)
    assert trust.alarm() == ""  # four episodes are too few to say


def test_an_alarm_where_the_judge_sees_what_is_not_there() -> None:
    trust, rank = Trust(WINDOW), np.arange(float(WINDOW))
    episodes(trust, rank < 200, rank < 180, rank, rank)
    assert trust.alarm() == ""
    episodes(trust, rank < 200, rank < 100, rank, rank)
    assert "judged success 78%, true 39%" in trust.alarm()


def test_an_alarm_where_paying_more_means_less() -> None:
    trust, rank = Trust(WINDOW), np.arange(float(WINDOW))
    never = np.zeros(WINDOW, bool)
    episodes(trust, never, never, rank, rank)
    assert trust.alarm() == ""
    noise = np.random.default_rng(0).permutation(rank)
    episodes(trust, never, never, rank - 1.0, noise)
    assert trust.alarm() == ""  # less valued: it may just have got harder
    episodes(trust, never, never, rank + 1.0, noise + 1.0)
    assert trust.alarm() == ""  # worth more, too
    episodes(trust, never, never, rank + 1.0, noise)
    assert "correlation" in trust.alarm()


def test_its_state_goes_on(tmp_path) -> None:
    trust, again, rank = Trust(WINDOW), Trust(WINDOW), np.arange(float(WINDOW))
    episodes(trust, rank < 9, rank < 5, rank, -rank)
    trust.alarm()
    again.load_state_dict(through_disk(trust.state_dict(), tmp_path))
    assert again.figures() == trust.figures()
    never = np.zeros(WINDOW, bool)
    for one in (trust, again):
        episodes(one, never, never, rank + 1.0, rank)
    assert again.figures() == trust.figures() and again.alarm() == trust.alarm()
