"""What the learned rewards of turns share: a head on a clone of the policy, and past episodes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from embodied.causal_lm import CausalLM
from embodied.errors import check_range
from embodied.nets import torch_threads
from embodied.signatures import inherited

from .episodes import Marked, Memory
from .learner import Learner


class Estimator:
    """A linear head's value of marked tokens, on a clone of the policy's model.

    After each rollout it learns `updates` times from `batch` of the last `episodes` that ended.
    Without `train_body` the clone stays as it began and the head alone learns. Until it has
    learned from `explore` episodes it pays as if it said 0 of everything.
    """

    where = "reward_model"
    __signature__: inspect.Signature

    def __init_subclass__(cls) -> None:
        """A reward's own settings come with those that all have."""
        cls.__signature__ = inherited(cls)

    def __init__(
        self,
        language: Callable[[], CausalLM],
        train_body: bool = True,
        lr: float = 3e-4,
        head_lr: float = 1e-3,
        episodes: int = 256,
        updates: int = 10,
        batch: int = 16,
        explore: int = 0,
        seed: int = 0,
    ) -> None:
        check_range(self.where, 0, lr=lr, head_lr=head_lr, explore=explore)
        check_range(self.where, 1, episodes=episodes, updates=updates, batch=batch)
        self.language, self.train_body, self.rates = language, train_body, (lr, head_lr)
        self.updates, self.batch = updates, batch
        self.explore, self.heard = explore, 0
        self.memory = Memory(episodes, seed)
        self._learner: Learner | None = None

    @property
    def learner(self) -> Learner:
        """What learns; it is made the first time it is asked for, or a run is loaded."""
        if self._learner is None:
            self._learner = Learner(self.language(), *self.rates, self.train_body)
        return self._learner

    def judge(self, parts: Sequence[Marked]) -> list[np.ndarray]:
        """The values of the places of every episode, `(K,)` each."""
        with torch_threads(1):
            return self.learner.judge(parts)

    def known(self, parts: Sequence[Marked]) -> list[np.ndarray]:
        """`judge`, as far as it has learned from enough episodes to be paid by."""
        if self.heard < self.explore:
            return [np.zeros(len(part.places), np.float32) for part in parts]
        return self.judge(parts)

    def fit(self, new: Sequence[Marked], loss: Callable[[Tensor, Marked], Tensor]) -> float | None:
        """Learn from `new` episodes and those before: the mean loss, None where there are none."""
        self.memory.add(new)
        self.heard += len(new)
        if not self.memory.kept:
            return None
        losses = []
        with torch_threads(1):
            for _ in range(self.updates):
                data = self.memory.draw(self.batch)
                losses.append(self.learner.step(loss(self.learner.values(data), data)))
        return float(np.mean(losses))

    def state_dict(self) -> dict[str, Any]:
        made = self._learner is not None
        return {
            "learner": self.learner.state_dict() if made else None,
            "memory": self.memory.state_dict(),
            "heard": self.heard,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"])
        self.heard = state.get("heard", 0)  # checkpoints of before it was counted have none
        if state["learner"] is not None:
            self.learner.load_state_dict(state["learner"])
