"""Always yes: everything is a success. A baseline that no audit may let through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class AlwaysYes:
    """Scores every step with 1."""

    kind = "success"
    scope = "step"
    causal = True
    learned = True
    needs = Needs()
    value_range = (0.0, 1.0)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.ones(len(mask), np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        return carry, Score(np.ones(traj.shape, np.float32), np.full(traj.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
