"""SB3's rollout buffers without faulted steps: those are never learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from embodied.sb3_view import SB3View


class Faultless(RolloutBuffer):
    """Draws no step that faulted in `view`, the worlds that it is filled from.

    The reward of such a step is set to its own value, so that the advantages of the steps before
    it bootstrap there.
    """

    view: SB3View | None = None
    valid: np.ndarray  # (T, N) bool

    def reset(self) -> None:
        super().reset()
        self.valid = np.full((self.buffer_size, self.n_envs), True)

    def add(self, obs: Any, action: Any, reward: Any, *rest: Any) -> None:
        if self.view is not None and self.view.faults.any():
            self.valid[self.pos] = self.view.faults == 0
            value = rest[1].cpu().numpy().flatten()
            reward = np.where(self.valid[self.pos], reward, value)
        super().add(obs, action, reward, *rest)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        valid = self.valid.T.reshape(-1)  # SB3 flattens world by world
        if not valid.all():
            kept = batch_inds[valid[batch_inds]]
            batch_inds = kept if len(kept) else np.flatnonzero(valid)[: len(batch_inds)]
        return super()._get_samples(batch_inds, env)


class DictFaultless(Faultless, DictRolloutBuffer):
    """The same for dict observations."""
