"""The frames of many episodes, one after another: what networks are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied.dataset import Dataset
from embodied.errors import UserError
from embodied.language import embed


@dataclass
class FrameTable:
    """K frames of E episodes. `start` and `length` say which rows are an episode's."""

    vector: Tensor  # (K, V) float32
    images: list[Tensor]  # of each camera (K, H, W, 3) uint8
    start: Tensor  # (E,) int64
    length: Tensor  # (E,) int64
    episode: Tensor  # (K,) int64, which episode a frame is of
    index: Tensor  # (K,) int64, its number in the episode
    stage: Tensor  # (K,) int64, -1 where nobody said
    success: Tensor  # (K,) bool
    text: Tensor  # (E, TEXT_SIZE) float32, what each episode was told to do
    instructions: tuple[str, ...]  # (E,)

    @classmethod
    def of(
        cls, dataset: Dataset, vector_size: int, cameras: Sequence[str] = (), shortest: int = 1
    ) -> FrameTable:
        """The first `vector_size` numbers of every state, and the images of `cameras`.

        Raises `UserError` for no episodes, one shorter than `shortest` frames, a state that is
        too short, numbers that are not finite, or a camera that the dataset lacks.
        """
        episodes = dataset.episodes
        if not episodes:
            raise UserError("no episodes to learn from: the dataset is empty")
        dataset.need_cameras(cameras)
        for number, episode in enumerate(episodes):
            if len(episode) < max(shortest, 1):
                raise UserError(
                    f"episode {number} has {len(episode)} frames, the model needs {shortest}"
                )
            if episode.state.shape[1] < vector_size:
                raise UserError(
                    f"episode {number} has states of {episode.state.shape[1]} numbers, "
                    f"the model takes {vector_size}: it is of another env"
                )
            if not np.isfinite(episode.state).all():
                raise UserError(f"episode {number} has a state that is not finite")
        length = torch.tensor([len(episode) for episode in episodes])
        whole = np.concatenate([episode.state[:, :vector_size] for episode in episodes])
        return cls(
            vector=torch.from_numpy(np.asarray(whole, np.float32)),
            images=[
                torch.from_numpy(np.concatenate([episode.images[c] for episode in episodes]))
                for c in cameras
            ],
            start=torch.cumsum(length, 0) - length,
            length=length,
            episode=torch.repeat_interleave(torch.arange(len(episodes)), length),
            index=torch.cat([torch.arange(len(episode)) for episode in episodes]),
            stage=torch.from_numpy(np.concatenate([e.stage for e in episodes]).astype(np.int64)),
            success=torch.from_numpy(np.concatenate([e.success for e in episodes])),
            text=torch.from_numpy(embed([e.instruction for e in episodes]).astype(np.float32)),
            instructions=tuple(episode.instruction for episode in episodes),
        )

    def __len__(self) -> int:
        return len(self.vector)

    def windows(self, frames: Tensor, window: int, stride: int) -> Tensor:
        """Rows `(B, window)` that a model sees at `frames` `(B,)`, as `FrameJudge` remembers them.

        The last is the frame itself; before it come those at multiples of `stride` that precede
        it, and the first frame where there are no more.
        """
        index, begin = self.index[frames], self.start[self.episode[frames]]
        back = torch.arange(window - 2, -1, -1)
        last = torch.div(index - 1, stride, rounding_mode="floor").clamp(min=0)
        past = (last[:, None] - back).clamp(min=0) * stride
        past = torch.where((index == 0)[:, None], 0, past)
        return begin[:, None] + torch.cat([past, index[:, None]], 1)
