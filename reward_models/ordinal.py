"""RoboReward: one score from 1 to 5 of how well a clip did what it was told (arXiv 2601.00675).

It learns from successes alone, relabelled. *Counterfactual instructions*: the same clip, had
another task been asked for, deserves less. *Temporal clipping*: a clip that is cut short has done
less. The reward is (score - 1) / 4, once, at the end of an episode.

Where we differ: a small network from scratch in place of a vision-language model; a clip is known
by its first and its last states, since the end alone is to be judged; the reward is that of the
expected score. The paper leaves the next two to a language model, or unsaid, so they are ours:

- Another task's instruction deserves 1, 2 or 3: by the share of its words (but for the commonest)
  that occur in the right instructions, or of its stages that the right task begins with, below
  1/4, below 1/2, or above. A clip of another task with this instruction deserves 1.
- A clip cut before success, with c of M stages completed, deserves 1 + 4 c / M, rounded, at most 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embodied.dataset import Dataset
from embodied.encoder import Instruction, augment
from embodied.errors import UserError, check_range
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.judgement import judge
from embodied.language import embed
from embodied.supervised import train_steps

from .negatives import mixed, told_otherwise, words
from .stages import check_stages, time_shares
from .watchful import WatchfulEncoder, shown

WORST, BEST = 1, 5
ALIKE = (0.25, 0.5)
"""From which likeness on a counterfactual instruction deserves 2, and 3."""
MISMATCHED, MOVED = 0.15, 0.25
"""Shares of training clips: of another task (as far as it is seen), beginning at any frame."""


class Ordinal(FrameJudge):
    """The expected score of the clip so far, from 1 to 5, as a value in [0, 1].

    Meant to be asked at the end of an episode: `every` beyond its length does that, for which
    `window` must be 1 (a longer one has to be fed every `stride` steps). `counterfactuals` is the
    share of training clips with another task's instruction; without `clipping` clips are whole,
    and no stage annotations are needed; `mixed` is the share whose last state is put together from
    two (see `negatives.mixed`). The least of `members` networks' values counts.
    """

    kind = "success"
    net: _Net

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        proprio_size: int | None = None,
        instructions: Sequence[str] = (),
        input: str = "state",
        cameras: Sequence[str] = ("front",),
        path: str | None = None,
        window: int = 1,
        stride: int = 1,
        counterfactuals: float = 0.3,
        clipping: bool = True,
        mixed: float = 0.3,
        members: int = 3,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(
            observation_space, proprio_size, instructions, input, cameras, window, stride, seed
        )
        check_range("reward_model.ordinal", 0, 0.9, counterfactuals=counterfactuals, mixed=mixed)
        check_range("reward_model.ordinal", 1, members=members)
        check_range("reward_model.ordinal", 0, noise=noise)
        if not counterfactuals and not clipping:
            raise UserError("reward_model.ordinal: counterfactuals=0, clipping=false: all are 5")
        self.counterfactuals, self.clipping = counterfactuals, clipping
        self.mixed, self.noise = mixed, noise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras), window, members)
        self.net.eval()
        self.load(path)

    def memory_rows(self, first: Tensor) -> dict[str, Tensor]:
        return {"first": first}

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = self.net(window, memory["first"], text)
        clear, status = shown(window[:, -1])
        value = torch.sigmoid(logits).mean(-1).amin(0)  # E[n] is 1 + the sum of P(n > k)
        return value * clear, status, memory

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from successful demonstrations with stage annotations.

        Returns losses and, on a held-out tenth, the mean absolute error of the score (1 to 5), and
        the mean scores of whole clips, with their own and with other tasks' instructions. Raises
        `UserError` for an episode without success, with nothing before it, or with missing stages.
        """
        table, scores = self.table(dataset), clip_scores(dataset, self.clipping)
        held_out = np.arange(len(dataset)) % 10 == 9
        clips = _Clips(self, table, scores, torch.from_numpy(~held_out), dataset, others)
        images = [view[clips.rows] for view in table.images]
        self.hull.learn(table.vector[clips.rows])
        self.learn_colours(table, clips.rows, time_shares(dataset)[clips.rows])
        self.net.encoder.norm.update(table.vector[clips.rows])
        self.net.encoder.watch(images)
        self.net.train()
        pixels = bool(self.cameras)
        figures = train_steps(
            self.net.parameters(),
            lambda noise: clips.loss(64 if pixels else 256, noise),
            steps or (600 if pixels else 1200),
            lr=1e-3 if pixels else 2e-3,
            weight_decay=1e-2,
            seed=self.seed,
            threads=1,
            title="fit ordinal",
        )
        self.net.eval()
        self.fitted = True
        return figures | self._check(dataset.take(np.flatnonzero(held_out)), clips)

    def _check(self, dataset: Dataset, clips: _Clips) -> dict[str, float]:
        if not len(dataset):
            return {}
        told = [1.0 + 4.0 * j.value for j in judge(self, dataset.episodes)]
        right = clip_scores(dataset, self.clipping)
        known = right > 0
        figures = {
            "error": float(np.abs(np.concatenate(told) - right.numpy())[known].mean()),
            "whole": float(np.mean([values[-1] for values in told])),
        }
        for text in list(clips.texts)[:1]:
            other = [replace(episode, instruction=text) for episode in dataset.episodes]
            values = [judged.value[-1] for judged in judge(self, other)]
            figures["other_instruction"] = float(1.0 + 4.0 * np.mean(values))
        return figures


def clip_scores(dataset: Dataset, clipping: bool = True) -> Tensor:
    """What the clip up to each of all K frames deserves, `(K,)` int64: 5 from success on.

    Before that by the stage it ends in; without `clipping` 0, for "not used". Raises `UserError`.
    """
    names = dataset.info.stages
    rows = []
    for number, episode in enumerate(dataset.episodes):
        if not episode.succeeded:
            raise UserError(f"episode {number} never succeeds: only successes are relabelled")
        index, done = np.arange(len(episode)), int(episode.success.argmax())
        score = np.zeros(len(episode), np.int64)
        if clipping:
            count = len(names) or int(episode.stage.max()) + 1
            check_stages(episode.stage, count, f"episode {number}", names)
            score = np.minimum(np.floor(1.5 + 4.0 * episode.stage / count), 4).astype(np.int64)
        rows.append(np.where(index >= done, BEST, score))
    return torch.from_numpy(np.concatenate(rows))


def counterfactual_score(
    text: str, right: Sequence[str], stages: Sequence[str] = (), ours: Sequence[str] = ()
) -> int:
    """What a clip that did `right` deserves if told `text`, whose task has `stages`: 1 to 3."""
    asked, done = words(text), set[str]().union(*(words(other) for other in right))
    likeness = len(asked & done) / max(1, len(asked))
    same = 0
    while same < min(len(stages), len(ours)) and stages[same] == ours[same]:
        same += 1
    likeness = max(likeness, same / max(1, len(stages)))
    return WORST + sum(likeness >= least for least in ALIKE)


class _Net(nn.Module):
    """Cumulative links (CORAL, arXiv 1901.07884): one number, four ordered thresholds."""

    encoder: WatchfulEncoder

    def __init__(self, vector_size: int, cameras: int, window: int, members: int) -> None:
        super().__init__()
        self.encoder = WatchfulEncoder(vector_size, cameras)
        self.words = Instruction()
        size = self.encoder.size
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear((window + 1) * size + 32, 96), nn.SiLU(), nn.Dropout(0.1),
                nn.Linear(96, 64), nn.SiLU(), nn.Linear(64, 1),
            )
            for _ in range(members)
        )  # fmt: skip
        self.gaps = nn.Parameter(torch.ones(BEST - WORST))

    def forward(self, window: Tensor, first: Tensor, text: Tensor) -> Tensor:
        """Logits of P(score > k) for k from 1 to 4, `(members, n, 4)`."""
        x = torch.cat([window.flatten(1), first, self.words(text)], -1)
        score = torch.stack([member(x) for member in self.members])
        steps = functional.softplus(self.gaps)
        return score - (torch.cumsum(steps, 0) - steps.sum() / 2)


class _Clips:
    """Draws clips, each with an instruction and the score that it deserves."""

    def __init__(
        self,
        model: Ordinal,
        table: FrameTable,
        scores: Tensor,
        train: Tensor,
        dataset: Dataset,
        others: Sequence[Dataset],
    ) -> None:
        self.model, self.table, self.scores = model, table, scores
        self.net = model.net
        self.rows = train[table.episode].nonzero().squeeze(1)
        counts = torch.bincount(scores[self.rows], minlength=BEST + 1).float()
        counts[0] = torch.inf  # frames that no clip ends at
        self.chance = 1.0 / counts[scores[self.rows]]  # of each score as many
        right = [*{*model.instructions, *table.instructions}]
        self.texts = told_otherwise(dataset, others, model.instructions, model.seed)
        self.wrong = torch.from_numpy(embed(list(self.texts)).astype(np.float32))
        self.most = torch.tensor(
            [
                counterfactual_score(text, right, stages, dataset.info.stages)
                for text, stages in self.texts.items()
            ]
        )
        self.others = [model.table(other) for other in others if len(other)] * bool(model.cameras)

    def loss(self, batch: int, noise: torch.Generator) -> Tensor:
        table, window = self.table, self.model.window
        last = self._draw(batch, noise)
        begin = table.start[table.episode[last]]
        moved = begin + (torch.rand(batch, generator=noise) * (last - begin + 1)).long()
        begin = torch.where(self._chance(MOVED, batch, noise), moved, begin)
        frames = torch.cat([table.windows(last, window, self.model.stride), begin[:, None]], 1)
        vector, images = table.vector[frames], [view[frames] for view in table.images]
        text, score = table.text[table.episode[last]], self.scores[last]
        other, chosen = self._draw(batch, noise), self._chance(self.model.mixed, batch, noise)
        vector[:, :-1] = mixed(vector[:, :-1], table.vector[other], chosen, noise)
        score = torch.where(chosen, torch.minimum(score, self.scores[other]), score)
        told = self._chance(self.model.counterfactuals, batch, noise)
        pick = torch.randint(len(self.wrong), (batch,), generator=noise)
        text = torch.where(told[:, None], self.wrong[pick], text)
        score = torch.where(told, torch.minimum(score, self.most[pick]), score)
        if self.others and self.model.counterfactuals:
            rows = self._chance(MISMATCHED, batch, noise).nonzero().squeeze(1)
            self._mismatch(rows, vector, images, noise)
            score[rows] = WORST
            text[rows] = table.text[table.episode[last[rows]]]
        spread = torch.sqrt(self.net.encoder.norm.var)
        vector = vector + self.model.noise * spread * torch.randn(vector.shape, generator=noise)
        count = frames.shape[1]
        views = [augment(view.flatten(0, 1), noise) for view in images]
        features = self.net.encoder(vector.flatten(0, 1), views).view(batch, count, -1)
        logits = self.net(features[:, :-1], features[:, -1], text)
        above = (score[:, None] > torch.arange(WORST, BEST)).float().expand_as(logits)
        return functional.binary_cross_entropy_with_logits(logits, above)

    def _draw(self, batch: int, noise: torch.Generator) -> Tensor:
        """Frames `(B,)` that clips end at, of each score as many."""
        return self.rows[torch.multinomial(self.chance, batch, True, generator=noise)]

    def _mismatch(
        self, rows: Tensor, vector: Tensor, images: list[Tensor], noise: torch.Generator
    ) -> None:
        """Put clips of other tasks into `rows` of a batch."""
        for row in rows.tolist():
            pick = int(torch.randint(len(self.others), (), generator=noise))
            table = self.others[pick]
            last = torch.randint(len(table), (1,), generator=noise)
            frames = table.windows(last, self.model.window, self.model.stride)[0]
            frames = torch.cat([frames, table.start[table.episode[last]]])
            vector[row] = table.vector[frames]
            for own, view in zip(images, table.images, strict=True):
                own[row] = view[frames]

    @staticmethod
    def _chance(share: float, batch: int, noise: torch.Generator) -> Tensor:
        return torch.rand(batch, generator=noise) < share
