"""Labels of demonstrations: progress by stage annotations, or by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied.dataset import Dataset
from embodied.errors import UserError


@dataclass
class StageLabels:
    """Of the K frames of a dataset, one after another: `stage` `(K,)` and the share `within` it.

    `shares` `(S,)` are the stages' mean shares of an episode, 1 together.
    """

    stage: Tensor  # (K,) int64
    within: Tensor  # (K,) float32
    shares: Tensor  # (S,) float32

    @property
    def value(self) -> Tensor:
        """Progress `(K,)` in [0, 1]: the stages before this one, and what is done of it."""
        before = torch.cumsum(self.shares, 0) - self.shares
        whole = before[self.stage] + self.shares[self.stage] * self.within
        done = (self.stage == len(self.shares) - 1) & (self.within >= 1.0)
        return torch.where(done, 1.0, whole)  # to the last bit

    @classmethod
    def of(cls, dataset: Dataset, annotated: bool = True) -> StageLabels:
        """Labels of demonstrations; where not `annotated`, all of one is one stage (t/T).

        The last stage ends with success, or at the last frame where there is none. Raises
        `UserError` for annotations that are missing, skip a stage or end before the last.
        """
        names = dataset.info.stages
        count = len(names) or 1 + max(int(episode.stage.max()) for episode in dataset.episodes)
        stages, withins, shares = [], [], []
        for number, episode in enumerate(dataset.episodes):
            stage, done = episode.stage, episode.success.copy()
            if not episode.succeeded:
                done[-1] = True
            if annotated:
                check_stages(stage, count, f"episode {number}", names)
            else:
                done = np.logical_or.accumulate(done)
                stage = np.zeros(len(episode), np.int64)
            within, lasted = _within(stage, done, count if annotated else 1, f"episode {number}")
            stages.append(np.where(done, stage.max(), stage))
            withins.append(within)
            shares.append(lasted / lasted.sum())
        return cls(
            torch.from_numpy(np.concatenate(stages)),
            torch.from_numpy(np.concatenate(withins).astype(np.float32)),
            torch.from_numpy(np.mean(shares, axis=0).astype(np.float32)),
        )


def _within(
    stage: np.ndarray, done: np.ndarray, count: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """What is done of its stage at every frame `(T,)`, and how long each stage lasts `(S,)`.

    A stage lasts as long as the first stay in it that a later stage, or success, ends. What is
    left of it is the time until then, so that a stay which ends in a setback has got nowhere.
    """
    beyond = np.where(done, count, stage)
    edges = np.flatnonzero(np.diff(beyond)) + 1
    stays = np.split(np.arange(len(stage)), edges)
    within, lasted = np.zeros(len(stage)), np.zeros(count)
    for stay, following in zip(stays[:-1], stays[1:], strict=True):
        here = beyond[stay[0]]
        if here < count and beyond[following[0]] > here and not lasted[here]:
            lasted[here] = len(stay)
    if not lasted[-1]:
        raise UserError(f"{what} ends before its last stage has begun, or not in it")
    lasted = np.maximum(lasted, 1.0)
    for k in range(count):
        later = np.append(np.flatnonzero(beyond > k), 10 * len(stage))
        rows = np.flatnonzero(beyond == k)
        left = later[np.searchsorted(later, rows)] - rows
        within[rows] = np.clip(1.0 - left / lasted[k], 0.0, 1.0)
    within[done] = 1.0
    return within, lasted


def check_stages(
    stage: np.ndarray, count: int, what: str = "the episode", names: Sequence[str] = ()
) -> None:
    """Raises `UserError` where an annotation `(T,)` is not one of `count` stages in order.

    It may fall back, as after a setback, but has every stage and ends in the last.
    """
    if (stage < 0).any():
        raise UserError(f"{what}: frame {int((stage < 0).argmax())} has no stage: annotate it")
    if stage.max() >= count:
        raise UserError(f"{what}: stage {int(stage.max())}, but there are {count} stages")
    for k in range(count):
        if not (stage == k).any():
            name = _name(k, names)
            raise UserError(f"{what} never is in stage {name}: annotate every stage, in order")
    starts = np.array([int((stage >= k).argmax()) for k in range(count)])
    skipped = np.flatnonzero(np.diff(starts) == 0)
    if len(skipped):
        first = _name(int(skipped[0]), names)
        raise UserError(f"{what} skips stage {first}: annotate every stage")


def time_shares(dataset: Dataset) -> Tensor:
    """Time's share of an episode up to its first success, `(K,)` in [0, 1]; 1 from there on.

    Raises `UserError` for an episode that never succeeds, or has nothing before it does.
    """
    rows = []
    for number, episode in enumerate(dataset.episodes):
        done = int(episode.success.argmax())
        if not episode.succeeded:
            raise UserError(f"episode {number} never succeeds: give successful demonstrations")
        if not done:
            raise UserError(f"episode {number} is done from its first frame: it shows no progress")
        rows.append(np.minimum(np.arange(len(episode)) / done, 1.0))
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def _name(index: int, names: Sequence[str]) -> str:
    return repr(names[index]) if index < len(names) else str(index)
