"""Signed progress between two moments, added up, and a done head: VLAC (2509.15937)."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from embodied.dataset import Dataset
from embodied.encoder import Instruction, augment
from embodied.errors import UserError, check_range
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.language import embed
from embodied.supervised import train_steps

from .hop_lesson import borrow
from .negatives import told_otherwise
from .stages import time_shares
from .watchful import WatchfulSharpEncoder, shown

STILL = 0.01
"""Two moments that differ by less, as a share, are the same."""
UNLABELLED = (0.8, 0.95)
"""The part of an episode of which nobody says whether it is done."""
DONE = 0.9
"""The probability from which a moment counts as done."""
BELOW_DONE = 0.99
"""The most that is left to say of a moment that is not done."""


class Pairwise(FrameJudge):
    """How far a state is, in [0, 1], from what a critic says of pairs of moments `stride` apart.

    VLAC (arXiv 2509.15937) with a small network in place of the language model. The critic learns
    c = D/(T - i) for the moments i and i + D of a demonstration that ends at T, -c for the same
    pair in reverse, and 0 for a pair that hardly differs and under another task's words. It needs
    no stages: time is its only teacher. Online c is added up (`integrate`) from the state `stride`
    steps before, and remembered. A second head says of a single moment whether the task is done:
    the value is 1 where it is sure of it (0.9), and at most 0.99 elsewhere, so a `threshold` of 1
    pays the done head's successes.

    Where we differ: no demonstration is shown in context; the number is read off a tanh, not off
    digits; moments that show nothing are abstained from. `rewind` is the
    share of pairs in reverse, `mismatch` of those under another task's words (or, from pixels, of
    other tasks' videos under these).
    """

    net: _Net

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        proprio_size: int | None = None,
        instructions: Sequence[str] = (),
        input: str = "state",
        cameras: Sequence[str] = ("front",),
        path: str | None = None,
        stride: int = 5,
        seed: int = 0,
        rewind: float = 0.5,
        mismatch: float = 0.05,
    ) -> None:
        super().__init__(
            observation_space, proprio_size, instructions, input, cameras, 2, stride, seed
        )
        check_range("reward_model.pairwise", 0, 1, rewind=rewind, mismatch=mismatch)
        self.rewind, self.mismatch = rewind, mismatch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras)).eval()
        self.load(path)

    # --- judging

    def memory_rows(self, first: Tensor) -> dict[str, Tensor]:
        zero = torch.zeros(len(first))
        return {"anchor": first.clone(), "anchored": zero, "value": zero.clone()}

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        before, now = window[:, 0], window[:, 1]
        moved = (before != memory["anchor"]).any(1)  # the window went on: what was told then counts
        anchored = torch.where(moved, memory["value"], memory["anchored"])
        told = self.net.critic(before, now, text)
        told = torch.where(self.net.same(before, now) | ~shown(before)[0], 0.0, told)
        clear, status = shown(now)
        value = torch.where(clear, integrate(anchored, 100.0 * told), memory["value"])
        done = torch.sigmoid(self.net.done(now, text)) >= DONE
        progress = torch.where(done, 1.0, (0.01 * value).clamp(max=BELOW_DONE))
        memory = {"anchor": before.clone(), "anchored": anchored, "value": value}
        return torch.where(clear, progress, 0.0), status, memory

    # --- learning

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from demonstrations that succeed at their end; `others` are of other tasks.

        Returns the loss before and after and, with ten episodes or more, the critic's mean error on
        a held-out tenth and how often the done head is right about its labelled moments. Raises
        `UserError` for an episode that ends without success or begins with it.
        """
        for number, episode in enumerate(dataset.episodes):
            if not episode.success[-1]:
                raise UserError(f"episode {number} ends without success: give one that succeeds")
            if episode.success.all():
                raise UserError(f"episode {number} is done from its first frame: leave it out")
        held_out = np.arange(len(dataset)) % 10 == 9
        learned = dataset.take(np.flatnonzero(~held_out))
        lesson = _Lesson(self, self.table(learned), learned, others)
        last = lesson.table.start + lesson.table.length - 1
        if not critique(lesson.table, lesson.table.start, last).any():
            raise UserError("no episode ends otherwise than it starts: there is nothing to learn")
        self.hull.learn(lesson.table.vector)
        self.learn_colours(lesson.table, torch.arange(len(lesson.table)), time_shares(learned))
        self.net.encoder.learn(lesson.table.vector, lesson.done > 0.5)
        self.net.encoder.watch(lesson.table.images)
        steps = steps or (700 if self.cameras else 1500)
        self.net.train()
        try:
            figures = train_steps(
                self.net.parameters(), lesson.loss, steps, 1e-3, 1e-3, self.seed, 1, "fit pairwise"
            )  # fmt: skip
        finally:
            self.net.eval()
        with torch.inference_mode():
            self.net.spread.copy_(lesson.clean(torch.arange(len(lesson.table))).std(0).mean())
            if held_out.any():
                table = self.table(dataset.take(np.flatnonzero(held_out)))
                figures |= _Lesson(self, table, dataset, ()).errors()
        self.fitted = True
        return figures


class _Net(nn.Module):
    """The critic of two moments, and the done head of one."""

    encoder: WatchfulSharpEncoder
    spread: Tensor

    def __init__(self, vector_size: int, cameras: int, size: int = 48, hidden: int = 96) -> None:
        super().__init__()
        self.encoder = WatchfulSharpEncoder(vector_size, cameras, size)
        size, words = self.encoder.size, size // 2
        self.instruction = Instruction(words)
        self.pair = _head(2 * size + words, hidden)
        self.single = _head(size + words, hidden)
        self.register_buffer("spread", torch.ones(()))

    def critic(self, before: Tensor, after: Tensor, text: Tensor) -> Tensor:
        """Progress from `before` to `after` `(n, F)`, as a share of what is left, in [-1, 1]."""
        return torch.tanh(self.pair(torch.cat([before, after, self.instruction(text)], -1))[:, 0])

    def done(self, features: Tensor, text: Tensor) -> Tensor:
        """Logits `(n,)` of being done."""
        return self.single(torch.cat([features, self.instruction(text)], -1))[:, 0]

    def same(self, before: Tensor, after: Tensor) -> Tensor:
        """Whether features `(n, F)` differ by less than `STILL` of their spread, `(n,)` bool."""
        return (before - after).square().mean(-1).sqrt() < STILL * self.spread


def _head(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(0.1),
        nn.Linear(hidden, hidden // 2), nn.SiLU(), nn.Linear(hidden // 2, 1),
    )  # fmt: skip


class _Lesson:
    """What one fit learns from: pairs of moments, short and long, forth and back."""

    def __init__(
        self, model: Pairwise, table: FrameTable, dataset: Dataset, others: Sequence[Dataset]
    ) -> None:
        self.model, self.net, self.table = model, model.net, table
        self.foreign = [model.table(other) for other in others] if model.cameras else []
        words = list(told_otherwise(dataset, others, model.instructions))
        self.wrong = torch.from_numpy(embed(words).astype(np.float32))
        self.done, self.known = finished(table, torch.arange(len(table)))
        self.rarity = (1.0 - self.done[self.known]).sum() / self.done.sum()
        self.size = 48 if model.cameras else 256

    def loss(self, noise: torch.Generator) -> Tensor:
        """Squared error of the critic, and the done head's cross-entropy where it is labelled, both
        classes counting alike."""
        table, count = self.table, self.size
        before, after = self._pairs(count, noise)
        target = critique(table, before, after)
        wrong = torch.rand(count, generator=noise) < self.model.mismatch
        video = wrong & (torch.rand(count, generator=noise) < 0.5) & bool(self.foreign)
        pick = torch.randint(len(self.wrong), (count,), generator=noise)
        text = table.text[table.episode[before]]
        text = torch.where((wrong & ~video)[:, None], self.wrong[pick], text)
        vector, images = self._rows(torch.cat([before, after]))
        borrow(vector, images, video.repeat(2).nonzero().flatten(), self.foreign, noise)
        images = [augment(image, noise) for image in images]
        spread = torch.minimum(self.net.encoder.norm.var.sqrt(), 4 * self.net.encoder.spread)
        vector = vector + 0.05 * spread * torch.randn(vector.shape, generator=noise)
        features = self.net.encoder(vector, images)
        target = torch.where(wrong, 0.0, target)
        told = self.net.critic(features[:count], features[count:], text)
        void = wrong.repeat(2)
        rows = torch.cat([before, after])
        done = torch.where(void, 0.0, self.done[rows])
        weight = (void | self.known[rows]) * torch.where(done > 0.5, self.rarity, 1.0)
        logit = self.net.done(features, text.repeat(2, 1))
        over = binary_cross_entropy_with_logits(logit, done, weight, reduction="sum")
        return (told - target).square().mean() + over / weight.sum().clamp(min=1.0)

    def clean(self, frames: Tensor) -> Tensor:
        """Features `(K, F)` of frames as they are."""
        vector, images = self._rows(frames)
        return self.net.encoder(vector, images)

    def errors(self) -> dict[str, float]:
        """The critic's mean error on pairs, and the done head's accuracy."""
        before, after = self._pairs(1000, torch.Generator().manual_seed(0))
        features, table = self.clean(torch.arange(len(self.table))), self.table
        told = self.net.critic(features[before], features[after], table.text[table.episode[before]])
        told_done = self.net.done(features, table.text[table.episode]) > 0
        right = told_done == (self.done > 0.5)
        return {
            "held_out_error": float((told - critique(table, before, after)).abs().mean()),
            "held_out_done": float(right[self.known].float().mean()),
        }

    def _rows(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.table.vector[frames], [part[frames] for part in self.table.images]

    def _pairs(self, count: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Frames before and after `(count,)` each, of the same episodes: half of them at most two
        strides apart, the others any; a share of them in reverse."""
        table = self.table
        one = torch.randint(len(table), (count,), generator=noise)
        episode = table.episode[one]
        last = table.length[episode] - 1
        left = last - table.index[one]
        near = torch.rand(count, generator=noise) < 0.5
        most = torch.where(near, left.clamp(max=2 * self.model.stride), left)
        gap = torch.rand(count, generator=noise) * (most + 1)
        two = one + torch.minimum(gap.long(), most)
        back = torch.rand(count, generator=noise) < self.model.rewind
        return torch.where(back, two, one), torch.where(back, one, two)


def integrate(value: Tensor, change: Tensor) -> Tensor:
    """Values `(n,)` in [0, 100] after critic values `change` `(n,)` in [-100, 100].

    Forward it is a share of what is left; backward, from above 50, what undoes the forward step
    (not below 10), and from 50 down a share of what there is.
    """
    up = value + (100.0 - value) * change / 100.0
    left = (100.0 - value).clamp(min=1.0)
    undone = (100.0 - 100.0 * left / (100.0 + change).clamp(min=1e-3)).clamp(min=10.0)
    down = torch.where(value > 50.0, undone, value + value * change / 100.0)
    return torch.where(change >= 0.0, up, down).clamp(0.0, 100.0)


def critique(table: FrameTable, before: Tensor, after: Tensor) -> Tensor:
    """What the critic should say of pairs of frames `(n,)` of the same episode, in [-1, 1].

    D/(T - i) where i is the earlier, D how much later the other is and T the episode's last;
    negative where the later comes first; 0 where hardly anything differs.
    """
    early = torch.minimum(before, after)
    left = table.start[table.episode[early]] + table.length[table.episode[early]] - 1 - early
    share = (after - before) / left.clamp(min=1)
    return torch.where(still(table, before, after), 0.0, share)


def still(table: FrameTable, before: Tensor, after: Tensor) -> Tensor:
    """Whether pairs of frames `(n,)` hardly differ: less than 1% of the pixels change noticeably,
    and no number moves by 1% of its range."""
    extent = (table.vector.amax(0) - table.vector.amin(0)).clamp(min=1e-6)
    moved = (table.vector[before] - table.vector[after]).abs() >= STILL * extent
    out = ~moved.any(1)
    for image in table.images:
        apart = (image[before].short() - image[after].short()).abs().amax(-1) > 12
        out &= apart.float().mean((1, 2)) < STILL
    return out


def finished(table: FrameTable, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Whether frames `(n,)` are done, 0 or 1, and whether that is said of them at all, bool."""
    length = table.length[table.episode[frames]]
    share = (table.index[frames] + 1) / length
    low, high = UNLABELLED
    known = (share < low) | (share > high)
    return (share > high).float(), known
