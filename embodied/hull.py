"""Where demonstrations have been: a judge that learned from them knows nothing of elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MARGIN = 0.25
"""By what share of it a range is widened at either end."""
LEAST, NARROWEST = 0.01, 1.0
"""The least margin and the least width, in deviations."""
STILL = 1e-3
"""The least deviation of a number (m, rad): one that hardly moves in any demonstration."""
DOUBT = 3.0
"""How fast trust falls off outside: after a third of a range's width to 1/e."""


class Hull(nn.Module):
    """Octagons that hold what demonstrations have shown, in every plane of two numbers.

    That is, ranges of all numbers and of all sums and differences of two, in deviations (octagons
    as of Mine 2006, "The octagon abstract domain"). Only numbers that are not the robot's `own`,
    the first ones, count: where the objects are, and how they lie to the hand.
    """

    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, vector_size: int, own: int) -> None:
        super().__init__()
        self.own, count = own, vector_size - own
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("low", torch.full((count**2,), -torch.inf))
        self.register_buffer("high", torch.full((count**2,), torch.inf))

    @torch.no_grad()
    def learn(self, vector: Tensor) -> None:
        """Take the ranges of demonstrated states `(K, V)`."""
        rows = vector[:, self.own :]
        if not rows.shape[1]:
            return
        self.scale.copy_(rows.std(0, correction=0).clamp(min=STILL))
        low, high = self._sides(rows).aminmax(dim=0)
        margin = MARGIN * (high - low) + LEAST
        self.low.copy_(low - margin)
        self.high.copy_(high + margin)

    def forget(self) -> None:
        """Hold everything."""
        self.low.fill_(-torch.inf)
        self.high.fill_(torch.inf)

    def forward(self, vector: Tensor) -> Tensor:
        """How far a judgement of states `(n, V)` is to be trusted, `(n,)`: 1 inside, 0 far away."""
        rows = vector[:, self.own :]
        if not rows.shape[1]:
            return vector.new_ones(len(vector))
        x = self._sides(rows)
        beyond = torch.maximum(self.low - x, x - self.high).clamp(min=0.0)
        width = (self.high - self.low).clamp(NARROWEST, 1e6)
        return torch.exp(-DOUBT * (beyond / width).amax(-1))

    def _sides(self, rows: Tensor) -> Tensor:
        """Numbers, and their sums and differences, `(n, count**2)`."""
        x = rows / self.scale
        one, two = torch.triu_indices(x.shape[1], x.shape[1], 1)
        return torch.cat([x, x[:, one] + x[:, two], x[:, one] - x[:, two]], -1)
