"""Which states each stage of a task has been seen in, and an encoder that knows it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .watchful import WatchfulSharpEncoder

INNER = 0.02
"""The share of a stage's states that lie beyond either end of its range."""
MARGIN, UNIT, LEAST = 0.1, 0.125, 0.01
"""By what share of it a range is widened, what counts as one beyond it, and the least of both, in
deviations of all states."""
DONE_MARGIN = 2.0
"""The share for being done: demonstrators are more precise than they have to be."""
FAR = 8.0
"""From where on distance counts by its logarithm: what is far off can still be farther."""
NARROW = 0.025
"""How fast what is allowed falls off outside of where demonstrations were done (to 0.8 at `FAR`,
to 0.6 at ten times that)."""


class Support(nn.Module):
    """How far a state is outside of what demonstrations have shown of every stage, and when done.

    Only numbers that are not the robot's own count: there, a policy that is paid for a stage can
    be in no state that only a network's guess says is part of it.
    """

    low: Tensor
    high: Tensor
    unit: Tensor

    def __init__(self, vector_size: int, stages: int) -> None:
        super().__init__()
        parts = stages + 1
        self.register_buffer("low", torch.full((parts, vector_size), -torch.inf))
        self.register_buffer("high", torch.full((parts, vector_size), torch.inf))
        self.register_buffer("unit", torch.ones(parts, vector_size))

    @torch.no_grad()
    def learn(self, rows: Tensor, done: Tensor, stage: Tensor | None = None) -> None:
        """Take the ranges of the last columns from `rows` `(K, C)`, in `stage` `(K,)` or `done`."""
        if not rows.shape[1] or not done.any():
            return
        own = self.low.shape[1] - rows.shape[1]
        least = LEAST * rows.std(0, correction=0)
        last = len(self.low) - 1
        told = 0 if stage is None else int(stage.max())
        parts = {k: stage == k for k in range(1, told + 1)} | {last: done}
        for k, part in parts.items():
            ends = torch.tensor([INNER, 1.0 - INNER])
            low, high = torch.quantile(rows[part], ends, dim=0)
            margin = (DONE_MARGIN if k == last else MARGIN) * (high - low) + least
            self.low[k, own:], self.high[k, own:] = low - margin, high + margin
            self.unit[k, own:] = UNIT * (high - low) + least

    def forget(self) -> None:
        """Nothing is outside."""
        self.low.fill_(-torch.inf)
        self.high.fill_(torch.inf)

    def forward(self, vector: Tensor) -> Tensor:
        """How far states `(n, V)` are outside of every stage, of the first of which nothing is, and
        of being done, which is the last: `(n, stages + 1)`."""
        x = vector[:, None]
        beyond = torch.maximum(self.low - x, x - self.high).clamp(min=0.0) / self.unit
        return FAR * torch.log1p(beyond.sum(-1) / FAR)

    def allowed(self, vector: Tensor) -> Tensor:
        """The most that may be said of states `(n, V)`, `(n,)`: 1 where demonstrations were done,
        and the less the farther from there. What a network guesses between is flat where no
        demonstration went, and a policy that is there would not know which way is better."""
        return torch.exp(-NARROW * self(vector)[:, -1])


class SupportEncoder(WatchfulSharpEncoder):
    """Its first `stages + 1` features are how far a state is outside, see `Support`."""

    def __init__(self, vector_size: int, cameras: int, stages: int, size: int = 64) -> None:
        super().__init__(vector_size, cameras, size)
        self.support = Support(vector_size, stages)
        self.size += stages + 1

    def forward(self, vector: Tensor, images: list[Tensor]) -> Tensor:
        return torch.cat([self.support(vector), super().forward(vector, images)], -1)


def outside(features: Tensor, stages: int) -> Tensor:
    """How far states of features `(n, F)` are outside of every stage and of being done, which is
    the last, `(n, stages + 1)`."""
    return features[:, : stages + 1]
