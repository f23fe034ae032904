"""Intervals against cases worked by hand or published."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embodied.statistics import (
    bootstrap,
    mcnemar,
    paired_difference,
    paired_rates,
    ranks,
    spearman,
    wilson,
)


def outcomes(both: int, ours: int, theirs: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two policies' successes on the same seeds, from a table of how they agree."""
    counts = (both, ours, theirs, neither)
    cells = ((True, True), (True, False), (False, True), (False, False))
    pairs = [cell for cell, count in zip(cells, counts, strict=True) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_wilson_by_hand() -> None:
    # z^2 = 3.8415; 8 of 10: centre (0.8 + 0.19207) / 1.38415 = 0.71674,
    # half 1.95996 / 1.38415 * sqrt(0.8 * 0.2 / 10 + 0.0096037) = 0.22658
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)


def test_wilson_at_the_ends() -> None:
    # 0 of n: high = z^2 / (n + z^2), which is 3.84146 / 13.84146
    assert wilson(0, 10) == (0.0, pytest.approx(0.27753, abs=1e-5))
    assert wilson(10, 10) == (pytest.approx(1 - 0.27753, abs=1e-5), 1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.05, 0.5, 0.97):
        hits = [low <= rate <= high for low, high in
                (wilson(int(k), 100) for k in rng.binomial(100, rate, 2000))]  # fmt: skip
        assert 0.91 < np.mean(hits) < 0.99


def test_bootstrap_of_two_values_by_hand() -> None:
    # Means of resamples of (0, 1): 0 with probability 1/4, 1/2 with 1/2, 1 with 1/4.
    assert bootstrap([0.0, 1.0]) == (0.0, 1.0)


def test_bootstrap_is_near_the_normal_interval_for_many_values() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    half = 1.96 * values.std() / math.sqrt(400)
    low, high = bootstrap(values)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_bootstrap_repeats_and_knows_its_limits() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap([3.0, 3.0, 3.0]) == (3.0, 3.0)
    assert all(math.isnan(side) for side in bootstrap([3.0]))


def test_bootstrap_in_blocks_uses_every_resample() -> None:
    values = np.random.default_rng(2).normal(size=3000)  # 333 resamples a block
    low, high = bootstrap(values, resamples=1000)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 / math.sqrt(3000), rel=0.2)


def test_paired_difference_removes_what_the_seeds_share() -> None:
    seeds = np.random.default_rng(3).normal(0.0, 100.0, 50)
    mean, low, high = paired_difference(seeds + 1.0, seeds)
    assert (mean, low, high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-9)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe (1998), method 10, first example
        ((36, 12, 2, 0), (0.2, 0.0569, 0.3404)),
        # By hand: all margins 1/2, no correlation: both margins' Wilson intervals for 10 of 20
        # are 0.5 -+ 0.20071, so the half width is sqrt(2) * 0.20071
        ((5, 5, 5, 5), (0.0, -0.28384, 0.28384)),
        # No disagreement in ten is not certainty: phi = 0, so 1 - wilson(10, 10)[0]
        ((10, 0, 0, 0), (0.0, -0.27753, 0.27753)),
        # Always ours: the whole range above; phi = 0; sqrt(2) * 0.27753 below
        ((0, 10, 0, 0), (1.0, 1 - 0.39249, 1.0)),
    ],
)
def test_paired_rates(table: tuple[int, int, int, int], expected: tuple[float, ...]) -> None:
    assert paired_rates(*outcomes(*table)) == pytest.approx(expected, abs=1e-4)


def test_paired_rates_turned_round() -> None:
    ours, theirs = outcomes(20, 9, 3, 8)
    mean, low, high = paired_rates(ours, theirs)
    assert paired_rates(theirs, ours) == pytest.approx((-mean, -high, -low))


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((0, 1, 5, 0), 2 * (1 + 6) / 64),  # of six fair coins at most one heads, twice
        ((9, 0, 0, 9), 1.0),
        ((0, 3, 3, 0), 1.0),  # 2 * (1 + 3 + 3 + ...) / 64 is above 1
        ((50, 10, 0, 0), 2 / 1024),
    ],
)
def test_mcnemar_by_hand(table: tuple[int, int, int, int], p: float) -> None:
    assert mcnemar(*outcomes(*table)) == pytest.approx(p)


def test_ranks_of_equal_values_are_shared() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_spearman_by_hand() -> None:
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15) = 0.8
    assert spearman(np.array([1.0, 2, 30, 400]), np.array([5.0, 7, 6, 8])) == pytest.approx(0.8)
    assert spearman(np.arange(5), -(np.arange(5) ** 3)) == pytest.approx(-1.0)
    assert math.isnan(spearman(np.arange(3), np.ones(3)))
    assert math.isnan(spearman(np.ones(1), np.ones(1)))
