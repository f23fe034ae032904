"""Four legs that turn on the spot."""

from __future__ import annotations

import numpy as np
from embodied.envs.tasks.spin import Spin

from tests.envs.tasks.behaviours import look


def test_what_counts_by_hand() -> None:
    look(Spin(), True, {"turn": 1.0, "stands": 1.0}, qvel={5: 1.6})
    look(Spin(), False, {"turn": -0.5}, qvel={5: -0.75})
    # With its own x axis up, what turns it about the vertical is its rate about x.
    half = np.sqrt(0.5)
    look(Spin(), True, {"turn": 1.0}, qvel={3: 1.6}, qpos={3: half, 5: -half})
