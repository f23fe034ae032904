"""The clock: progress is the time that has passed. A baseline that no audit may let through.

On successes alone it ranks frames better than any model that looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.dataset import Dataset
from embodied.errors import UserError
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory


class Clock:
    """Scores step t of an episode with `(t + 1) / horizon`, at most 1.

    `horizon` is in steps; `fit` takes the mean length of the demonstrations instead.
    """

    kind = "potential"
    scope = "step"
    causal = True
    learned = True
    needs = Needs()
    value_range = (0.0, 1.0)

    def __init__(self, horizon: float = 100.0, path: str | None = None) -> None:
        if not horizon > 0:
            raise UserError(f"reward_model.clock.horizon={horizon}: give a number of steps > 0")
        self.horizon = float(horizon)
        self.path = path
        if path is not None:
            self.load_state_dict(load_checkpoint(Path(path)).state)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        passed = carry.get("passed", np.zeros(len(mask), np.int64))
        return {"passed": np.where(mask, 0, passed)}, np.zeros(len(mask), np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        steps = np.arange(1, traj.shape[0] + 1)[:, None]
        value = np.minimum((carry["passed"] + steps) / self.horizon, 1.0).astype(np.float32)
        carry = {"passed": carry["passed"] + traj.shape[0]}
        return carry, Score(value, np.full(traj.shape, SCORED, np.int8))

    def fit(self, dataset: Dataset, others: Sequence[Dataset] = ()) -> dict[str, float]:
        """Take the mean length of the episodes. Raises `UserError` for none that lasts a step."""
        steps = [len(episode) - 1 for episode in dataset.episodes]
        if not steps or max(steps) < 1:
            raise UserError("no episodes to learn from: the clock needs their length")
        self.horizon = float(np.mean(steps))
        return {"horizon": self.horizon}

    def save(self, path: Path | str) -> Path:
        """Write it to a directory; `path` of the constructor reads it."""
        return save_checkpoint(Path(path), self.state_dict(), step=0)

    def state_dict(self) -> dict[str, Any]:
        return {"horizon": self.horizon}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "horizon" not in state:
            raise UserError("this checkpoint is not a clock")
        self.horizon = float(state["horizon"])
