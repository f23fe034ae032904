"""Training windows of a stage-aware model: at any pace, back in time, of other tasks, mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embodied.dataset import Dataset
from embodied.encoder import augment
from embodied.frame_table import FrameTable
from embodied.language import embed

from .negatives import told_otherwise
from .stages import StageLabels

TOLD_RIGHT = 0.75
"""How often the second head is told the true stage; else the predicted one."""
MISMATCHED = 0.1
"""Share of training windows, where there are images, that show another task."""

PATCH, CONTRAST, CHANGED = (0.15, 0.5), 60, 6
"""Sides of a patch as shares of an image's, and how many of its pixels must differ by how much in
some channel (0 to 255) to show another moment."""
OFF, OFTEN = (3.0, 30.0), 0.5
"""By how many deviations of done frames a state is moved off them, and what share of them."""


class StageWindows:
    """Draws training windows, and what is to be told of them."""

    def __init__(
        self, model: Any, table: FrameTable, labels: StageLabels, rows: Tensor,
        dataset: Dataset, others: Sequence[Dataset],
    ) -> None:  # fmt: skip
        self.model, self.net, self.table, self.rows = model, model.net, table, rows
        self.stage, self.within, self.value = labels.stage, labels.within, labels.value
        self.robot = min(dataset.info.proprio_size, model.vector_size)
        wrong = told_otherwise(dataset, others, model.instructions)
        self.wrong = torch.from_numpy(embed(list(wrong)).astype(np.float32))
        self.others = [model.table(other) for other in others if model.cameras and len(other)]

    def loss(self, batch: int, noise: torch.Generator) -> Tensor:
        """Cross-entropy of the stage and squared error of what is done of it."""
        model, table = self.model, self.table

        def chance(share: float) -> Tensor:
            return torch.rand(batch, generator=noise) < share

        now = self._rows(batch, noise)
        frames = wander(table, now, model.window, 2 * model.stride, model.rewind, noise)
        vector, images = table.vector[frames], [view[frames] for view in table.images]
        vector, like = self._mix(vector, now, noise)
        like = self._patch(images, like, noise)
        off = self._shift(vector, like, noise)
        stage, within = self.stage[like], self.within[like]
        none = chance(model.wrong_instruction)
        pick = torch.randint(len(self.wrong), (batch,), generator=noise)
        text = torch.where(none[:, None], self.wrong[pick], table.text[table.episode[now]])
        if self.others:
            swapped = chance(MISMATCHED)
            self._replace(vector, images, swapped, noise)
            none |= swapped
        window = self._encode(vector, images, noise)
        stage, within = torch.where(none, 0, stage), torch.where(none, 0.0, within)
        logits, told = self.net(window, text)
        return self._errors(logits, told, stage, within, noise, off & ~none)

    def _errors(
        self,
        logits: Tensor,
        within: Tensor,
        stage: Tensor,
        share: Tensor,
        noise: torch.Generator,
        off: Tensor,
    ) -> Tensor:
        """Of states that are `off` (B,) it is only known that they are not in the last stage."""
        chance = torch.log_softmax(logits, -1)
        last = torch.full_like(stage, len(self.model.net.shares.nonzero()) - 1)
        known = -chance.gather(-1, stage.expand(len(chance), -1)[..., None]).squeeze(-1)
        missed = chance.gather(-1, last.expand(len(chance), -1)[..., None]).squeeze(-1)
        cross = torch.where(off, -torch.log1p(-missed.exp().clamp(max=1.0 - 1e-4)), known).mean()
        right = torch.rand(logits.shape[:2], generator=noise) < TOLD_RIGHT
        told = torch.where(right, stage, logits.detach().argmax(-1))
        target = torch.where(told == stage, share, (told < stage).float())
        error = (within.gather(-1, told[..., None]).squeeze(-1) - target) ** 2
        return cross + (error * ~off).mean()

    def _shift(self, vector: Tensor, like: Tensor, noise: torch.Generator) -> Tensor:
        """Move some of the last stage's states, in place, off where done ones are; which `(B,)`.

        Some of the numbers that are not the robot's own move, by `OFF` of their deviations.
        """
        batch, _, size = vector.shape
        rest = size - self.robot

        def draw(*shape: int) -> Tensor:
            return torch.rand((batch, *shape), generator=noise)

        off = (self.stage[like] == self.stage.max()) & (draw() < OFTEN)
        if not rest or not self.stage.any():
            return torch.zeros_like(off)
        columns = draw(rest) < float(rest) ** -draw(1)
        columns |= torch.arange(rest) == torch.randint(rest, (batch, 1), generator=noise)
        far = OFF[0] * (OFF[1] / OFF[0]) ** draw(rest) * torch.where(draw(rest) < 0.5, -1.0, 1.0)
        move = far * self.net.encoder.spread[self.robot :] * (columns & off[:, None])
        vector[..., self.robot :] += move[:, None]
        return off

    def _encode(self, vector: Tensor, images: list[Tensor], noise: torch.Generator) -> Tensor:
        """Windows `(B, W, F)`; where there are images, the past is encoded without gradient."""
        encoder, (batch, window) = self.net.encoder, vector.shape[:2]
        spread = torch.minimum(torch.sqrt(encoder.norm.var), 4.0 * encoder.spread)
        vector = vector + self.model.noise * spread * torch.randn(vector.shape, generator=noise)

        def encode(part: slice) -> Tensor:
            views = [augment(view[:, part].flatten(0, 1), noise) for view in images]
            return encoder(vector[:, part].flatten(0, 1), views).view(batch, -1, encoder.size)

        if not images:
            return encode(slice(None))
        parts = [encode(slice(window - 1, window))]
        if window > 1:
            with torch.no_grad():
                parts.insert(0, encode(slice(0, window - 1)))
        return torch.cat(parts, 1)

    def _rows(self, count: int, noise: torch.Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (count,), generator=noise)]

    def _partner(self, now: Tensor, noise: torch.Generator) -> Tensor:
        """Other frames `(B,)`, half of them of the same episode."""
        episode = self.table.episode[now]
        along = torch.rand(now.shape, generator=noise) * self.table.length[episode]
        same = torch.rand(now.shape, generator=noise) < 0.5
        start = self.table.start[episode]
        return torch.where(same, start + along.long(), self._rows(len(now), noise))

    def _mix(self, vector: Tensor, now: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows `(B, W, V)` with columns of other frames, and rows that are as far `(B,)`.

        Of `mixed` of them some columns that are not the robot's own come from any frame, and the
        lesser of the two counts. Of half of them some of the robot's own do; there the frame
        itself counts, unless the other is behind by more than a stage.
        """
        batch, _, size = vector.shape
        rest, like = size - self.robot, now

        def swap(columns: Tensor, other: Tensor) -> Tensor:
            return torch.where(columns[:, None], self.table.vector[other][:, None], vector)

        def draw(*shape: int) -> Tensor:
            return torch.rand((batch, *shape), generator=noise)

        if rest:
            other = self._partner(now, noise)
            columns = draw(rest) < float(rest) ** -draw(1)
            columns |= torch.arange(rest) == torch.randint(rest, (batch, 1), generator=noise)
            columns &= draw(1) < self.model.mixed
            vector = swap(functional.pad(columns, (self.robot, 0)), other)
            less = columns.any(1) & (self.value[other] < self.value[now])
            like = torch.where(less, other, now)
        other = self._partner(now, noise)
        columns = draw(self.robot) < 2.0 * draw(1) - 1.0
        vector = swap(functional.pad(columns, (0, rest)), other)
        less = columns.any(1) & (self.stage[other] < self.stage[now] - 1)
        less &= self.value[other] < self.value[like]
        return vector, torch.where(less, other, like)

    def _patch(self, images: list[Tensor], like: Tensor, noise: torch.Generator) -> Tensor:
        """Put a patch of an earlier moment of the episode into `mixed` of the windows, in place.

        What it shows, a thing still at its place, is not done yet, whatever the rest looks like:
        the lesser of the two moments counts. Returns the rows that are as far `(B,)`.
        """
        if not images:
            return like
        batch = len(like)
        ago = torch.rand(batch, generator=noise) * (self.table.index[like] + 1)
        other = like - ago.long()
        mine = (torch.rand(batch, generator=noise) < self.model.mixed).nonzero().flatten()
        for view, table in zip(images, self.table.images, strict=True):
            height, width = view.shape[2:4]
            side = PATCH[0] + (PATCH[1] - PATCH[0]) * torch.rand((batch, 2), generator=noise)
            corner = (torch.rand((batch, 2), generator=noise) * (1.0 - side))[mine]
            end = corner + side[mine]
            down, across = torch.arange(height) / height, torch.arange(width) / width
            rows = (down >= corner[:, :1]) & (down < end[:, :1])
            columns = (across >= corner[:, 1:]) & (across < end[:, 1:])
            inside = rows[:, :, None] & columns[:, None, :]
            part, then = view[mine], table[other[mine]]
            apart = (then.int() - part[:, -1].int()).abs().amax(-1) > CONTRAST
            shows = (apart & inside).flatten(1).sum(1) >= CHANGED
            put = (inside & shows[:, None, None])[:, None, :, :, None]
            view[mine] = torch.where(put, then[:, None], part)
            chosen = mine[shows & (self.value[other[mine]] < self.value[like[mine]])]
            like = like.clone()
            like[chosen] = other[chosen]
        return like

    def _replace(
        self, vector: Tensor, images: list[Tensor], swapped: Tensor, noise: torch.Generator
    ) -> None:
        """Put windows of other tasks' episodes where `swapped` `(B,)`, in place."""
        count = int(swapped.sum())
        pick = int(torch.randint(len(self.others), (), generator=noise))
        table = self.others[pick]
        now = torch.randint(len(table), (count,), generator=noise)
        model = self.model
        frames = wander(table, now, model.window, 2 * model.stride, model.rewind, noise)
        vector[swapped] = table.vector[frames]
        for view, other in zip(images, table.images, strict=True):
            view[swapped] = other[frames]


def wander(
    table: FrameTable, now: Tensor, window: int, longest: int, rewind: float, noise: torch.Generator
) -> Tensor:
    """Rows `(B, window)` that end at frames `now` `(B,)`, as from an actor of any pace.

    Steps are of 0 to `longest` frames. With chance `rewind` the actor had gone further and came
    back: the last 1 to `window - 1` steps run backwards in time.
    """
    count = len(now)
    back = torch.arange(window - 1, -1, -1)
    pace = torch.randint(0, longest + 1, (count, 1), generator=noise)
    turn = torch.randint(1, max(window, 2), (count, 1), generator=noise)
    turn = torch.where(torch.rand((count, 1), generator=noise) < rewind, turn, 0)
    away = torch.where(back <= turn, back, 2 * turn - back) * pace
    episode = table.episode[now]
    last = (table.length[episode] - 1)[:, None]
    index = torch.minimum((table.index[now][:, None] + away).clamp(min=0), last)
    return table.start[episode][:, None] + index
