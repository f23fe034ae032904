"""Half a cheetah on its hind legs."""

from __future__ import annotations

import numpy as np
from embodied.envs.tasks.stand_up import StandUp

from tests.envs.tasks.behaviours import PITCH, Z, look


def test_what_counts_by_hand() -> None:
    nose_up, nose_down = -np.pi / 2, np.pi / 2
    look(StandUp(), True, {"up": 1.0}, qpos={PITCH: nose_up, Z: 0.1})
    look(StandUp(), False, {"up": 0.0}, qpos={PITCH: nose_down, Z: 0.1})
    look(StandUp(), False, {"up": 0.5}, qpos={PITCH: nose_up, Z: -0.4})  # 30 of 60 cm
