"""Groups of episodes, and within them of turns that saw the same (GiGPO, Feng et al. 2025).

arXiv 2505.10978. The step part also takes reward models' channels, turn by turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range, unknown
from embodied.group_advantages import grpo, in_group, rloo, same_state, same_turn, to_go
from embodied.types import Array, Trajectory

from .language import LanguageAgent, of_group, per_turn

EPISODE = {"grpo": grpo, "rloo": rloo}
BASELINES = ("state", "turn", "group")


class GiGPO(LanguageAgent):
    """A = A_episode + `weight` * A_step.

    A_episode is that of the episode's return (`episode`: "grpo" or "rloo"). A_step is of the
    rewards from the turn on, discounted by `step_gamma`, against (`baseline`) "state": the turns of
    the group that saw the identical text (the paper's), "turn": those of the group that were said
    as late, or "group": all turns of the group; the latter two standardised. With `process`, names
    of reward channels, the step part is of these alone and the episode part of all others: so a
    reward of turns (`verified_turn`, `implicit_process`, ...) tells which turn was good, and the
    outcome whether the episode was. With `scale` these are also divided by the deviation of those
    they are compared with, since reward models have scales of their own. Without, what a model that
    has learned nothing yet says of turns stays as small as it is, where a deviation makes it as
    large as what is known: for rewards that are learned.
    """

    def __init__(
        self,
        weight: float = 1.0,
        episode: str = "rloo",
        baseline: str = "state",
        step_gamma: float = 0.95,
        process: Sequence[str] = (),
        scale: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_range("agent", weight=weight)
        check_range("agent", 0, 1, step_gamma=step_gamma)
        if episode not in EPISODE:
            raise unknown("agent.episode", episode, EPISODE)
        if baseline not in BASELINES:
            raise unknown("agent.baseline", baseline, BASELINES)
        self.weight, self.episode, self.baseline = weight, episode, baseline
        self.step_gamma, self.process, self.scale = step_gamma, tuple(process), scale

    def advantages(self, traj: Trajectory, reward: Array) -> Array:
        group, step = of_group(traj), reward
        if self.process:
            step = self._channels(traj)
            reward = reward - step
        whole = EPISODE[self.episode](reward.sum(0), group)
        values = to_go(step, traj.valid, self.step_gamma)
        if self.baseline == "state":
            scale = bool(self.process) and self.scale
            part = same_state(values, traj.obs["text"], traj.valid, group, scale)
        else:
            against = same_turn if self.baseline == "turn" else in_group
            part = against(values, traj.valid, group, self.scale or not self.process)
        return per_turn(whole, traj) + np.float32(self.weight) * part

    def _channels(self, traj: Trajectory) -> Array:
        """What the channels `process` pay, `(T, N)`."""
        missing = set(self.process) - traj.reward_terms.keys()
        if missing:
            raise UserError(
                f"agent.process={sorted(missing)}: no such reward model; there are: "
                f"{', '.join(traj.reward_terms)}"
            )
        combined = [name for name in self.process if not traj.weights[name]]
        if combined:
            raise UserError(
                f"agent.process={combined}: it counts through a combiner: name that one"
            )
        terms = (traj.weights[name] * traj.reward_terms[name] for name in self.process)
        return np.where(traj.valid, sum(terms), 0.0).astype(np.float32)
