"""The outcome, and beneath it tiers for how near a failure came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class Tiered:
    """Sweet-spot rewards (SSL, arXiv 2601.22491): R = C + alpha S, on an episode's last turn.

    C is 1 for success, else 0. S is in one of `tiers` steps from 0 to 1: of the share of subgoals
    reached,

        S = floor(K reached / subgoals) / K

    (with K = 4 the paper's quartiles of correct blocks), or, where `distance` names a readout, of
    how near that says the end is (its Gaussian tiers):

        S = floor(K exp(-d^2 / (2 sigma^2))) / K

    As alpha < 1, every success is paid more than every failure, whatever their tiers. We know the
    paper by notes of others; both ways to cut S are our reading of them. The lowest tier pays
    nothing, and so does a distance that is no number.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True

    def __init__(
        self,
        alpha: float = 0.5,
        tiers: int = 4,
        distance: str | None = None,
        sigma: float = 1.0,
    ) -> None:
        where = "reward_model.tiered"
        if not 0.0 <= alpha < 1.0 or np.float32(alpha) == 1.0:
            raise UserError(
                f"{where}.alpha={alpha}: give a number >= 0 and below 1, "
                "so that no failure is paid as much as a success"
            )
        check_range(where, 1, 1000, tiers=tiers)
        check_range(where, 1e-6, sigma=sigma)
        self.alpha, self.tiers, self.distance, self.sigma = alpha, tiers, distance, sigma
        near = {distance} if distance else {"world.reached", "world.subgoals"}
        told = frozenset({"success", *near})
        self.needs = Needs(readouts=told, privileged=told)
        self.value_range = (0.0, 1.0 + alpha)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        given = traj.readouts
        if self.distance:
            away = np.asarray(given[self.distance], np.float64) / self.sigma
            near = tier(np.exp(-0.5 * away**2), 1.0, self.tiers)
        else:
            near = tier(given["world.reached"], given["world.subgoals"], self.tiers)
        over = (traj.terminated | traj.truncated) & traj.valid
        reward = np.asarray(given["success"], bool) + self.alpha * near
        value = np.where(over, reward, 0.0).astype(np.float32)
        return carry, Score(value, np.full(value.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def tier(part: Array, whole: Array | float, tiers: int) -> Array:
    """The share that `part` is of `whole`, cut down to a multiple of 1/`tiers`, in [0, 1]."""
    whole = np.maximum(np.asarray(whole, np.float64), 1e-9)
    steps = np.floor(tiers * np.asarray(part, np.float64) / whole)
    return np.clip(np.nan_to_num(steps, nan=0.0), 0, tiers) / tiers
