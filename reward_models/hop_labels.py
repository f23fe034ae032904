"""Hops between two moments of a demonstration: their potentials, the hop, which ones to learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embodied.dataset import Dataset
from embodied.errors import UserError

from .stages import StageLabels

SCORE_BINS, GAP_BINS = 25, 4
HOPS = 1000
"""Hops of an episode, at most."""


def hop(before: Tensor, after: Tensor) -> Tensor:
    """The hop in [-1, 1] from potential `before` to `after`: the share of the way that is left,
    or, where it goes back, of the way already gone."""
    room = torch.where(after >= before, 1.0 - before, before)
    return (after - before) / room.clamp(min=1e-6)


def land(phi: Tensor, hop: Tensor) -> Tensor:
    """The potential that a hop from `phi` leads to: the inverse of `hop`."""
    return torch.where(hop >= 0.0, phi + (1.0 - phi) * hop, phi + phi * hop)


def fuse(hops: dict[str, Tensor], phi: Tensor, consistency: float | None = None) -> Tensor:
    """Phi* `(n,)` in [0, 1] from the hops of some perspectives and the last Phi*.

    Without `consistency` the mean of what they say. With it, F and B being what the anchored two
    say, m their mean and D = |B - F| / m: Phi + exp(-consistency D^2) / 2 (m - Phi + dPhi), where
    dPhi is what the incremental hop adds.
    """
    told = {
        name: land(phi, value) if name == "incremental" else value + (name == "backward")
        for name, value in hops.items()
    }
    if consistency is None:
        return torch.stack(list(told.values())).mean(0).clamp(0.0, 1.0)
    mean = 0.5 * (told["forward"] + told["backward"])
    apart = (told["backward"] - told["forward"]).abs() / (mean.abs() + 1e-2)
    trust = torch.exp(-consistency * apart.square())
    step = mean - phi + told["incremental"] - phi
    return (phi + 0.5 * trust * step).clamp(0.0, 1.0)


def potentials(dataset: Dataset, stage_labels: bool = True) -> list[np.ndarray]:
    """Phi `(T,)` of every episode: i/M where the i-th of M stages begins, 1 at success, linear
    between; without `stage_labels` t/T.

    Raises `UserError` for an episode that fails, or whose stages are no ordered annotation.
    """
    for number, episode in enumerate(dataset.episodes):
        if not episode.success[-1]:
            raise UserError(f"episode {number} ends without success: give one that succeeds")
    labels = StageLabels.of(dataset, stage_labels)
    phi = (labels.stage + labels.within).double().numpy() / len(labels.shares)
    return np.split(phi, np.cumsum([len(episode) for episode in dataset.episodes])[:-1])


def sample_hops(
    phi: np.ndarray, rng: np.random.Generator, rewind: float = 0.5, zero: float = 0.05
) -> np.ndarray:
    """At most `HOPS` pairs of frames `(K, 2)` of an episode with potentials `phi` `(T,)`.

    A share `rewind` of those that move goes backward, a share `zero` of all goes nowhere. The
    others are drawn evenly over 25 bins of the hop by 4 of the gap in time.
    """
    early, late = np.triu_indices(len(phi), 1)
    gap = (late - early) * GAP_BINS // len(phi)
    moving = round((1.0 - zero) * HOPS)
    picked = []
    for share, pair in ((1.0 - rewind, (early, late)), (rewind, (late, early))):
        before, after = (torch.from_numpy(phi[rows]) for rows in pair)
        score = (hop(before, after).numpy() + 1.0) / 2.0 * SCORE_BINS
        bins = np.minimum(score.astype(np.int64), SCORE_BINS - 1)
        rows = _evenly(bins * GAP_BINS + gap, round(share * moving), rng)
        picked.append(np.stack(pair, -1)[rows])
    still = round(zero * sum(map(len, picked)) / (1.0 - zero)) if zero < 1.0 else HOPS
    picked.append(np.repeat(rng.integers(len(phi), size=(still, 1)), 2, axis=1))
    return np.concatenate(picked)


def _evenly(cell: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `count` rows, taken from each cell in turn."""
    order = rng.permutation(len(cell))
    order = order[np.argsort(cell[order], kind="stable")]
    turn = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return order[np.argsort(turn, kind="stable")[:count]]
