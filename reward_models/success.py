"""A success classifier: the probability that the task is done, from frames labelled done or not.

The smallest learned reward there is: one frame, class-balanced cross-entropy (as in Singh et al.
2019, arXiv 1904.07854, without its queries). Done frames count as not done under the instruction
of another task; from images that show nothing it abstains.
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
from embodied.errors import UserError, check_range
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.language import embed
from embodied.supervised import train_steps

from .negatives import told_otherwise
from .watchful import WatchfulEncoder, shown


class SuccessClassifier(FrameJudge):
    """p(success) of the present state, in [0, 1].

    `wrong_instruction` is the share of training frames that are told another task: not done.
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
        wrong_instruction: float = 0.2,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(observation_space, proprio_size, instructions, input, cameras, seed=seed)
        check_range("reward_model.success", 0, 0.9, wrong_instruction=wrong_instruction)
        check_range("reward_model.success", 0, noise=noise)
        self.wrong_instruction, self.noise = wrong_instruction, noise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(self.vector_size, len(self.cameras)).eval()
        self.load(path)

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        value = torch.sigmoid(self.net(window[:, -1], text))
        clear, status = shown(window[:, -1])
        return value * clear, status, {}

    def fit(
        self, dataset: Dataset, others: Sequence[Dataset] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Learn from frames of episodes that say where they are a success.

        Returns the loss before and after, and the accuracy of either class on a held-out tenth of
        the episodes. Raises `UserError` when one of the classes is missing.
        """
        table = self.table(dataset)
        held_out = torch.arange(len(dataset)) % 10 == 9
        train = (~held_out)[table.episode].nonzero().squeeze(1)
        done = float(table.success[train].float().mean())
        if not 0.0 < done < 1.0:
            raise UserError(
                f"success labels are all {done:.0f}: give episodes that reach success on the way"
            )
        told = told_otherwise(dataset, others, self.instructions)
        wrong = torch.from_numpy(embed(list(told)).astype(np.float32))
        images = [view[train] for view in table.images]
        self.hull.learn(table.vector[train])
        self.learn_colours(table, train, table.success[train].float())
        self.net.encoder.norm.update(table.vector[train])
        self.net.encoder.watch(images)
        self.net.train()
        pixels = bool(self.cameras)
        figures = train_steps(
            self.net.parameters(),
            lambda noise: self._loss(table, train, wrong, done, 128 if pixels else 256, noise),
            steps or (400 if pixels else 800),
            lr=2e-3,
            weight_decay=1e-3,
            seed=self.seed,
            threads=2 if pixels else 1,
            title="fit success",
        )
        self.net.eval()
        self.fitted = True
        return figures | self._accuracy(table, held_out[table.episode].nonzero().squeeze(1))

    def _loss(
        self, table: FrameTable, rows: Tensor, wrong: Tensor, done: float, batch: int,
        noise: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Balanced cross-entropy: done and not done frames weigh the same."""

        now = rows[torch.randint(len(rows), (batch,), generator=noise)]
        spread = self.noise * torch.sqrt(self.net.encoder.norm.var)
        vector = table.vector[now]
        vector = vector + spread * torch.randn(vector.shape, generator=noise)
        images = [augment(view[now], noise) for view in table.images]
        astray = torch.rand(batch, generator=noise) < self.wrong_instruction
        pick = torch.randint(len(wrong), (batch,), generator=noise)
        text = torch.where(astray[:, None], wrong[pick], table.text[table.episode[now]])
        label = table.success[now]
        weight = torch.where(label, 0.5 / done, 0.5 / (1.0 - done))
        label = (label & ~astray).float()
        logit = self.net(self.net.encoder(vector, images), text)
        return functional.binary_cross_entropy_with_logits(logit, label, weight)

    @torch.inference_mode()
    def _accuracy(self, table: FrameTable, rows: Tensor) -> dict[str, float]:
        figures = {}
        for name, wanted in (("accuracy_done", True), ("accuracy_not_done", False)):
            mine = rows[table.success[rows] == wanted]
            if len(mine):
                features = self.net.encoder(
                    table.vector[mine], [view[mine] for view in table.images]
                )
                logit = self.net(features, table.text[table.episode[mine]])
                figures[name] = float(((logit > 0) == wanted).float().mean())
        return figures


class _Net(nn.Module):
    """An encoded frame and a text as the log-odds of success."""

    encoder: WatchfulEncoder

    def __init__(self, vector_size: int, cameras: int) -> None:
        super().__init__()
        self.encoder = WatchfulEncoder(vector_size, cameras)
        self.words = Instruction()
        self.head = nn.Sequential(
            nn.Linear(self.encoder.size + 32, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        return self.head(torch.cat([features, self.words(text)], -1)).squeeze(-1)
