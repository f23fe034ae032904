"""The env's own reward is handed on as it is."""

import numpy as np
from embodied.reward_models.env import EnvReward

from embodied.collect import Collector
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.types import SCORED
from tests.toys import Wander, reach


def test_it_pays_what_the_env_pays() -> None:
    env, twin = reach(3), reach(3)
    collect = Collector(env, Rewards({"env": Channel("env", EnvReward())}, 3, 0.9))
    traj = collect.collect(Wander(env), 10)
    twin.reset()
    for t in range(10):
        assert (traj.reward[t] == twin.step(traj.action[t]).reward.astype(np.float32)).all()
    assert traj.reward.dtype == np.float32


def test_it_judges_every_step_and_says_what_it_reads() -> None:
    model, env = EnvReward(), reach(3)
    collect = Collector(env, Rewards({"env": Channel("env", model)}, 3, 0.9))
    _, score = model.score({}, collect.collect(Wander(env), 4))
    assert (score.status == SCORED).all()
    assert model.needs.privileged == model.needs.readouts == {"reward"}
    assert model.state_dict() == {}


def test_it_pays_another_readout_if_asked() -> None:
    env = reach(3)
    collect = Collector(env, Rewards({"env": Channel("env", EnvReward("success"))}, 3, 0.9))
    traj = collect.collect(Wander(env), 30)
    assert set(np.unique(traj.reward)) <= {0.0, 1.0}
    assert EnvReward("success").needs.privileged == {"success"}
