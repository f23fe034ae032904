"""A success classifier on the state: the probability that the task is done, from labelled steps.

The smallest learned reward there is: a multilayer perceptron on normalised observations, trained
with class-balanced cross-entropy on steps labelled done or not done (as in Singh et al. 2019,
"End-to-end robotic reinforcement learning without reward engineering", without its queries).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.errors import UserError
from embodied.nets import RunningNorm, load_weights, mlp
from embodied.reward_model import Needs
from embodied.spaces import to_vector, vector_keys, vector_size
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class SuccessClassifier:
    """Scores each step with p(success) of its successor, in [0, 1].

    `path` is what `fit` saved; without it the model is untrained and refuses to score. It asks
    for observations only, so it runs wherever the policy does.
    """

    kind = "success"
    scope = "step"
    causal = True
    value_range = (0.0, 1.0)
    needs = Needs()

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        path: str | None = None,
        hidden: tuple[int, ...] = (64, 64),
        seed: int = 0,
    ) -> None:
        self.keys = vector_keys(observation_space)
        size = vector_size(observation_space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(RunningNorm(size), mlp(size, hidden, 1, "relu"))
        self.seed, self.fitted = seed, False
        if path is not None:
            self.load_state_dict(load_checkpoint(Path(path)).state)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, self._probability(to_vector(moment.obs, self.keys))

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        rows = to_vector(traj.next_obs, self.keys, lead=2)
        # one call a step: a matrix product of another height may differ in its last bits
        value = np.stack([self._probability(row) for row in rows])
        return carry, Score(value, np.full(value.shape, SCORED, np.int8))

    @torch.inference_mode()
    def _probability(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities `(N,)` of observation rows `(N, D)`."""
        if not self.fitted:
            raise UserError(
                "reward_model.success is untrained: `embodied fit reward_model=success env=...`, "
                "then give reward_model.success.path"
            )
        return torch.sigmoid(self.net(torch.from_numpy(rows)).squeeze(-1)).numpy()

    def fit(self, traj: Trajectory, epochs: int = 20, batch: int = 1024) -> dict[str, float]:
        """Learn from the successors of `traj` (T, N), labelled by `traj.readouts["success"]`.

        Returns the balanced loss before and after, and the accuracy of either class on a held-out
        tenth of the worlds, drawn at random. Raises `UserError` when one of the classes is missing.
        """
        shuffle = torch.Generator().manual_seed(self.seed)
        x = torch.from_numpy(to_vector(traj.next_obs, self.keys, lead=2))
        y = torch.from_numpy(np.asarray(traj.readouts["success"], np.float32))
        held_out = torch.randperm(x.shape[1], generator=shuffle) % 10 == 9
        valid = torch.from_numpy(traj.valid)
        train, test = valid & ~held_out, valid & held_out
        positives = float(y[train].mean()) if train.any() else 0.0
        if not 0.0 < positives < 1.0:
            raise UserError(
                f"success labels are all {positives:.0f}: collect both successes and failures"
            )
        weight = torch.where(y > 0.5, 0.5 / positives, 0.5 / (1.0 - positives))
        norm = self.net[0]
        assert isinstance(norm, RunningNorm)
        norm.update(x[train])
        first = last = self._epoch(None, x[train], y[train], weight[train], batch, None)
        optimiser = torch.optim.Adam(self.net.parameters(), lr=1e-3, weight_decay=1e-5)
        for _ in range(epochs):
            last = self._epoch(optimiser, x[train], y[train], weight[train], batch, shuffle)
        self.fitted = True
        figures = {"loss_before": first, "loss_after": last}
        with torch.no_grad():
            told = self.net(x[test]).squeeze(-1) > 0
        for name, label in (("accuracy_done", 1.0), ("accuracy_not_done", 0.0)):
            rows = y[test] == label
            if rows.any():
                figures[name] = float((told[rows] == bool(label)).float().mean())
        return figures

    def _epoch(
        self, optimiser: Any, x: Tensor, y: Tensor, weight: Tensor, batch: int, shuffle: Any
    ) -> float:
        total = 0.0
        order = torch.randperm(len(x), generator=shuffle) if shuffle else torch.arange(len(x))
        for rows in order.split(batch):
            with torch.set_grad_enabled(optimiser is not None):
                losses = nn.functional.binary_cross_entropy_with_logits(
                    self.net(x[rows]).squeeze(-1), y[rows], weight[rows], reduction="sum"
                )
            if optimiser is not None:
                optimiser.zero_grad()
                (losses / len(rows)).backward()
                optimiser.step()
            total += losses.item()
        return total / len(x)

    def save(self, path: Path | str) -> Path:
        """Write the model to a directory; `path` of the constructor reads it."""
        return save_checkpoint(Path(path), self.state_dict(), step=0)

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "net" not in state:
            raise UserError("this checkpoint is not a success classifier")
        load_weights(self.net, state["net"])
        self.fitted = bool(state["fitted"])
