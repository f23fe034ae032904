"""The outcome alone: what every reward of turns is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import check_range
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class Outcome:
    """1 for an episode's last turn if the task is done, `failure` if it is not; 0 elsewhere.

    An episode that a fault ends has no outcome.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True
    needs = Needs(readouts=frozenset({"success"}), privileged=frozenset({"success"}))

    def __init__(self, failure: float = 0.0) -> None:
        check_range("reward_model.outcome", -10, 1, failure=failure)
        self.failure = failure
        self.value_range = (min(0.0, failure), 1.0)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        success = np.asarray(traj.readouts["success"], bool)
        over = (traj.terminated | traj.truncated) & traj.valid
        value = np.where(over, np.where(success, 1.0, self.failure), 0.0).astype(np.float32)
        return carry, Score(value, np.full(value.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
