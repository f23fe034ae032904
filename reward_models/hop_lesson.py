"""The batches that hops are learned from, with what must not count as progress mixed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied.encoder import augment
from embodied.frame_table import FrameTable

from .hop_labels import hop, sample_hops

SWAP = 0.75
"""How often a hop is shown another episode's references."""
WRONG_TEXT, FOREIGN, COMPOSED = 0.15, 0.1, 0.3
"""Shares of moments: told otherwise, another task's, put together from two."""


class HopLesson:
    """What one fit learns from: hops between moments of a few episodes at a time."""

    def __init__(
        self, net: Any, table: FrameTable, phi: list[np.ndarray], wrong: Tensor,
        foreign: Sequence[FrameTable], robot: int, rewind: float, zero: float,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """`wrong` `(W, TEXT_SIZE)` are other tasks' words, `foreign` their videos; the first
        `robot` columns of the state are the robot's own; the rest as in `sample_hops`."""
        self.net, self.table, self.wrong, self.foreign = net, table, wrong, foreign
        self.robot, self.rewind = robot, rewind
        self.phi = torch.from_numpy(np.concatenate(phi).astype(np.float32))
        self.first, self.last = table.start, table.start + table.length - 1
        self.hops = [
            begin + torch.from_numpy(sample_hops(part, rng, rewind, zero))
            for begin, part in zip(table.start, phi, strict=True)
        ]
        self.shape = (4, 12) if table.images else (16, 16)  # episodes, hops of each

    def loss(self, noise: torch.Generator) -> Tensor:
        """The squared error of hops, and of the two anchored questions about the same moments."""
        chosen = torch.randint(len(self.hops), self.shape[:1], generator=noise)
        pairs = torch.stack([self._draw(e, noise) for e in chosen.tolist()])  # (E, B, 2)
        ends = torch.stack([self.first[chosen], self.last[chosen]], 1)  # (E, 2)
        features, phi = self._moments(torch.cat([pairs.flatten(1), ends], 1), noise)
        before, after = features[:, :-2].unflatten(1, (-1, 2)).unbind(2)
        phi_before, phi_after = phi[:, :-2].unflatten(1, (-1, 2)).unbind(2)
        start, goal = features[:, -2], features[:, -1]
        wrong = torch.rand(self.shape, generator=noise) < WRONG_TEXT
        pick = torch.randint(len(self.wrong), self.shape, generator=noise)
        text = torch.where(wrong[..., None], self.wrong[pick], self.table.text[chosen][:, None])
        phi_after = torch.where(wrong, 0.0, phi_after)
        none, whole = torch.zeros_like(phi_before), torch.ones_like(phi_before)
        questions = ((before, phi_before), (start[:, None], none), (None, whole))
        loss = torch.zeros(())
        for moment, potential in questions:
            shown, target = self._references(noise), hop(potential, phi_after)
            of = goal[shown] if moment is None else moment
            error = self.net(start[shown], goal[shown], of, after, text) - target
            taught = (target >= 0.0) | (self.rewind > 0.0)
            loss = loss + torch.where(taught, error, 0.0).square().mean()
        return loss

    def _draw(self, episode: int, noise: torch.Generator) -> Tensor:
        hops = self.hops[episode]
        return hops[torch.randint(len(hops), self.shape[1:], generator=noise)]

    def _references(self, noise: torch.Generator) -> Tensor:
        """Whose start and goal are shown with each hop, `(E, B)`: often another episode's."""
        own = torch.arange(self.shape[0])[:, None].expand(self.shape)
        other = torch.randint(self.shape[0], self.shape, generator=noise)
        return torch.where(torch.rand(self.shape, generator=noise) < SWAP, other, own)

    def _moments(self, frames: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features and potentials of `frames` `(E, K)`.

        The last two of a row, the references, are as they were; some of the others are changed.
        """
        rows = frames.flatten()
        free = (torch.arange(frames.shape[1]) < frames.shape[1] - 2).repeat(len(frames))
        vector, images = self.table.vector[rows], [part[rows] for part in self.table.images]
        phi = self.phi[rows]
        vector, phi = self._compose(vector, phi, free, noise)
        if self.foreign:
            theirs = free & (torch.rand(phi.shape, generator=noise) < FOREIGN)
            borrow(vector, images, theirs.nonzero().flatten(), self.foreign, noise)
            phi = torch.where(theirs, 0.0, phi)
        images = [augment(image, noise) for image in images]
        spread = torch.minimum(self.net.encoder.norm.var.sqrt(), 4 * self.net.encoder.spread)
        vector = vector + 0.05 * spread * torch.randn(vector.shape, generator=noise)
        features = self.net.encoder(vector, images)
        return features.view(*frames.shape, -1), phi.view(frames.shape)

    def _compose(
        self, vector: Tensor, phi: Tensor, free: Tensor, noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Some states with columns of another: the robot's, the rest, or any. They are as far as
        the lesser of the two."""
        count, size = vector.shape
        if self.table.images:
            return vector, phi
        other = torch.randint(count, (count,), generator=noise)
        rate = float(size) ** -torch.rand((count, 1), generator=noise)
        some = torch.rand((count, size), generator=noise) < rate
        robot = (torch.arange(size) < self.robot).expand(count, size)
        kind = torch.rand((count, 1), generator=noise)
        some = torch.where(kind < 0.35, robot, torch.where(kind < 0.7, ~robot, some))
        mixed = free & (torch.rand(count, generator=noise) < COMPOSED)
        return (
            torch.where(mixed[:, None] & some, vector[other], vector),
            torch.where(mixed, torch.minimum(phi, phi[other]), phi),
        )


def borrow(
    vector: Tensor, images: list[Tensor], rows: Tensor, tables: Sequence[FrameTable],
    noise: torch.Generator,
) -> None:  # fmt: skip
    """Put moments of other tasks' videos in place of `rows` `(n,)` of a batch."""
    for row in rows.tolist():
        table = tables[int(torch.randint(len(tables), (), generator=noise))]
        frame = int(torch.randint(len(table), (), generator=noise))
        vector[row] = table.vector[frame]
        for image, part in zip(images, table.images, strict=True):
            image[row] = part[frame]
