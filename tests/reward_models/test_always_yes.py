"""The model that says yes to everything."""

from __future__ import annotations

import numpy as np
from embodied.reward_models.always_yes import AlwaysYes

from embodied.judgement import judge
from tests.reward_models.episodes import demonstrations, flawed


def test_it_says_yes_to_success_and_to_failure() -> None:
    episodes = [*demonstrations(2).episodes, *flawed("stops_short", 2).episodes]
    for told in judge(AlwaysYes(), episodes):
        assert (told.value == 1).all() and (told.status == 0).all()
        assert told.value.dtype == np.float32
