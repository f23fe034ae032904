"""Progress as hops between moments, seen from three sides: Robo-Dopamine's GRM (2512.23703)."""

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
from embodied.language import embed
from embodied.supervised import train_steps

from .hop_labels import fuse, potentials
from .hop_lesson import HopLesson
from .negatives import told_otherwise
from .support import Support
from .watchful import WatchfulSharpEncoder, shown

PERSPECTIVES = ("incremental", "forward", "backward")
REFERENCES = 4
"""Demonstrations whose first and last moments are shown as reference start and goal."""


class Hop(FrameJudge):
    """How far a state is, in [0, 1], from learned relative progress between pairs of moments.

    Robo-Dopamine's GRM (arXiv 2512.23703) with a small network in place of the language model.
    The potential Phi is i/M at the i-th of M stage boundaries and linear between; the hop from p
    to q is (Phi_q - Phi_p)/(1 - Phi_p) forward and (Phi_q - Phi_p)/Phi_p backward. The network is
    shown a reference start and goal, BEFORE, AFTER (all cameras) and the instruction.

    A state is judged by three hops: `incremental` from the state last judged, `forward` from the
    episode's first state, `backward` from the goal; Phi* is their mean. With `consistency` alpha
    Phi* moves the less, the more the last two disagree. References are always of training
    demonstrations and kept with the weights: the judged episode's own last frame as the goal
    would leak the answer.

    Where we differ: every training step also asks the two anchored questions about its moments;
    the incremental hop starts from the last *fused* value, so that its drift dies out; under
    another task's words, and in another task's video, Phi is 0; a moment put together from two is
    as far as the lesser; images that show nothing are abstained from; values are stretched so that
    nine tenths of the done frames get 1; and values fall off with the distance from where
    demonstrations were done (see `support`): a policy that is paid for them does not stop beside
    the goal, and finds a way uphill where no demonstration went.

    `rewind` is the share of hops that go backward, `zero_hops` of those that go nowhere,
    `stage_labels=False` takes t/T for Phi.
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
        seed: int = 0,
        perspectives: Sequence[str] = PERSPECTIVES,
        consistency: float | None = None,
        rewind: float = 0.5,
        zero_hops: float = 0.05,
        stage_labels: bool = True,
    ) -> None:
        super().__init__(observation_space, proprio_size, instructions, input, cameras, seed=seed)
        if not perspectives or not set(perspectives) <= set(PERSPECTIVES):
            raise UserError(
                f"reward_model.hop.perspectives={list(perspectives)}: give some of "
                f"{', '.join(PERSPECTIVES)}"
            )
        if consistency is not None and set(perspectives) < set(PERSPECTIVES):
            raise UserError("reward_model.hop.consistency needs all perspectives: leave none out")
        check_range("reward_model.hop", 0, consistency=consistency or 0.0)
        check_range("reward_model.hop", 0, 1, rewind=rewind, zero_hops=zero_hops)
        self.perspectives, self.consistency = tuple(perspectives), consistency
        self.rewind, self.zero_hops, self.stage_labels = rewind, zero_hops, stage_labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras)).eval()
        self.load(path)

    # --- judging

    def memory_rows(self, first: Tensor) -> dict[str, Tensor]:
        return {"init": first.clone(), "last": first.clone(), "phi": torch.zeros(len(first))}

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        now, phi = window[:, -1], memory["phi"]
        befores = {"incremental": memory["last"], "forward": memory["init"], "backward": None}
        names = self.perspectives
        if first and len(names) > 1:  # no state has been judged before
            names = tuple(name for name in names if name != "incremental")
        hops = {name: self.net.hops(befores[name], now, text) for name in names}
        fused = fuse(hops, phi, None if first else self.consistency)
        clear, status = shown(now)
        memory = {
            "init": memory["init"],
            "last": torch.where(clear[:, None], now, memory["last"]),
            "phi": torch.where(clear, fused, phi),
        }
        value = torch.where(clear, (fused / self.net.ceiling).clamp(max=1.0), 0.0)
        return value, status, memory

    def allowed(self, vector: Tensor) -> Tensor:
        return self.net.done.allowed(vector)

    # --- learning

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from demonstrations that succeed, with stages; `others` are of other tasks.

        Returns the loss before and after and, with ten episodes or more, the mean error on a
        held-out tenth. Raises `UserError` for a failure, and for stages that are missing, skipped
        or out of order.
        """
        phi = potentials(dataset, self.stage_labels)
        held_out = np.arange(len(dataset)) % 10 == 9
        learned = dataset.take(np.flatnonzero(~held_out))
        kept = [part for part, out in zip(phi, held_out, strict=True) if not out]
        table = self.table(learned)
        progress = torch.from_numpy(np.concatenate(kept))
        self.hull.learn(table.vector)
        self.learn_colours(table, torch.arange(len(table)), progress)
        self.net.encoder.learn(table.vector, progress >= 1.0)
        robot = min(dataset.info.proprio_size, self.vector_size)
        self.net.done.learn(table.vector[:, robot:], progress >= 1.0)
        self.net.encoder.watch(table.images)
        steps = steps or (700 if self.cameras else 1500)
        figures = self._train(table, learned, kept, others, steps, 1e-3)
        if held_out.any():
            rows = np.flatnonzero(held_out)
            told = judge(self, dataset.take(rows).episodes)
            errors = [abs(told[k].value - phi[row]).mean() for k, row in enumerate(rows)]
            figures["held_out_error"] = float(np.mean(errors))
        return figures

    def adapt(self, dataset: Dataset, steps: int = 300) -> dict[str, float]:
        """Adapt a fitted model to another task or env from (one) demonstration of it.

        The weights are trained on, and the references become the demonstration's.
        """
        self._need_fit()
        phi = potentials(dataset, self.stage_labels)
        self.hull.forget()  # one demonstration does not tell where others would be
        self.hues.forget()
        self.places.forget()
        self.net.done.forget()
        return self._train(self.table(dataset), dataset, phi, (), steps, 5e-4)

    def _train(
        self, table: FrameTable, dataset: Dataset, phi: list[np.ndarray],
        others: Sequence[Dataset], steps: int, lr: float,
    ) -> dict[str, float]:  # fmt: skip
        words = list(told_otherwise(dataset, others, self.instructions))
        lesson = HopLesson(
            self.net, table, phi, torch.from_numpy(embed(words).astype(np.float32)),
            [self.table(other) for other in others] if self.cameras else [],
            robot=dataset.info.proprio_size, rewind=self.rewind, zero=self.zero_hops,
            rng=np.random.default_rng(self.seed),
        )  # fmt: skip
        self.net.train()
        try:
            figures = train_steps(
                self.net.parameters(), lesson.loss, steps, lr, 1e-3, self.seed, 1, "fit hop"
            )
        finally:
            self.net.eval()
        rows = torch.arange(REFERENCES) % len(dataset)
        with torch.inference_mode():
            for part, frames in ((self.net.start, lesson.first), (self.net.goal, lesson.last)):
                images = [image[frames[rows]] for image in table.images]
                part.copy_(self.net.encoder(table.vector[frames[rows]], images))
        self.fitted = True
        self.net.ceiling.fill_(1.0)
        told = np.concatenate([judged.value for judged in judge(self, dataset.episodes)])
        done = torch.from_numpy(told[np.concatenate(phi) >= 1.0])
        self.net.ceiling.copy_(torch.quantile(done, 0.1).clamp(0.5, 1.0))
        return figures


class _Net(nn.Module):
    """A hop from what two moments show, between a reference start and goal, and the words."""

    encoder: WatchfulSharpEncoder
    start: Tensor
    goal: Tensor
    ceiling: Tensor

    def __init__(self, vector_size: int, cameras: int, size: int = 48, hidden: int = 96) -> None:
        super().__init__()
        self.encoder = WatchfulSharpEncoder(vector_size, cameras, size)
        size, words = self.encoder.size, size // 2
        self.instruction = Instruction(words)
        parts = (size, size, size, size, words)
        self.parts = nn.ModuleList(nn.Linear(part, hidden) for part in parts)
        self.head = nn.Sequential(
            nn.SiLU(), nn.Dropout(0.1),
            nn.Linear(hidden, hidden // 2), nn.SiLU(),
            nn.Linear(hidden // 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.done = Support(vector_size, stages=0)
        self.register_buffer("start", torch.zeros(REFERENCES, size))
        self.register_buffer("goal", torch.zeros(REFERENCES, size))
        self.register_buffer("ceiling", torch.ones(()))

    def forward(
        self, start: Tensor, goal: Tensor, before: Tensor, after: Tensor, text: Tensor
    ) -> Tensor:
        """Hops `(...)` from features `(..., F)` and embedded texts `(..., TEXT_SIZE)`."""
        inputs = (start, goal, before, after, self.instruction(text))
        mixed = [layer(part) for layer, part in zip(self.parts, inputs, strict=True)]
        return self.head(sum(mixed[1:], mixed[0])).squeeze(-1)

    def hops(self, before: Tensor | None, now: Tensor, text: Tensor) -> Tensor:
        """Hops `(n,)` to `now` `(n, F)` from `before` (None: from the goal), as the mean over the
        references."""
        start, goal = self.start[:, None], self.goal[:, None]
        return self(start, goal, goal if before is None else before, now, text).mean(0)
