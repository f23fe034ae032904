"""Recorded episodes in memory: what reward models are fitted to and judged on.

On disk they are a LeRobotDataset v3 (`embodied.lerobot`); `embodied collect` records them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.types import ActionSpec


@dataclass
class Episode:
    """T frames of one episode. Row t is the state before action t, and what that state is.

    `stage` is the index of the stage that the state is in, -1 where nobody said; `progress` is
    the task's own measure of how far it is, for judging reward models and never for fitting them
    (NaN where there is none).
    """

    instruction: str
    source: str
    """Who acted: "expert", "expert:slow", "random", or a run."""
    seed: int
    state: np.ndarray  # (T, D) float32, what a policy sees, as one vector
    action: np.ndarray  # (T, A) float32
    reward: np.ndarray  # (T,) float32, what the env paid for action t
    success: np.ndarray  # (T,) bool, whether the state is a success
    stage: np.ndarray  # (T,) int64
    progress: np.ndarray  # (T,) float32
    images: dict[str, np.ndarray] = field(default_factory=dict)  # camera: (T, H, W, 3) uint8
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # reward model: (T,) float32

    def __len__(self) -> int:
        return len(self.state)

    @property
    def succeeded(self) -> bool:
        return bool(self.success.any())

    def at(self, frames: np.ndarray | slice) -> Episode:
        """The episode that shows `frames` (an index into T) in that order."""

        def take(value: np.ndarray) -> np.ndarray:
            return value[frames]

        rows: dict[str, Any] = {name: take(getattr(self, name)) for name in ROWS}
        images = {camera: take(value) for camera, value in self.images.items()}
        scores = {name: take(value) for name, value in self.scores.items()}
        return replace(self, **rows, images=images, scores=scores)


ROWS = ("state", "action", "reward", "success", "stage", "progress")


@dataclass(frozen=True)
class DatasetInfo:
    """What all episodes of a dataset share. `proprio_size` leading columns of the state are the
    robot's own: what is left to a model that sees the rest through cameras."""

    env: str
    rate_hz: float
    action_spec: ActionSpec
    proprio_size: int
    stages: tuple[str, ...] = ()
    """Names of the ordered stages."""
    cameras: tuple[str, ...] = ()
    robot: str = ""


@dataclass
class Dataset:
    """Episodes with what they share."""

    info: DatasetInfo
    episodes: list[Episode]

    def __len__(self) -> int:
        return len(self.episodes)

    def where(self, keep: Callable[[Episode], bool]) -> Dataset:
        """The episodes for which `keep` is true."""
        return Dataset(self.info, [episode for episode in self.episodes if keep(episode)])

    def take(self, rows: Sequence[int] | np.ndarray) -> Dataset:
        return Dataset(self.info, [self.episodes[int(row)] for row in rows])

    def need_cameras(self, cameras: Sequence[str]) -> None:
        """Raise `UserError` unless every episode has images of all of `cameras`."""
        for camera in cameras:
            if any(camera not in episode.images for episode in self.episodes):
                has = ", ".join(self.info.cameras) or "no camera"
                raise UserError(f"the reward model sees camera {camera!r}; the dataset has {has}")
