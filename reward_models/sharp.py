"""An encoder that sees fine differences where a task needs them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.encoder import VISION_SIZE, Encoder

LEEWAY = 0.06
"""The least deviation of done frames, in that of all: demonstrators are neater than need be."""


class SharpEncoder(Encoder):
    """Sees each number of the vector twice: against all frames, and against those that are done.

    Done frames are alike in what the task is about, so what differs from them there stands out.
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, vector_size: int, cameras: int, size: int = 64) -> None:
        super().__init__(vector_size, cameras, size)
        self.register_buffer("middle", torch.zeros(vector_size))
        self.register_buffer("spread", torch.ones(vector_size))
        inputs = 2 * vector_size + VISION_SIZE * cameras
        self.mix = nn.Sequential(nn.Linear(inputs, 2 * size), nn.SiLU(), nn.Linear(2 * size, size))

    def forward(self, vector: Tensor, images: list[Tensor]) -> Tensor:
        off = (vector - self.middle) / self.spread
        views = [eye(image) for eye, image in zip(self.eyes, images, strict=True)]
        near = 3.0 * off / (3.0 + off.abs())
        return self.mix(torch.cat([self.norm(vector), near, *views], -1))

    @torch.no_grad()
    def learn(self, rows: Tensor, done: Tensor) -> None:
        """Take the statistics of rows `(K, V)`, of which some are `done` `(K,)` bool."""
        self.norm.update(rows)
        self.middle.copy_(rows[done].mean(0))
        least = LEEWAY * torch.sqrt(self.norm.var) + 1e-6
        self.spread.copy_(torch.sqrt(rows[done].var(0, correction=0) + least**2))
