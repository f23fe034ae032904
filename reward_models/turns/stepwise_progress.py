"""Stepwise progress: an episode's outcome, shared out over its turns by a model that learns to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied.causal_lm import CausalLM
from embodied.errors import check_range
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory

from .episodes import Marked, ended, marked, replies, succeeded
from .estimator import Estimator


class StepwiseProgress(Estimator):
    """A turn is paid `alpha` * c + `beta` * [its action was valid] (SPA-RL, Wang et al. 2025, arXiv
    2505.20732).

    c is a linear head's value of the last token of the turn's reply, on a clone of the policy's
    model; it learns that the sum of an episode's c is its outcome, (sum_t c_t - success)^2. After
    each rollout it learns `updates` times from `batch` of the last `episodes` that ended. Without
    `train_body` the clone stays as it began and the head alone learns.

    The sum leaves open which turn is credited. It is found to be the last, the one that succeeds;
    or, where failed episodes are longer, credit that falls with time alone sums up to the outcome,
    whatever was said. `hide_last` leaves the last turn out of the sum, so that those before it must
    tell the outcome; it is paid no c then, and episodes of one turn teach nothing. Every c is kept
    within +-`bound`.

    Figures: the loss; how far the sum was from the outcome in this rollout, before learning from
    it (`error`); and the mean c of successful last turns (`last`).

    Where we differ: the estimator learns beside the policy, not once before it. Until it has
    learned, from `explore` episodes at least (the paper's exploration), c is 0. With `alpha` 0 it
    isn't learned.
    """

    where = "reward_model.stepwise_progress"
    kind = "reward"
    scope = "episode"
    causal = True
    needs = Needs(readouts=frozenset({"success", "world.valid"}), privileged=frozenset({"success"}))

    def __init__(
        self,
        language: Callable[[], CausalLM],
        alpha: float = 1.0,
        beta: float = 0.5,
        hide_last: bool = False,
        bound: float | None = None,
        **learning: Any,
    ) -> None:
        super().__init__(language, **learning)
        check_range(self.where, alpha=alpha, beta=beta)
        check_range(self.where, 0, bound=bound or 0.0)
        self.alpha, self.beta, self.hide_last, self.bound = alpha, beta, hide_last, bound
        most = float("inf") if bound is None else abs(alpha) * bound
        self.value_range = (min(0.0, beta) - most, max(0.0, beta) + most)

    # --- judging

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        valid = traj.valid & np.asarray(traj.readouts["world.valid"], bool)
        credit = self.credit(traj) if self.alpha else np.zeros(traj.shape, np.float32)
        value = self.alpha * credit + self.beta * valid
        status = np.full(traj.shape, SCORED, np.int8)
        return carry, Score(value.astype(np.float32), status, {"credit": credit})

    def credit(self, traj: Trajectory) -> np.ndarray:
        """c of every turn, `(T, N)`."""
        out = np.zeros(traj.shape, np.float32)
        worlds = np.flatnonzero(traj.valid.any(0)).tolist()
        episodes = [marked(turns := replies(traj, n), np.zeros(len(turns))) for n in worlds]
        for n, values in zip(worlds, self.known(episodes), strict=True):
            out[traj.valid[:, n], n] = values
        if self.hide_last:
            out[traj.terminated | traj.truncated] = 0.0
        return out if self.bound is None else np.clip(out, -self.bound, self.bound)

    # --- learning

    def learn(self, traj: Trajectory) -> dict[str, float]:
        """Learn from the episodes of a rollout, and from those before; nothing with `alpha` 0."""
        if not self.alpha:
            return {}
        new, figures = self._episodes(traj), {}
        if new:
            told = self.judge(new)
            outcome = [float(part.targets.sum()) for part in new]
            errors = [abs(c.sum() - r) for c, r in zip(told, outcome, strict=True)]
            figures["error"] = float(np.mean(errors))
            if any(outcome) and not self.hide_last:
                last = [c[-1] for c, r in zip(told, outcome, strict=True) if r]
                figures["last"] = float(np.mean(last))
        loss = self.fit(new, sum_loss)
        return figures if loss is None else {"loss": loss, **figures}

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


def sum_loss(credit: Tensor, data: Marked) -> Tensor:
    """The mean over episodes of (sum of c - sum of targets)^2; `credit` is `(K,)`."""
    apart = credit - torch.as_tensor(data.targets, device=credit.device)
    owner = torch.as_tensor(data.owner, device=credit.device)
    count = int(data.episode[-1]) + 1
    return torch.zeros(count, device=credit.device).index_add(0, owner, apart).square().mean()
