"""Milestones: a potential that learns how far between its verified subgoals an episode is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory

from .episodes import Marked, ended, histories, marked
from .estimator import Estimator


class Milestones(Estimator):
    """The potential of a state is its progress (MiRA, 2026, arXiv 2603.19685), from 0 to 1.

    With K subgoals, of which the j-th was reached at t_j, a state at t between t_j and t_{j+1} has
    come as far as

        p* = (1 - a) j / K + a (j + 1) / K,    a = (t - t_j) / (t_{j+1} - t_j),

    with t_0 = 0. After the last that an episode reached, nobody knows how far the next was: p*
    stays at j / K. Of subgoals reached at once the first is headed for, and then all count.

    P is a linear head's value of the last token before a reply, on a clone of the policy's model,
    and learns p* by its squared error. After each rollout it learns `updates` times from `batch` of
    the last `episodes` that ended. Without `train_body` the clone stays as it began and the head
    alone learns. Until it has learned, from `explore` episodes at least, P is 0. Figures: the loss,
    and how far P was from p* in this rollout before learning from it (`error`).

    It is a potential, which the core makes rewards of: by `shaping: delta` the paper's r =
    alpha (P(s') - P(s)), with alpha its `weight`; by `shaping: potential` one that leaves the best
    policy as it is. The first text alone is enough to know P where an episode starts.

    Where we differ: the subgoals are the world's own, verified in it, where the paper has a teacher
    write and a rater mark them; its critic of values is the agent's business.
    """

    where = "reward_model.milestones"
    kind = "potential"
    scope = "episode"
    causal = True
    needs = Needs(
        readouts=frozenset({"world.reached", "world.subgoals"}),
        privileged=frozenset({"world.reached", "world.subgoals"}),
    )
    value_range = (0.0, 1.0)

    # --- judging

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        lm, worlds = self.learner.lm, np.flatnonzero(mask)
        texts = moment.obs["text"][worlds].tolist()
        first = [marked([lm.chat.first(text)[-lm.context :]], [0.0]) for text in texts]
        out = np.zeros(mask.shape, np.float32)
        out[worlds] = np.concatenate([out[:0], *self.known(first)])
        return carry, np.clip(out, *self.value_range)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        following, value = traj.next_obs["text"], np.zeros(traj.shape, np.float32)
        worlds = np.flatnonzero(traj.valid.any(0)).tolist()
        states = [self._states(traj, n, following) for n in worlds]
        for n, values in zip(worlds, self.known(states), strict=True):
            value[traj.valid[:, n], n] = values[1:]
        value = np.clip(value, *self.value_range)
        return carry, Score(value, np.full(traj.shape, SCORED, np.int8), {"progress": value})

    def _states(self, traj: Trajectory, n: int, following: Array) -> Marked:
        """The states of a world's episode, K turns and their K + 1 places, with p* as targets."""
        valid = traj.valid[:, n]
        seen = histories(traj, n, self.learner.lm, following[np.flatnonzero(valid)[-1], n])
        reached, subgoals = (traj.readouts[f"world.{k}"][valid, n] for k in ("reached", "subgoals"))
        return marked(seen, progress(reached, float(subgoals[-1])))

    # --- learning

    def learn(self, traj: Trajectory) -> dict[str, float]:
        """Learn from the episodes of a rollout, and from those before."""
        following = traj.next_obs["text"]
        new = [self._states(traj, n, following) for n in np.flatnonzero(ended(traj)).tolist()]
        figures = {}
        if new:
            told = np.clip(np.concatenate(self.judge(new)), *self.value_range)
            targets = np.concatenate([part.targets for part in new])
            figures["error"] = float(np.abs(told - targets).mean())
        loss = self.fit(new, squared_loss)
        return figures if loss is None else {"loss": loss, **figures}


def squared_loss(value: Tensor, data: Marked) -> Tensor:
    """The mean over places of (value - target)^2; `value` is `(K,)`."""
    return (value - torch.as_tensor(data.targets, device=value.device)).square().mean()


def progress(reached: Array, subgoals: float) -> np.ndarray:
    """p* of an episode's states, `(K + 1,)`: `reached` (K,) counts the subgoals after each turn."""
    count = np.maximum.accumulate(np.concatenate([[0.0], reached]))
    out = count.copy()
    for t, j in enumerate(count):
        later = np.flatnonzero(count > j)
        if len(later):
            since = int(np.flatnonzero(count == j)[0])
            out[t] = j + (t - since) / (later[0] - since)
    return (out / max(subgoals, 1.0)).astype(np.float32)
