"""Behaviour cloning, plain or with the weights of reward-aligned BC (SARM, arXiv 2509.25358).

A policy is fitted to the actions of demonstrations by least squares. Given a reward model's
progress phi of every frame, a frame counts by what the next `chunk` actions led to,
r_t = phi(o_{t+chunk}) - phi(o_t): those that gained more than `kappa` in full, those that gained
less by how r compares with the others, those that lost nothing. Where we differ from the paper:
the statistics of r are those of the whole dataset rather than running ones, a frame nearer to its
episode's end than `chunk` is compared with the last one, and the policy gives one action at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from embodied.dataset import Dataset
from embodied.errors import UserError, check_range
from embodied.spaces import vector_size
from embodied.supervised import train_steps
from embodied.types import ActionSpec

from .policy_state import load_policy_state, policy_state
from .ppo import GaussianPolicy

EPS = 1e-6
ROWS = 50  # of figures, over a fit


class BC:
    """The agent. Its policy is PPO's, so that `agent.start` of PPO can begin with it.

    It learns for `steps` batches of `batch` frames, and from demonstrations alone: `fit`.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        action_spec: ActionSpec | None,
        seed: int = 0,
        steps: int = 3000,
        batch: int = 256,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        hidden: Sequence[int] = (128, 128),
        activation: str = "tanh",
        chunk: int = 8,
        kappa: float = 0.01,
        threads: int = 1,
    ) -> None:
        if action_spec is None:
            raise UserError("BC needs continuous actions (a Box): take another env")
        check_range("agent", 1, steps=steps, batch=batch, chunk=chunk, threads=threads)
        check_range("agent", 0, lr=lr, weight_decay=weight_decay, kappa=kappa)
        self.steps, self.batch, self.chunk, self.kappa = steps, batch, chunk, kappa
        self.lr, self.weight_decay, self.seed, self.threads = lr, weight_decay, seed, threads
        self.size = vector_size(observation_space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = GaussianPolicy(observation_space, action_spec, hidden, activation, 1.0)
        self.policy.noise.manual_seed(seed)

    @property
    def gamma(self) -> float:
        """What `embodied train` asks first: it has nothing to learn from there."""
        raise UserError("agent=bc learns from demonstrations: embodied imitate dataset=DIR env=...")

    def fit(
        self,
        dataset: Dataset,
        progress: Sequence[np.ndarray] | None = None,
        report: Callable[[Mapping[str, float]], None] = lambda figures: None,
    ) -> dict[str, float]:
        """Clone the actions of `dataset`; with `progress`, (T,) an episode, reward-aligned.

        `report` is given figures now and then. Returns the loss before and after, and the mean
        weight before normalisation. Raises `UserError` for data of other observations or actions
        than the policy's, or that are not finite, and where no frame makes progress.
        """
        state, action = self._rows(dataset)
        weight = torch.ones(len(state))
        if progress is not None:
            weight = torch.from_numpy(self._weights(dataset, progress))
        self.policy.norm.update(state)
        x = self.policy.norm(state)
        target = (action - self.policy.centre) / self.policy.scale
        every, losses = max(1, self.steps // ROWS), []

        def loss(noise: torch.Generator) -> Tensor:
            rows = torch.randint(len(x), (self.batch,), generator=noise)
            share = normalised(weight[rows])
            error = ((self.policy.mean(x[rows]) - target[rows]) ** 2).mean(-1)
            value = (share * error).sum() / self.batch
            losses.append(float(value.detach()))
            if len(losses) % every == 0:
                mean = math.fsum(losses[-every:]) / every
                report({"steps": float(len(losses)), "agent/loss": mean})
            return value

        figures = train_steps(
            self.policy.mean.parameters(), loss, self.steps, self.lr, self.weight_decay,
            self.seed, self.threads, "imitate",
        )  # fmt: skip
        self._set_std(x, target, weight)
        return figures | {"mean_weight": float(weight.mean()), "frames": float(len(x))}

    def _rows(self, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """States `(K, D)` and actions within their limits `(K, A)` of all frames but the last of
        every episode, whose action led nowhere."""
        ours, theirs = self.policy.action_spec, dataset.info.action_spec
        for what, there, here in (
            ("actions", theirs.names, ours.names),
            ("a kind of action", theirs.kind, ours.kind),
        ):
            if there != here:
                raise UserError(f"the dataset has {what} {there}, the env {here}: give its own")
        if sum(len(episode) - 1 for episode in dataset.episodes) < 1:
            raise UserError("no actions to learn from: no episode has two frames")
        for number, episode in enumerate(dataset.episodes):
            if episode.state.shape[1] != self.size:
                raise UserError(
                    f"episode {number} has states of {episode.state.shape[1]} numbers, the env "
                    f"of {self.size}: it is of another env"
                )
            for name in ("state", "action"):
                if not np.isfinite(getattr(episode, name)).all():
                    raise UserError(f"episode {number}: its {name} is not finite, leave it out")
        state = np.concatenate([episode.state[:-1] for episode in dataset.episodes])
        action = np.concatenate([episode.action[:-1] for episode in dataset.episodes])
        action = np.clip(action, ours.low, ours.high)
        return torch.from_numpy(np.float32(state)), torch.from_numpy(np.float32(action))

    def _weights(self, dataset: Dataset, progress: Sequence[np.ndarray]) -> np.ndarray:
        """The weights of the frames of `_rows`, `(K,)`."""
        lengths = [len(episode) for episode in dataset.episodes]
        if [len(values) for values in progress] != lengths:
            raise UserError("the progress is not of this dataset: another number of frames")
        values = np.concatenate([gains(np.asarray(part), self.chunk)[:-1] for part in progress])
        if not np.isfinite(values).all():
            raise UserError("the progress has values that are not finite: score the dataset anew")
        weight = aligned_weights(values, self.kappa)
        if not weight.any():
            raise UserError("no frame makes progress: the reward model sees none in this dataset")
        return weight.astype(np.float32)

    @torch.no_grad()
    def _set_std(self, x: Tensor, target: Tensor, weight: Tensor) -> None:
        """The likeliest deviation: that of what the mean leaves over."""
        error = (self.policy.mean(x) - target) ** 2
        variance = (normalised(weight)[:, None] * error).mean(0)
        self.policy.log_std.copy_(0.5 * variance.clamp(min=1e-6).log())

    def state_dict(self) -> dict[str, Any]:
        return policy_state(self.policy)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_policy_state(self.policy, state)


def gains(progress: np.ndarray, chunk: int) -> np.ndarray:
    """What the next `chunk` frames gain over each frame of an episode, `(T,)`."""
    later = np.minimum(np.arange(len(progress)) + chunk, len(progress) - 1)
    return progress[later] - progress


def aligned_weights(gain: np.ndarray, kappa: float) -> np.ndarray:
    """Weights in [0, 1] of frames that gain `gain` (K,), by how they compare with one another."""
    mean, std = max(0.0, float(gain.mean())), float(gain.std())
    soft = np.clip((gain - (mean - 2 * std)) / (4 * std + EPS), 0.0, 1.0)
    return np.where(gain > kappa, 1.0, np.where(gain >= 0.0, soft, 0.0))


def normalised(weight: Tensor) -> Tensor:
    """Weights `(B,)` scaled to sum to B; all zero where they all are."""
    return weight * (len(weight) / weight.sum().clamp(min=EPS))
