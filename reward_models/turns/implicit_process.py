"""Implicit process rewards: what a model that learns from outcomes finds likelier than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embodied.causal_lm import CausalLM
from embodied.errors import UserError, check_range, unknown
from embodied.nets import torch_threads
from embodied.reward_model import Needs
from embodied.transcripts import Transcripts, transcripts
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory

from .episodes import ended, succeeded
from .learner import AT_ONCE, Learner

MODES = ("istar", "prime")


class ImplicitProcess:
    """A turn is paid `beta` * sum over its tokens of (log phi - log of what phi is held against).

    phi begins as a clone of the policy's model and learns from every rollout, after it was judged.

    - `mode` "istar" (OPRL, Liu et al. 2025, arXiv 2509.19199): held against the policy that said
      it, by the rollout's own log-probabilities. It learns which episodes of a task succeed, where
      some did and some did not: -log sigmoid(Q+ - Q-), averaged over the pairs of one that did and
      one that did not, then over tasks; Q is the mean reward of an episode's turns.
    - `mode` "prime" (Cui et al. 2025, arXiv 2502.01456): held against the model as it began. It
      learns the outcome of each episode, BCE(sigmoid(sum of its rewards), success), in tasks whose
      share of successes lies within `accuracy` (null: in all).

    Each rollout is learned from `epochs` times in `minibatches` parts, of whole tasks.
    `temperature` is the one that the agent speaks at. Figures: the loss; how often it was right, of
    pairs or of episodes, when it saw them first (`accuracy`); and from how many tasks it learned.

    Where we differ: PRIME's rewards of tokens are added up over a turn, and how rewards become
    advantages is the agent's business.
    """

    kind = "reward"
    scope = "episode"
    causal = True
    needs = Needs(readouts=frozenset({"success"}), privileged=frozenset({"success"}))
    value_range = (-float("inf"), float("inf"))

    def __init__(
        self,
        language: Callable[[], CausalLM],
        mode: str = "istar",
        beta: float = 0.05,
        lr: float = 3e-4,
        epochs: int = 2,
        minibatches: int = 4,
        accuracy: Sequence[float] | None = (0.2, 0.8),
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        where = "reward_model.implicit_process"
        if mode not in MODES:
            raise unknown(f"{where}.mode", mode, MODES)
        check_range(where, 0, beta=beta, lr=lr)
        check_range(where, 1, epochs=epochs, minibatches=minibatches)
        check_range(where, 1e-6, temperature=temperature)
        if accuracy is not None and not _is_band(accuracy):
            raise UserError(f"{where}.accuracy={accuracy}: give [LOW, HIGH] within 0 to 1, or null")
        self.language, self.mode, self.beta, self.lr = language, mode, beta, lr
        self.epochs, self.minibatches = epochs, minibatches
        self.accuracy, self.temperature = accuracy, temperature
        self.shuffle = torch.Generator().manual_seed(seed)
        self._learner: Learner | None = None
        self.reference: CausalLM | None = None
        """The model as it began, in mode "prime"."""

    @property
    def learner(self) -> Learner:
        """What learns; it is made the first time it is asked for, or a run is loaded."""
        if self._learner is None:
            policy = self.language()
            self._learner = Learner(policy, self.lr)
            self.reference = policy.clone() if self.mode == "prime" else None
        return self._learner

    # --- judging

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        lm, value = self.learner.lm, np.zeros(traj.shape, np.float32)
        if traj.valid.any():
            with torch_threads(1):
                data = self._told(traj)
                gain = self._likelihood(lm, data) - data.log_prob
                value = (self.beta * data.gathered(gain, traj.shape)).cpu().numpy()
        return carry, Score(value.astype(np.float32), np.full(traj.shape, SCORED, np.int8))

    def _told(self, traj: Trajectory) -> Transcripts:
        """What was said, with the log-probabilities that phi is held against."""
        lm = self.learner.lm
        data = transcripts(traj, lm.pad, lm.device)
        if self.reference is not None:
            data = replace(data, log_prob=self._likelihood(self.reference, data))
        return data

    def _likelihood(self, lm: CausalLM, data: Transcripts) -> Tensor:
        """Log-probabilities of what was said, `(B, L)`, to a model that does not learn now."""
        out = torch.zeros_like(data.log_prob)
        with torch.no_grad():
            for which in torch.arange(len(data), device=out.device).split(AT_ONCE):
                part = data.rows(which)
                each = lm.logprobs(part.ids, part.targets, self.temperature)[0]
                out[which, : each.shape[1]] = each
        return out

    # --- learning

    def learn(self, traj: Trajectory) -> dict[str, float]:
        """Learn from a rollout of whole episodes."""
        tasks = self._tasks(traj)
        if not tasks:
            return {"tasks": 0.0}
        losses, right = [], []
        with torch_threads(1):
            data = self._told(traj)
            for epoch in range(self.epochs):
                order = torch.randperm(len(tasks), generator=self.shuffle)
                for chosen in order.chunk(self.minibatches):
                    loss, share = self._loss(traj, data, [tasks[int(k)] for k in chosen])
                    losses.append(self.learner.step(loss))
                    if epoch == 0:
                        right.append((share, len(chosen)))
        accuracy = sum(share * count for share, count in right) / len(tasks)
        return {"loss": float(np.mean(losses)), "accuracy": accuracy, "tasks": float(len(tasks))}

    def _tasks(self, traj: Trajectory) -> list[np.ndarray]:
        """The worlds of every task that is to be learned from."""
        low, high = (0.0, 1.0) if self.accuracy is None else self.accuracy
        compares = self.mode == "istar" or self.accuracy is not None
        group = np.arange(traj.shape[1]) if traj.group is None else np.asarray(traj.group)
        if compares and len(np.unique(group)) == len(group):
            raise UserError(
                f"reward_model.implicit_process.mode={self.mode} compares episodes of one task: "
                "give env.group=8 (a divisor of num_envs), or mode=prime and accuracy=null"
            )
        over, success = ended(traj), succeeded(traj)
        tasks = [np.flatnonzero((group == one) & over) for one in np.unique(group)]
        shares = [success[worlds].mean() if len(worlds) else np.nan for worlds in tasks]
        if self.mode == "istar":
            return [t for t, share in zip(tasks, shares, strict=True) if 0.0 < share < 1.0]
        return [t for t, share in zip(tasks, shares, strict=True) if low <= share <= high]

    def _loss(
        self, traj: Trajectory, data: Transcripts, tasks: Sequence[np.ndarray]
    ) -> tuple[Tensor, float]:
        """The loss of some tasks, and how often the model was right about them."""
        worlds = torch.as_tensor(np.concatenate(tasks), device=data.world.device)
        part = data.rows(torch.isin(data.world, worlds))
        now = self.learner.lm.logprobs(part.ids, part.targets, self.temperature)[0]
        total = self.beta * part.gathered(now - part.log_prob, traj.shape).sum(0)
        success = torch.as_tensor(succeeded(traj), device=total.device)
        if self.mode == "prime":
            return outcome_loss(total[worlds], success[worlds])
        mean = total / torch.as_tensor(traj.valid.sum(0), device=total.device).clamp(min=1)
        pairs = [pair_loss(mean[w], success[w]) for w in map(torch.as_tensor, tasks)]
        losses, right = zip(*pairs, strict=True)
        return torch.stack(losses).mean(), float(np.mean(right))

    # --- files

    def state_dict(self) -> dict[str, Any]:
        made = self._learner is not None
        return {
            "learner": self.learner.state_dict() if made else None,
            "reference": None if self.reference is None else self.reference.state_dict(),
            "shuffle": self.shuffle.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.shuffle.set_state(torch.as_tensor(state["shuffle"]))
        if state["learner"] is not None:
            self.learner.load_state_dict(state["learner"])
            if self.reference is not None:
                self.reference.load_state_dict(state["reference"])


def pair_loss(quality: Tensor, success: Tensor) -> tuple[Tensor, float]:
    """-log sigmoid(Q+ - Q-) over the pairs of a task's episodes, and the share in which Q+ > Q-.

    `quality` and `success` (bool) are `(n,)`, with both kinds among them.
    """
    apart = quality[success][:, None] - quality[~success][None]
    return -functional.logsigmoid(apart).mean(), float((apart > 0).float().mean())


def outcome_loss(total: Tensor, success: Tensor) -> tuple[Tensor, float]:
    """BCE of sigmoid(total) and the outcomes, `(n,)` each, and the share that is told right."""
    loss = functional.binary_cross_entropy_with_logits(total, success.float())
    return loss, float(((total > 0) == success).float().mean())


def _is_band(accuracy: Sequence[float]) -> bool:
    return len(accuracy) == 2 and 0.0 <= accuracy[0] <= accuracy[1] <= 1.0
