"""Gated reward accumulation: what matters less is paid only where what matters more was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class Gated:
    """Rewards by priority (G-RA, Sun et al. 2025, arXiv 2508.10548): a combiner.

    `over` names reward models of the run, the most important first, and `above` a threshold for
    each but the last. In an episode, model i is paid only if what every model before it paid in
    that episode, in all, is above its threshold:

        R = sum_i R_i  [for all j < i: sum_t R_j > above_j]

    Added up without the gates, a policy can gain by rewards of turns while its outcome falls. Where
    we differ: the paper gates an agent's long-term reward against immediate ones; here any number
    of models is chained, each with its own weight (`weights`, 1 by default).
    """

    kind = "reward"
    scope = "episode"
    causal = False
    blind = True
    needs = Needs()
    value_range = (-float("inf"), float("inf"))

    def __init__(
        self,
        over: Sequence[str] = ("outcome", "verified_turn"),
        above: Sequence[float] = (0.0,),
        weights: Sequence[float] | None = None,
    ) -> None:
        where = "reward_model.gated"
        if len(over) < 2 or len(set(over)) < len(over):
            raise UserError(f"{where}.over={list(over)}: name two or more models, each once")
        if len(above) != len(over) - 1:
            raise UserError(f"{where}.above={list(above)}: one for each of {list(over[:-1])}")
        if weights is not None and len(weights) != len(over):
            raise UserError(f"{where}.weights={list(weights)}: one for each of {list(over)}")
        for one in above:
            check_range(where, above=one)
        for one in weights or ():
            check_range(where, weights=one)
        self.over, self.above = tuple(over), tuple(float(one) for one in above)
        self.weights = tuple(weights or [1.0] * len(over))

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        episode = np.cumsum(traj.is_first, axis=0)
        value, open_ = np.zeros(traj.shape, np.float32), np.ones(traj.shape, bool)
        parts = {}
        for k, name in enumerate(self.over):
            paid = np.where(traj.valid, traj.reward_terms[name], 0.0)
            value += np.where(open_, self.weights[k] * paid, 0.0).astype(np.float32)
            parts[f"{name}_open"] = open_.astype(np.float32)
            if k < len(self.above):
                open_ = open_ & (_totals(paid, episode) > self.above[k])
        return carry, Score(value, np.full(value.shape, SCORED, np.int8), parts)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def _totals(paid: Array, episode: Array) -> Array:
    """What each step's episode paid in all, `(T, N)`."""
    out = np.zeros(paid.shape)
    for n in range(paid.shape[1]):
        out[:, n] = np.bincount(episode[:, n], paid[:, n])[episode[:, n]]
    return out
