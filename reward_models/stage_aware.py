"""SARM: which stage a state is in, and how far within it (Chen et al. 2025, arXiv 2509.25358).

Stage annotations give every frame of a demonstration its progress: stages count for their mean
share of an episode, time counts within a stage alone. One head tells the stage, one how much of it
is done, given the stage. Windows that run back in time teach that progress can fall; instructions
of other tasks, that there can be none.

Where we differ:

- A small network from scratch in place of frozen CLIP features; its window is causal (the
  published code looks at later frames, which nobody has online) and is drawn at any pace, standing
  still included, so that it tells no time.
- The value is the expectation over stages, which is smoother than the likeliest one's. Told a
  wrong stage (a quarter of the time) the second head learns the nearest end of that stage.
- What is left of a stage is the time to the next one, so a stay that ends in a setback got nowhere;
  the last stage ends with success. Values are stretched so that nine tenths of the done frames
  reach 1, and the least of several networks' values counts.
- A stage, and being done, ends where demonstrations of it do (see `support`), however sure the
  network is: a policy that is paid for what it guesses far from them finds what it guesses wrong.
  For the same reason values fall off far from all demonstrations (see `Hull`), and with the
  distance from where they were done, so that there is a way uphill where none of them went.
- Demonstrators stand still only where they are done, so a judge of states may take stillness for
  success. Hence the robot's own numbers are partly exchanged for those of any other frame, while
  a state whose other numbers are partly another frame's is as far as the lesser of the two. An
  image with a patch of an earlier moment, a thing still at its place, is no further than that one.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from embodied.dataset import Dataset
from embodied.encoder import Instruction
from embodied.errors import UserError, check_range
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.judgement import judge
from embodied.statistics import spearman
from embodied.supervised import train_steps

from .stage_windows import StageWindows
from .stages import StageLabels
from .support import FAR, SupportEncoder, outside
from .watchful import shown

MOST_STAGES = 16
NARROW = 0.05
"""How fast what is done of the last stage falls off outside of where demonstrations were done."""
LOUDEST, DOUBT = 5.0, 2.0
"""How sure of a stage a network may be, as a logit, and how fast that falls off outside of where
demonstrations were in it: however sure it is, what is far outside is not of that stage."""


class StageAware(FrameJudge):
    """Progress in [0, 1] through stages that demonstrations annotate.

    `stage_labels=False` labels by time alone (t/T). `rewind` and `wrong_instruction` are the
    shares of training windows that run back in time and that are told another task; `mixed` is
    that of states put together from two frames. Without `doubt` a network's guess counts where no
    demonstration has been, and whatever colours are in view. With images it abstains where it sees
    nothing.
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
        window: int = 4,
        stride: int = 5,
        stage_labels: bool = True,
        rewind: float = 0.8,
        wrong_instruction: float = 0.2,
        mixed: float = 0.3,
        doubt: bool = True,
        members: int = 3,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(
            observation_space, proprio_size, instructions, input, cameras, window, stride, seed
        )
        shares = {"rewind": rewind, "wrong_instruction": wrong_instruction, "mixed": mixed}
        check_range("reward_model.stage_aware", 0, 1, **shares)
        check_range("reward_model.stage_aware", 1, members=members)
        check_range("reward_model.stage_aware", 0, noise=noise)
        self.stage_labels, self.rewind, self.doubt = stage_labels, rewind, doubt
        self.wrong_instruction, self.mixed, self.noise = wrong_instruction, mixed, noise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras), window, members)
        self.net.eval()
        self.load(path)

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        clear, status = shown(window[:, -1])
        return self.net.value(window, text) * clear, status, {}

    def allowed(self, vector: Tensor) -> Tensor:
        return self.net.encoder.support.allowed(vector) if self.doubt else super().allowed(vector)

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from demonstrations whose frames all say which stage they are in.

        Returns losses and, on a held-out tenth of the episodes, the mean rank correlation and
        distance of values and labels, and the share of done frames valued at 0.95 or more. Raises
        `UserError` for annotations that are missing, skip a stage or go back.
        """
        table = self.table(dataset)
        labels = StageLabels.of(dataset, self.stage_labels)
        if len(labels.shares) > MOST_STAGES:
            raise UserError(f"{len(labels.shares)} stages: at most {MOST_STAGES} are told apart")
        held_out = np.arange(len(dataset)) % 10 == 9
        train = torch.from_numpy(~held_out)[table.episode].nonzero().squeeze(1)
        self.net.shares.zero_()[: len(labels.shares)] = labels.shares
        self.net.ceiling.fill_(1.0)
        self._look(table, labels, train, min(dataset.info.proprio_size, self.vector_size))
        self.net.train()
        windows = StageWindows(self, table, labels, train, dataset, others)
        pixels = bool(self.cameras)
        figures = train_steps(
            self.net.parameters(),
            lambda noise: windows.loss(64 if pixels else 256, noise),
            steps or 1500,
            lr=1e-3 if pixels else 2e-3,
            weight_decay=1e-2,
            seed=self.seed,
            threads=2 if pixels else 1,
            title="fit stage_aware",
        )
        self.net.eval()
        self.fitted = True
        self._calibrate(dataset.take(np.flatnonzero(~held_out)), labels.value[train])
        return figures | self._check(dataset, held_out, table, labels)

    def _look(self, table: FrameTable, labels: StageLabels, train: Tensor, robot: int) -> None:
        """Take what the encoder must know of the frames that are learned from."""
        encoder, rows, value = self.net.encoder, table.vector[train], labels.value[train]
        images, done = [view[train] for view in table.images], value >= 1.0
        self.hull.forget()
        self.hues.forget()
        self.places.forget()
        if self.doubt:
            self.hull.learn(rows)
            self.learn_colours(table, train, value)
        encoder.learn(rows, done)
        encoder.support.learn(rows[:, robot:], done, labels.stage[train])
        encoder.watch(images)

    def _calibrate(self, dataset: Dataset, label: Tensor) -> None:
        """Stretch values so that nine tenths of the done frames get 1."""
        told = torch.from_numpy(np.concatenate([j.value for j in judge(self, dataset.episodes)]))
        self.net.ceiling.copy_(torch.quantile(told[label >= 1.0], 0.1).clamp(0.5, 1.0))

    def _check(
        self, dataset: Dataset, held_out: np.ndarray, table: FrameTable, labels: StageLabels
    ) -> dict[str, float]:
        rows = np.flatnonzero(held_out)
        if not len(rows):
            return {}
        told = [j.value for j in judge(self, dataset.take(rows).episodes)]
        truth = [labels.value[table.episode == int(row)].numpy() for row in rows]
        ranks = [spearman(a, b) for a, b in zip(told, truth, strict=True)]
        value, label = np.concatenate(told), np.concatenate(truth)
        return {
            "rank_correlation": float(np.mean(ranks)),
            "error": float(np.abs(value - label).mean()),
            "done": float((value[label >= 1.0] >= 0.95).mean()),
        }


class _Net(nn.Module):
    """The present state attends to its window; each member tells stage and share from that."""

    encoder: SupportEncoder
    shares: Tensor
    ceiling: Tensor

    def __init__(self, vector_size: int, cameras: int, window: int, members: int) -> None:
        super().__init__()
        self.encoder = SupportEncoder(vector_size, cameras, MOST_STAGES)
        size = self.encoder.size
        self.words = Instruction()
        self.place = nn.Parameter(0.02 * torch.randn(window, size))
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * size + 32, 128), nn.SiLU(), nn.Dropout(0.1),
                nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, 2 * MOST_STAGES),
            )
            for _ in range(members)
        )  # fmt: skip
        self.register_buffer("shares", torch.zeros(MOST_STAGES))
        self.register_buffer("ceiling", torch.ones(()))

    def forward(self, window: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Stage logits and what is done of each stage, `(members, n, MOST_STAGES)`."""
        present, seen = window[:, -1], window + self.place
        score = (self.key(seen) @ self.query(present)[:, :, None]).squeeze(-1)
        weight = torch.softmax(score / window.shape[-1] ** 0.5, -1)
        past = (weight[:, None] @ seen).squeeze(1)
        x = torch.cat([present, past, self.words(text)], -1)
        out = torch.stack([member(x) for member in self.members])
        logits, within = out.split(MOST_STAGES, -1)
        far = outside(present, MOST_STAGES)
        logits = LOUDEST * torch.tanh(logits / LOUDEST) - DOUBT * far[:, :-1]
        within = torch.sigmoid(within)
        last = torch.arange(MOST_STAGES) == (self.shares > 0.0).sum() - 1
        near = torch.exp(-NARROW * far[:, -1:].clamp(max=FAR))
        within = torch.where(last, within * near, within)
        return logits.masked_fill(self.shares <= 0.0, -1e9), within

    def value(self, window: Tensor, text: Tensor) -> Tensor:
        """The least of the members' expected progress, `(n,)`."""
        logits, within = self(window, text)
        before = torch.cumsum(self.shares, 0) - self.shares
        told = (torch.softmax(logits, -1) * (before + self.shares * within)).sum(-1)
        return (told.amin(0) / self.ceiling).clamp(0.0, 1.0)
