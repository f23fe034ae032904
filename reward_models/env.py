"""The env's own reward, as a reward model: the baseline that every learned one is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class EnvReward:
    """What the env itself pays, step by step.

    `readout="reward"` is the weighted sum of its named terms; "success" pays 1 wherever it has
    succeeded, and nothing else; "term/NAME" one of the terms.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True
    value_range = (-float("inf"), float("inf"))

    def __init__(self, readout: str = "reward") -> None:
        self.readout = readout
        self.needs = Needs(readouts=frozenset({readout}), privileged=frozenset({readout}))

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        value = np.asarray(traj.readouts[self.readout], np.float32)
        return carry, Score(value, np.full(value.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
