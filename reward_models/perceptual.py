"""Steps of a task found in a few demonstrations, each known by how it looks (arXiv 1612.06699).

Unsupervised perceptual rewards (Sermanet et al. 2017): every demonstration is cut into as many
segments that change least within; the i-th segments of all are step i. Each step keeps the few
features that set it apart from the others, with a Gaussian for each. A state x pays
R(x) = sum over i >= 2 of R_i(x) 2^(i - 1), where R_i says how well it fits step i: a later step
counts for more than all before it. Nobody has to label anything.

Where we differ:

- The features are the state itself, or those of a small encoder that learns from the
  demonstrations' images how late a moment is (a tenth of the episode), in place of a network
  trained on ImageNet.
- Segments are the best there are (dynamic programming), not found by halving.
- R_i is the product of its Gaussians, scaled to 1 where the features are as far off as they are
  on average, and cut there: the value, R(x) over that of the last frames, is in [0, 1], and 0 far
  from all that was shown.
- Under other words than the demonstrations' it is 0. Nothing else is made of the words.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embodied.dataset import Dataset
from embodied.encoder import augment
from embodied.errors import UserError, check_range
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.language import TEXT_SIZE
from embodied.nets import RunningNorm
from embodied.supervised import train_steps

from .watchful import WatchfulEncoder, shown

OVERLAP = 0.5
"""How much a feature's deviation, in the step and in the others, weighs against its distance."""
NARROWEST = 0.3
"""The least deviation of a Gaussian, as a share of the feature's deviation in all frames."""
TENTHS = 10
TEXTS = 16
"""How many different instructions demonstrations may have."""


class Perceptual(FrameJudge):
    """How far a state is, in [0, 1], by which of `segments` steps it looks like.

    `features` is how many of them each step keeps; null keeps all that change.
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
        segments: int = 6,
        features: int | None = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(observation_space, proprio_size, instructions, input, cameras, seed=seed)
        check_range("reward_model.perceptual", 2, segments=segments)
        check_range("reward_model.perceptual", 1, features=1 if features is None else features)
        self.segments, self.features = segments, features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras), segments).eval()
        self.load(path)

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        clear, status = shown(window[:, -1])
        value = (self.net(window[:, -1]) / self.net.ceiling).clamp(max=1.0)
        return value * (clear & self._heard(text)), status, {}

    def _heard(self, text: Tensor) -> Tensor:
        """Whether these are the demonstrations' words, or none, `(n,)` bool."""
        return ((text @ self.net.told.T).amax(1) > 0.999) | ~text.any(1)

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from successful demonstrations; `steps` is for images alone.

        Returns the share of frames that fit their own step best and, from images, the encoder's
        loss before and after. Raises `UserError` for episodes of fewer frames than `segments`, and
        where no feature ever changes.
        """
        table = self.table(dataset)
        shortest = int(table.length.argmin())
        if table.length[shortest] < self.segments:
            has = f"episode {shortest} has {int(table.length[shortest])} frames"
            raise UserError(f"{has}: leave it out, at least {self.segments} are needed")
        words = table.text.unique(dim=0)
        if len(words) > TEXTS:
            raise UserError(f"{len(words)} instructions: give demonstrations of at most {TEXTS}")
        self.net.told.copy_(words[torch.arange(TEXTS) % len(words)])
        net, figures = self.net, {}
        net.encoder.norm.update(table.vector)
        if table.images:
            net.encoder.watch(table.images)
            figures = self._learn_to_see(table, steps or 400)
        with torch.inference_mode():
            seen = _features(net.encoder, table)
            net.scale.update(seen)
            step = torch.from_numpy(
                np.concatenate(
                    [
                        segments(part.numpy(), self.segments, len(part) // (3 * self.segments))
                        for part in net.scale(seen).split(table.length.tolist())
                    ]
                )
            )
            net.learn(net.scale(seen), step, self.features)
            ends = net(seen)[table.start + table.length - 1]
            net.ceiling.copy_(torch.quantile(ends, 0.1).clamp(min=0.5))
            own = net.fits(seen).argmax(1) == step
        self.fitted = True
        return figures | {"own_step": float(own.float().mean())}

    def _learn_to_see(self, table: FrameTable, steps: int) -> dict[str, float]:
        """Train the encoder to tell the tenth of the episode that a frame is of."""
        tenth = table.index * TENTHS // table.length[table.episode]

        def loss(noise: torch.Generator) -> Tensor:
            now = torch.randint(len(table), (64,), generator=noise)
            views = [augment(view[now], noise) for view in table.images]
            told = self.net.tenth(self.net.encoder(table.vector[now], views))
            return functional.cross_entropy(told, tenth[now])

        self.net.train()
        figures = train_steps(
            self.net.parameters(), loss, steps, 1e-3, 1e-3, self.seed, 1, "fit perceptual"
        )
        self.net.eval()
        return figures


def _features(encoder: WatchfulEncoder, table: FrameTable) -> Tensor:
    """Features `(K, F)` of all frames as they are."""
    parts = torch.arange(len(table)).split(256)
    return torch.cat(
        [encoder(table.vector[rows], [view[rows] for view in table.images]) for rows in parts]
    )


def segments(features: np.ndarray, count: int, shortest: int = 1) -> np.ndarray:
    """Which of `count` segments each of the frames `(T, F)` is in, `(T,)` int64.

    Of all ways to cut them into segments of at least `shortest` frames (and one), the one with
    the least sum of squared deviations from the segments' means.
    """
    length, shortest = len(features), max(1, shortest)
    features = features.astype(np.float64)
    total = np.concatenate([np.zeros((1, features.shape[1])), features.cumsum(0)])
    square = np.concatenate([[0.0], (features**2).sum(1).cumsum()])
    frames = np.arange(length + 1)
    size = frames - frames[:, None]  # of a segment from the row's frame up to the column's
    apart = total - total[:, None]
    cost = square - square[:, None] - (apart**2).sum(-1) / np.maximum(size, 1)
    cost[size < shortest] = np.inf
    best, cuts = cost[0], []
    for _ in range(count - 1):
        ways = best[:, None] + cost
        cuts.append(ways.argmin(0))
        best = ways.min(0)
    ends = [length]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    return np.searchsorted(ends[:0:-1], np.arange(length), side="right")


def apartness(inside: Tensor, outside: Tensor) -> Tensor:
    """How well each feature `(F,)` sets frames `(K, F)` inside a step apart from those outside."""
    spread = inside.std(0, correction=0) + outside.std(0, correction=0)
    return (inside.mean(0) - outside.mean(0)).abs() - OVERLAP * spread


class _Net(nn.Module):
    """An encoder, and of each step which features it keeps and how they are distributed."""

    encoder: WatchfulEncoder
    kept: Tensor
    mean: Tensor
    spread: Tensor
    told: Tensor
    ceiling: Tensor

    def __init__(self, vector_size: int, cameras: int, steps: int) -> None:
        super().__init__()
        self.encoder = WatchfulEncoder(vector_size, cameras, 64 if cameras else vector_size)
        if not cameras:
            self.encoder.mix = nn.Identity()  # type: ignore[assignment]
        size = self.encoder.size
        self.tenth = nn.Linear(size, TENTHS)
        self.scale = RunningNorm(size)
        self.register_buffer("kept", torch.zeros(steps, size))
        self.register_buffer("mean", torch.zeros(steps, size))
        self.register_buffer("spread", torch.ones(steps, size))
        self.register_buffer("told", torch.zeros(TEXTS, TEXT_SIZE))
        self.register_buffer("ceiling", torch.ones(()))

    def learn(self, rows: Tensor, step: Tensor, features: int | None) -> None:
        """Take in normalised features `(K, F)` of frames that are in `step` `(K,)`."""
        changing = rows.std(0, correction=0) > 1e-3
        if not changing.any():
            raise UserError("no feature of the demonstrations ever changes: nothing to learn from")
        for number in range(len(self.kept)):
            inside, outside = rows[step == number], rows[step != number]
            worth = apartness(inside, outside).masked_fill(~changing, -torch.inf)
            count = min(features or len(worth), int(changing.sum()))
            self.kept[number] = 0.0
            self.kept[number, worth.topk(count).indices] = 1.0
            self.mean[number] = inside.mean(0)
            self.spread[number] = inside.std(0, correction=0).clamp(min=NARROWEST)

    def fits(self, features: Tensor) -> Tensor:
        """How well features `(n, F)` fit each step, `(n, steps)` in [0, 1]."""
        off = (self.scale(features)[:, None] - self.mean) / self.spread
        far = (self.kept * off.square()).sum(-1) - self.kept.sum(-1)
        return torch.exp(-0.5 * far.clamp(min=0.0))

    def forward(self, features: Tensor) -> Tensor:
        """R(x) `(n,)` of features `(n, F)`, as a share of what the last step alone pays."""
        fits = self.fits(features)[:, 1:]
        return (fits * 2.0 ** torch.arange(1 - fits.shape[1], 1)).sum(1)
