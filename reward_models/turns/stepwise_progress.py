"""Stepwise progress: an episode's outcome, shared out over its turns by a model that learns to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied.causal_lm import CausalLM
from embodied.errors import check_range
from embodied.nets import torch_threads
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory

from .episodes import Marked, Memory, ended, marked, replies, succeeded
from .learner import Learner


class StepwiseProgress:
    """A turn is paid `alpha` * c + `beta` * [its action was valid] (SPA-RL, Wang et al. 2025, arXiv
    2505.20732).

    c is a linear head's value of the last token of the turn's reply, on a clone of the policy's
    model; it learns that the sum of an episode's c is its outcome, (sum_t c_t - success)^2. After
    each rollout it learns `updates` times from `batch` of the last `episodes` that ended. Without
    `train_body` the clone stays as it began and the head alone learns.

    The sum leaves open which turn is credited, and it is found to be the last, the one that
    succeeds. `hide_last` leaves the last turn out of the sum, so that those before it must tell the
    outcome; it is paid no c then, and episodes of one turn teach nothing. Every c is kept within
    +-`bound`.

    Figures: the loss; how far the sum was from the outcome in this rollout, before learning from
    it (`error`); and the mean c of successful last turns (`last`).

    Where we differ: the estimator learns beside the policy, not once before it. Until it has
    learned, c is 0.
    """

    kind = "reward"
    scope = "episode"
    causal = True
    needs = Needs(readouts=frozenset({"success", "world.valid"}), privileged=frozenset({"success"}))

    def __init__(
        self,
        language: Callable[[], CausalLM],
        alpha: float = 1.0,
        beta: float = 0.5,
        train_body: bool = True,
        hide_last: bool = False,
        bound: float | None = None,
        lr: float = 3e-4,
        head_lr: float = 1e-3,
        episodes: int = 256,
        updates: int = 10,
        batch: int = 16,
        seed: int = 0,
    ) -> None:
        where = "reward_model.stepwise_progress"
        check_range(where, alpha=alpha, beta=beta)
        check_range(where, 0, bound=bound or 0.0, lr=lr, head_lr=head_lr)
        check_range(where, 1, episodes=episodes, updates=updates, batch=batch)
        self.language, self.alpha, self.beta = language, alpha, beta
        self.train_body, self.hide_last, self.bound = train_body, hide_last, bound
        self.rates, self.updates, self.batch = (lr, head_lr), updates, batch
        most = float("inf") if bound is None else abs(alpha) * bound
        self.value_range = (min(0.0, beta) - most, max(0.0, beta) + most)
        self.memory = Memory(episodes, seed)
        self._learner: Learner | None = None

    @property
    def learner(self) -> Learner:
        """What learns; it is made the first time it is asked for, or a run is loaded."""
        if self._learner is None:
            self._learner = Learner(self.language(), *self.rates, self.train_body)
        return self._learner

    # --- judging

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        valid = traj.valid & np.asarray(traj.readouts["world.valid"], bool)
        credit = self.credit(traj)
        value = self.alpha * credit + self.beta * valid
        status = np.full(traj.shape, SCORED, np.int8)
        return carry, Score(value.astype(np.float32), status, {"credit": credit})

    def credit(self, traj: Trajectory) -> np.ndarray:
        """c of every turn, `(T, N)`."""
        out = np.zeros(traj.shape, np.float32)
        worlds = np.flatnonzero(traj.valid.any(0)).tolist()
        episodes = [marked(turns := replies(traj, n), np.zeros(len(turns))) for n in worlds]
        with torch_threads(1):
            for n, values in zip(worlds, self.learner.judge(episodes), strict=True):
                out[traj.valid[:, n], n] = values
        if self.hide_last:
            out[traj.terminated | traj.truncated] = 0.0
        return out if self.bound is None else np.clip(out, -self.bound, self.bound)

    # --- learning

    def learn(self, traj: Trajectory) -> dict[str, float]:
        """Learn from the episodes of a rollout, and from those before."""
        new = self._episodes(traj)
        self.memory.add(new)
        if not self.memory.kept:
            return {}
        figures = {}
        with torch_threads(1):
            if new:
                told = self.learner.judge(new)
                outcome = [float(part.targets.sum()) for part in new]
                errors = [abs(c.sum() - r) for c, r in zip(told, outcome, strict=True)]
                figures["error"] = float(np.mean(errors))
                if any(outcome) and not self.hide_last:
                    last = [c[-1] for c, r in zip(told, outcome, strict=True) if r]
                    figures["last"] = float(np.mean(last))
            losses = []
            for _ in range(self.updates):
                data = self.memory.draw(self.batch)
                losses.append(self.learner.step(sum_loss(self.learner.values(data), data)))
        return {"loss": float(np.mean(losses)), **figures}

    def _episodes(self, traj: Trajectory) -> list[Marked]:
        """The turns of every episode that ended, with its outcome at the last of them."""
        out, success = [], succeeded(traj)
        for n in np.flatnonzero(ended(traj)).tolist():
            turns = replies(traj, n)
            if self.hide_last:
                turns = turns[:-1]
            if turns:
                targets = np.zeros(len(turns))
                targets[-1] = success[n]
                out.append(marked(turns, targets))
        return out

    # --- files

    def state_dict(self) -> dict[str, Any]:
        made = self._learner is not None
        return {
            "learner": self.learner.state_dict() if made else None,
            "memory": self.memory.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"])
        if state["learner"] is not None:
            self.learner.load_state_dict(state["learner"])


def sum_loss(credit: Tensor, data: Marked) -> Tensor:
    """The mean over episodes of (sum of c - sum of targets)^2; `credit` is `(K,)`."""
    apart = credit - torch.as_tensor(data.targets, device=credit.device)
    owner = torch.as_tensor(data.owner, device=credit.device)
    count = int(data.episode[-1]) + 1
    return torch.zeros(count, device=credit.device).index_add(0, owner, apart).square().mean()
