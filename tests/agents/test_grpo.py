"""GRPO's advantages of turns."""

from __future__ import annotations

import numpy as np
from embodied.agents.grpo import GRPO

from tests.talks import talk


def test_every_turn_of_an_episode_is_worth_its_episode() -> None:
    traj = talk([["say oak"], ["dance"], ["say fir"], [""]], group=4)
    reward = np.zeros(traj.shape)
    reward[-1] = [1.0, 0.0, 0.0, 1.0]
    got = GRPO().advantages(traj, reward)  # mean 1/2, deviation 1/2
    np.testing.assert_allclose(got, np.tile([1.0, -1.0, -1.0, 1.0], (len(got), 1)), atol=1e-4)
    plain = GRPO(scale=False).advantages(traj, reward)
    np.testing.assert_allclose(plain[0], [0.5, -0.5, -0.5, 0.5])


def test_a_turn_that_was_not_is_worth_nothing() -> None:
    traj = talk(group=2)
    got = GRPO().advantages(traj, np.where(traj.valid, [[1.0, 0.0, 0.0, 1.0]], 0.0))
    np.testing.assert_array_equal(got[~traj.valid], 0.0)
