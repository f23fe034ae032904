"""RLOO's advantages of turns."""

from __future__ import annotations

import numpy as np
from embodied.agents.rloo import RLOO

from tests.talks import talk


def test_every_turn_is_worth_its_return_less_that_of_the_others() -> None:
    traj = talk([["say oak"], ["dance"], ["say fir"]], group=3)
    reward = np.zeros(traj.shape)
    reward[0], reward[-1] = [0.5, 0.0, 0.0], [0.5, 0.0, 0.5]
    got = RLOO().advantages(traj, reward)  # returns 1, 0, 1/2 against 1/4, 3/4, 1/2
    np.testing.assert_allclose(got, np.tile([0.75, -0.75, 0.0], (len(got), 1)), atol=1e-6)
