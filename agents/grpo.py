"""Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300)."""

from __future__ import annotations

from typing import Any

from embodied.group_advantages import grpo
from embodied.types import Array, Trajectory

from .language import LanguageAgent, of_group, per_turn


class GRPO(LanguageAgent):
    """Every turn of an episode is worth what its return is worth among those of its group.

    A_i = (R_i - mean_G R) / (std_G R + 1e-6); without `scale` it is not divided. Where we differ
    from the paper: the loss is a mean over all tokens of a minibatch, not over those of a reply
    first, so that long replies count for no less.
    """

    def __init__(self, scale: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        self.scale = scale

    def advantages(self, traj: Trajectory, reward: Array) -> Array:
        return per_turn(grpo(reward.sum(0), of_group(traj), self.scale), traj)
