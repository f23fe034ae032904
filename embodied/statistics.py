"""What a handful of episodes can say: intervals at 95% for rates, means and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054
"""The 97.5% point of the standard normal."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's score interval for a rate (1927): sound near 0 and 1, and for few episodes."""
    if count == 0:
        return 0.0, 1.0
    rate, spread = successes / count, Z * Z / count
    centre = (rate + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == count else centre + half


def bootstrap(
    values: Sequence[float] | np.ndarray, resamples: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, equal for equal input; (nan, nan) for one value.

    `values` is `(count,)`.
    """
    values = np.asarray(values, np.float64)
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    rows = max(1, min(resamples, 1_000_000 // count))  # a block of at most 8 MB
    means = [
        values[rng.integers(0, count, (min(rows, resamples - done), count))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def paired_difference(
    ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray
) -> tuple[float, float, float]:
    """Mean of `ours - theirs` over the same seeds, with its bootstrap interval."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    return float(difference.mean()), *bootstrap(difference)


def paired_rates(
    ours: Sequence[bool] | np.ndarray, theirs: Sequence[bool] | np.ndarray
) -> tuple[float, float, float]:
    """Difference of two success rates over the same seeds, with Newcombe's interval.

    Method 10 of Newcombe (1998), "Improved confidence intervals for the difference between
    binomial proportions based on paired data": unlike a bootstrap it is not of zero width where
    the two always agree.
    """
    both, only_ours, only_theirs, neither = _table(ours, theirs)
    count = both + only_ours + only_theirs + neither
    p, q = (both + only_ours) / count, (both + only_theirs) / count
    (p_low, p_high), (q_low, q_high) = (wilson(round(r * count), count) for r in (p, q))
    margins = (both + only_ours) * (only_theirs + neither)
    margins *= (both + only_theirs) * (only_ours + neither)
    cross = float(both * neither - only_ours * only_theirs)
    if cross > 0.0:
        cross = max(cross - count / 2, 0.0)
    phi = cross / math.sqrt(margins) if margins else 0.0

    def half(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    low, high = half(p - p_low, q_high - q), half(q - q_low, p_high - p)
    return p - q, p - q - low, p - q + high


def mcnemar(ours: Sequence[bool] | np.ndarray, theirs: Sequence[bool] | np.ndarray) -> float:
    """Exact two-sided p value that two policies succeed equally often on the same seeds."""
    _, only_ours, only_theirs, _ = _table(ours, theirs)
    discordant, fewer = only_ours + only_theirs, min(only_ours, only_theirs)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, tail / 2 ** (discordant - 1)) if discordant else 1.0


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, `(count,)`; equal values share the mean of theirs."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2.0)[group]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; nan where one of them is constant or shorter than two."""
    if len(a) < 2:
        return math.nan
    x, y = ranks(np.asarray(a)), ranks(np.asarray(b))
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else math.nan


def _table(
    ours: Sequence[bool] | np.ndarray, theirs: Sequence[bool] | np.ndarray
) -> tuple[int, int, int, int]:
    """How often both, only ours, only theirs and neither succeeded."""
    a, b = np.asarray(ours, bool), np.asarray(theirs, bool)
    parts = (a & b, a & ~b, ~a & b, ~a & ~b)
    return tuple(int(part.sum()) for part in parts)  # type: ignore[return-value]
