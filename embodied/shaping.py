"""How a model's values become rewards: in the core alone, so that every model is shaped alike.

With phi the value of a state, before and after a step:

    none       the value itself (a reward, a signed delta, a probability) where the model judged;
               nothing beside the bonus for a potential or success model with a threshold
    potential  gamma * phi' - phi, with phi' = 0 at a true termination; it changes no optimal
               policy (Ng, Harada & Russell 1999) and therefore needs a base reward beside it
    delta      phi' - phi, clipped to +-clip
    held       phi', paid every step: it pays for stalling, and is here to be shown, not used
    override   the bonus where phi' reaches the threshold, and phi' where it does not: the sparse
               reward overrides the dense one (KAGI, Lee et al. 2024); it pays for stalling too
               where the bonus is not worth more than all that could be held instead

A truncated episode is not over, so its potential is kept (and bootstrapped by the learner).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from embodied.types import ABSTAINED, SCORED, Array

SHAPINGS = ("none", "potential", "delta", "held", "override")


class _Channel(Protocol):
    model: Any
    shaping: str
    threshold: float | None
    bonus: float
    clip: float


def shape(
    channel: _Channel, before: Array, after: Array, status: Array, terminated: Array, gamma: float
) -> Array:
    """Rewards `(T, N)` of one channel from its values before and after each step, `(T, N)`.

    `status` says where the model judged; elsewhere `after` holds the last value.
    """
    told = (status == SCORED) | (status == ABSTAINED)
    if channel.shaping == "potential":
        reward = np.float32(gamma) * np.where(terminated, np.float32(0.0), after) - before
    elif channel.shaping == "delta":
        reward = np.clip(after - before, -channel.clip, channel.clip)
    elif channel.shaping == "held":
        reward = after.copy()
    elif channel.shaping == "override":
        assert channel.threshold is not None
        reward = np.where(after >= channel.threshold, np.float32(0.0), after)
    elif channel.threshold is not None and channel.model.kind in ("potential", "success"):
        reward = np.zeros_like(after)
    else:
        reward = np.where(told, after, np.float32(0.0))
    if channel.threshold is not None:
        reward = reward + np.float32(channel.bonus) * (after >= channel.threshold)
    return reward.astype(np.float32)
