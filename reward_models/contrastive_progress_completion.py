"""Large Reward Models: contrast, progress and completion, three heads as one (arXiv 2603.16065).

The *contrastive* head compares the state with the one asked about before: more complete (+1), less
(-1), or neither (0). The *progress* head says which of 0, 0.1 .. 1 is done, and is shown the first
state as an anchor, without which it stays flat where starts differ. The *completion* head says
whether it is done. The value is the mean of the heads, contrast c as (c + 1) / 2: with all three
("tri") 1/6 at the start, 5/6 once done and at rest, 1 where it has just been done, and at most 2/3
while it is not done: `threshold` 0.7 is what no state reaches against the completion head.

It is asked every `stride` steps and held in between. Held, it would pay for staying; as a potential
it pays for change alone.

Where we differ: small networks from scratch in place of one vision-language model; the heads give
expectations rather than the likeliest answer; progress is time's share of a demonstration up to
its first success; some clips begin where they should end, so that an anchor alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embodied.dataset import Dataset
from embodied.encoder import Instruction, augment
from embodied.errors import UserError, check_range, unknown
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.judgement import judge
from embodied.language import embed
from embodied.statistics import spearman
from embodied.supervised import train_steps

from .negatives import mixed, told_otherwise
from .stages import time_shares
from .watchful import WatchfulEncoder, shown

HEADS = ("contrastive", "progress", "completion")
BINS = 11  # of progress: 0, 0.1 .. 1
SIGNS = 3  # of contrast: -1, 0, +1
STILL, DONE, WRONG, REWOUND = 0.15, 0.25, 0.2, 0.2
"""Shares of training moments: compared with themselves, done, told to do something else (or of
another task), in a clip that begins where it should end."""


class ContrastiveProgressCompletion(FrameJudge):
    """The mean of `heads`, in [0, 1]; without `anchor` progress is not shown the first state.

    `mixed` is the share of training states put together from two (see `negatives.mixed`). The least
    of `members` networks' values counts.
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
        stride: int = 10,
        heads: Sequence[str] = HEADS,
        anchor: bool = True,
        mixed: float = 0.3,
        members: int = 3,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(
            observation_space, proprio_size, instructions, input, cameras, 2, stride, seed
        )
        option = "reward_model.contrastive_progress_completion"
        for head in heads:
            if head not in HEADS:
                raise unknown("head", str(head), HEADS)
        if not heads or len({*heads}) < len(heads):
            raise UserError(f"{option}.heads={[*heads]}: give one or more of {', '.join(HEADS)}")
        check_range(option, 1, members=members)
        check_range(option, 0, noise=noise)
        check_range(option, 0, 0.9, mixed=mixed)
        self.heads, self.anchor, self.mixed, self.noise = tuple(heads), anchor, mixed, noise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras), members)
        self.net.eval()
        self.load(path)

    def memory_rows(self, first: Tensor) -> dict[str, Tensor]:
        return {"first": first}

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = self.net(window, self._anchor(memory["first"]), text)
        told = answers(logits)
        value = torch.stack([told[head] for head in self.heads]).mean(0).amin(0)
        clear, status = shown(window[:, -1])
        return value * clear, status, memory

    def _anchor(self, first: Tensor) -> Tensor:
        return first if self.anchor else torch.zeros_like(first)

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from successful demonstrations; no annotations are needed.

        Returns losses and, on a held-out tenth, the rank correlation of value and time up to
        success, and the mean value when done. Raises `UserError` for an episode without success.
        """
        table, share = self.table(dataset), time_shares(dataset)
        held_out = np.arange(len(dataset)) % 10 == 9
        moments = _Moments(self, table, share, torch.from_numpy(~held_out), dataset, others)
        images = [view[moments.rows] for view in table.images]
        self.hull.learn(table.vector[moments.rows])
        self.learn_colours(table, moments.rows, share[moments.rows])
        self.net.encoder.norm.update(table.vector[moments.rows])
        self.net.encoder.watch(images)
        self.net.train()
        pixels = bool(self.cameras)
        figures = train_steps(
            self.net.parameters(),
            lambda noise: moments.loss(48 if pixels else 256, noise),
            steps or (600 if pixels else 1200),
            lr=1e-3 if pixels else 2e-3,
            weight_decay=1e-2,
            seed=self.seed,
            threads=1,
            title="fit contrastive_progress_completion",
        )
        self.net.eval()
        self.fitted = True
        return figures | self._check(dataset.take(np.flatnonzero(held_out)))

    def _check(self, dataset: Dataset) -> dict[str, float]:
        if not len(dataset):
            return {}
        shares = [time_shares(dataset.take([row])).numpy() for row in range(len(dataset))]
        told = [judged.value for judged in judge(self, dataset.episodes, every=self.stride)]
        asked = [np.unique([*range(0, len(part), self.stride), len(part) - 1]) for part in shares]
        pairs = [(a[k], b[k]) for a, b, k in zip(told, shares, asked, strict=True)]
        return {
            "rank_correlation": float(np.mean([spearman(a, b) for a, b in pairs])),
            "done": float(np.mean([values[-1] for values in told])),
        }


def answers(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """Expected answers in [0, 1] from the logits `(..., classes)` of each head."""
    out = {}
    for head, count in (("contrastive", SIGNS), ("progress", BINS)):
        steps = torch.linspace(0.0, 1.0, count)
        out[head] = (torch.softmax(logits[head], -1) * steps).sum(-1)
    return out | {"completion": torch.sigmoid(logits["completion"]).squeeze(-1)}


class _Net(nn.Module):
    """Each head has `members` networks of its own behind one encoder."""

    encoder: WatchfulEncoder

    def __init__(self, vector_size: int, cameras: int, members: int) -> None:
        super().__init__()
        self.encoder = WatchfulEncoder(vector_size, cameras)
        self.words = Instruction()
        size, words = self.encoder.size, 32

        def head(moments: int, outputs: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(
                    nn.Linear(moments * size + words, 64), nn.SiLU(), nn.Dropout(0.1),
                    nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, outputs),
                )
                for _ in range(members)
            )  # fmt: skip

        self.contrastive, self.progress = head(2, SIGNS), head(2, BINS)
        self.completion = head(1, 1)

    def forward(self, window: Tensor, anchor: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Logits `(members, n, classes)` of each head for `window` `(n, 2, F)`."""
        before, now, told = window[:, 0], window[:, 1], self.words(text)
        asked = {
            "contrastive": torch.cat([before, now, told], -1),
            "progress": torch.cat([anchor, now, told], -1),
            "completion": torch.cat([now, told], -1),
        }
        return {
            name: torch.stack([member(x) for member in getattr(self, name)])
            for name, x in asked.items()
        }


class _Moments:
    """Draws moments of clips: the first, the one asked about before, the present one."""

    def __init__(
        self,
        model: ContrastiveProgressCompletion,
        table: FrameTable,
        share: Tensor,
        train: Tensor,
        dataset: Dataset,
        others: Sequence[Dataset],
    ) -> None:
        self.model, self.table, self.share = model, table, share
        self.net = model.net
        self.rows = train[table.episode].nonzero().squeeze(1)
        done = share[self.rows] >= 1.0
        self.chance = torch.where(done, DONE / done.sum(), (1.0 - DONE) / (~done).sum())
        texts = told_otherwise(dataset, others, model.instructions, model.seed)
        self.wrong = torch.from_numpy(embed(list(texts)).astype(np.float32))
        self.others = [model.table(other) for other in others if len(other)] * bool(model.cameras)

    def loss(self, batch: int, noise: torch.Generator) -> Tensor:
        """Cross-entropy of each head."""
        table, model = self.table, self.model
        now = self.rows[torch.multinomial(self.chance, batch, True, generator=noise)]
        before = self._other(now, noise)
        first = self._first(now, noise)
        frames = torch.stack([first, before, now], 1)
        vector, images = table.vector[frames], [view[frames] for view in table.images]
        text, share = table.text[table.episode[now]], self.share[now]
        other = self.rows[torch.multinomial(self.chance, batch, True, generator=noise)]
        chosen = self._chance(model.mixed, batch, noise)
        vector[:, 2] = mixed(vector[:, 2], table.vector[other], chosen, noise)
        share = torch.where(chosen, torch.minimum(share, self.share[other]), share)
        sign = torch.sign(share - self.share[before])
        wrong = self._chance(WRONG, batch, noise)
        pick = torch.randint(len(self.wrong), (batch,), generator=noise)
        text = torch.where(wrong[:, None], self.wrong[pick], text)
        if self.others:
            self._mismatch(wrong, text, table.text[table.episode[now]], vector, images, noise)
        share, sign = torch.where(wrong, 0.0, share), torch.where(wrong, 0.0, sign)
        spread = torch.sqrt(self.net.encoder.norm.var)
        vector = vector + model.noise * spread * torch.randn(vector.shape, generator=noise)
        views = [augment(view.flatten(0, 1), noise) for view in images]
        features = self.net.encoder(vector.flatten(0, 1), views).view(batch, 3, -1)
        logits = self.net(features[:, 1:], model._anchor(features[:, 0]), text)
        return self._errors(logits, sign, share)

    def _errors(self, logits: dict[str, Tensor], sign: Tensor, share: Tensor) -> Tensor:
        members = len(logits["progress"])
        targets = {
            "contrastive": (sign + 1.0).long(),
            "progress": torch.floor(share * (BINS - 1) + 1e-4).long(),
        }
        loss = functional.binary_cross_entropy_with_logits(
            logits["completion"].squeeze(-1), (share >= 1.0).float().expand(members, -1)
        )
        for head, target in targets.items():
            rows = logits[head].flatten(0, 1)
            loss = loss + functional.cross_entropy(rows, target.repeat(members))
        return loss

    def _other(self, now: Tensor, noise: torch.Generator) -> Tensor:
        """A moment up to two strides before or after each of `now`, or the same."""
        reach = 2 * self.model.stride
        gap = torch.randint(-reach, reach + 1, now.shape, generator=noise)
        gap = torch.where(self._chance(STILL, len(now), noise), 0, gap)
        return self._within(now, self.table.index[now] + gap)

    def _first(self, now: Tensor, noise: torch.Generator) -> Tensor:
        """The first frames of clips: of their episodes, or, of some that run back, the last."""
        rewound = self._chance(REWOUND, len(now), noise)
        last = self.table.length[self.table.episode[now]] - 1
        return self._within(now, torch.where(rewound, last, 0))

    def _within(self, now: Tensor, index: Tensor) -> Tensor:
        """Rows of the frames `index` (B,) of the episodes of `now`, or the nearest they have."""
        episode = self.table.episode[now]
        return self.table.start[episode] + torch.minimum(
            index.clamp(min=0), self.table.length[episode] - 1
        )

    def _mismatch(
        self, wrong: Tensor, text: Tensor, own: Tensor, vector: Tensor, images: list[Tensor],
        noise: torch.Generator,
    ) -> None:  # fmt: skip
        """Half of what is told wrong shows another task's video with our instruction instead."""
        for row in (wrong & self._chance(0.5, len(wrong), noise)).nonzero()[:, 0].tolist():
            table = self.others[int(torch.randint(len(self.others), (), generator=noise))]
            now = torch.randint(len(table), (1,), generator=noise)
            begin = table.start[table.episode[now]]
            before = torch.maximum(begin, now - self.model.stride)
            frames = torch.cat([begin, before, now])
            vector[row], text[row] = table.vector[frames], own[row]
            for view, there in zip(images, table.images, strict=True):
                view[row] = there[frames]

    @staticmethod
    def _chance(share: float, batch: int, noise: torch.Generator) -> Tensor:
        return torch.rand(batch, generator=noise) < share
