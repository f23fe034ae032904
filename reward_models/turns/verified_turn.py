"""What the world itself verified of a turn: the subgoals that it newly reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import check_range
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class VerifiedTurn:
    """The share of the task's subgoals that a turn newly reached, less what it costs.

        r_t = max_{s<=t} reached_s/subgoals_s - max_{s<t} reached_s/subgoals_s
              - invalid [not understood or not possible] - turn_cost

    No plan is looked at, so any way to the goal is paid alike, and nothing is paid twice: what is
    undone and done again counts once. `bound` keeps what an episode has been paid in all within
    +-bound at every turn, so that many small amounts cannot outweigh an outcome. It is the Clip of
    *reward at training time* applied to the sum, where that paper (known to us by its abstract)
    clips each step.

    What holds when an episode begins is not paid. Asked about every k-th turn alone, it pays what
    was reached since it was last asked.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True

    def __init__(
        self,
        invalid: float = 0.0,
        turn_cost: float = 0.0,
        bound: float | None = None,
    ) -> None:
        where = "reward_model.verified_turn"
        check_range(where, 0, invalid=invalid, turn_cost=turn_cost)
        if bound is not None:
            check_range(where, 1e-6, bound=bound)
        self.invalid, self.turn_cost, self.bound = invalid, turn_cost, bound
        told = {"world.reached", "world.subgoals", "world.begun"}
        self.needs = Needs(readouts=frozenset({*told, "world.valid"}), privileged=frozenset(told))
        lowest, highest = -(invalid + turn_cost), 1.0
        if bound is not None:  # an account at one end can go to the other
            lowest, highest = max(lowest, -2.0 * bound), min(highest, 2.0 * bound)
        self.value_range = (lowest, highest)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        kept = _kept(carry, len(mask))
        return (
            {name: np.where(mask, 0.0, value) for name, value in kept.items()},
            np.zeros(mask.shape, np.float32),
        )

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        kept = _kept(carry, traj.shape[1])
        share, paid = kept["share"], kept["paid"]
        now = _share(traj, "world.reached")
        begun = _share(traj, "world.begun")
        cost = self.turn_cost + self.invalid * ~np.asarray(traj.readouts["world.valid"], bool)
        asked = np.ones(traj.shape, bool) if traj.due is None else traj.due
        value = np.zeros(traj.shape)
        for t, first in enumerate(traj.is_first):
            share, paid = np.where(first, begun[t], share), np.where(first, 0.0, paid)
            best = np.where(asked[t], np.maximum(share, now[t]), share)
            amount = np.where(asked[t] & traj.valid[t], best - share - cost[t], 0.0)
            total = paid + amount
            if self.bound is not None:
                total = np.clip(total, -self.bound, self.bound)
                amount = total - paid
            share, paid, value[t] = best, total, amount
        status = np.full(traj.shape, SCORED, np.int8)
        return {"share": share, "paid": paid}, Score(value.astype(np.float32), status)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def _kept(carry: Carry, worlds: int) -> Carry:
    """The share of subgoals reached when it was last asked, and what the episode was paid."""
    return dict(carry) or {"share": np.zeros(worlds), "paid": np.zeros(worlds)}


def _share(traj: Trajectory, name: str) -> Array:
    subgoals = np.asarray(traj.readouts["world.subgoals"], np.float64)
    return np.asarray(traj.readouts[name], np.float64) / np.maximum(subgoals, 1.0)
