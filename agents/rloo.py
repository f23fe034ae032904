"""REINFORCE, leaving one out as the baseline (Ahmadian et al. 2024, arXiv 2402.14740)."""

from __future__ import annotations

from embodied.group_advantages import rloo
from embodied.types import Array, Trajectory

from .language import LanguageAgent, of_group, per_turn


class RLOO(LanguageAgent):
    """Every turn of an episode is worth its return less the mean return of its group's others.

    Where we differ from the paper: PPO's clipped ratio takes the place of one plain gradient step,
    so that a rollout can be learned from more than once.
    """

    def advantages(self, traj: Trajectory, reward: Array) -> Array:
        return per_turn(rloo(reward.sum(0), of_group(traj)), traj)
