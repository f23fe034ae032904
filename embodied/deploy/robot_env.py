"""A task on a robot: the step loop of simulation, begun from what is measured."""

from __future__ import annotations

import numpy as np

from embodied.env import TaskEnv
from embodied.types import Array, Obs


class RobotEnv(TaskEnv):
    """A `TaskEnv` of one world that is real.

    An episode starts where the robot and its objects are found to be, not where they were to be
    put: what a task remembers of them is sensed once more before the first observation.
    """

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        super().reset(mask, seed)
        task, sim = self.task, self.sim
        still = np.zeros((1, task.action_spec(sim).size), np.float32)
        _, self.memory = task.reward(sim, still, task.before(sim), self.memory)
        self._obs = self._observe()
        return self._obs
