"""From a configuration to objects: what is made, and one line where it cannot be."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from embodied.build import make, make_agent, make_env, make_reward_model, make_rewards
from embodied.config import compose_config, resolved
from embodied.errors import UserError
from tests.toys import Nearness, PointSim, Reach, conf_of_toys


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> dict[str, DictConfig]:
    """The toys' configuration with one reward model or another."""
    folder = conf_of_toys(tmp_path_factory.mktemp("conf"))
    chosen = ["env=point", "sim=points", "num_envs=3", "agent.compile=false"]
    return {
        models: OmegaConf.create(
            resolved(compose_config([*chosen, f"reward_model={models}"], config_dir=folder))
        )
        for models in ("[]", "env", "near", "success", "[env,near]")
    }


@pytest.fixture
def toy(composed):
    """A copy of it with some keys changed."""

    def change(models: str = "env", **keys: Any) -> DictConfig:
        cfg = copy.deepcopy(composed[models])
        for key, value in keys.items():
            OmegaConf.update(cfg, key, value, force_add=True)
        return cfg

    return change


def test_a_task_of_ones_own_works_by_its_target_alone(toy) -> None:
    cfg = toy(**{"env.task.dims": 3, "env.max_steps": 9, "env.randomise.obs_noise": 0.1, "seed": 5})
    env = make_env(cfg)
    assert isinstance(env.task, Reach) and isinstance(env.sim, PointSim)
    assert (env.num_worlds, env.max_steps, env.task.dims) == (3, 9, 3)
    assert env.randomise.obs_noise == 0.1
    again = make_env(cfg, num_envs=1, seed=6)  # world 1 of seed 5
    assert (again.reset()["state"][0] == env.reset()["state"][1]).all()
    later = make_env(cfg, num_envs=1, first_world=2)
    assert (later.reset()["state"][0] == make_env(cfg).reset()["state"][2]).all()


def test_reward_models_get_their_channel(toy) -> None:
    cfg = toy("[env,near]", **{"reward_model.near.weight": 0.5, "reward_model.env.every": 2})
    env = make_env(cfg)
    rewards = make_rewards(cfg, env, gamma=0.75)
    assert rewards.gamma == 0.75
    near = rewards.channels["near"]
    assert isinstance(near.model, Nearness)
    assert (near.weight, near.shaping, near.threshold) == (0.5, "delta", None)
    assert rewards.channels["env"].every == 2


def test_a_reward_model_is_told_of_the_spaces_if_it_asks(toy) -> None:
    cfg = toy("success")
    model = make_reward_model(cfg, make_env(cfg), "success")
    assert model.net.encoder.norm.mean.shape == (4,)


def test_an_agent_is_made_for_its_worlds(toy) -> None:
    cfg = toy(**{"agent.hidden": [8]})
    env = make_env(cfg)
    agent = make_agent(cfg, env)
    action = agent.policy.act(agent.policy.carry(3), env.reset())[1]
    assert action.shape == (3, 2)
    assert make_agent(cfg, env, num_worlds=7).reward_scale.running.shape == (7,)


def test_the_seed_decides_an_agent(toy) -> None:
    cfg = toy(seed=4)
    env = make_env(cfg)
    obs = env.reset()
    first, second = (make_agent(cfg, env).policy.act({}, obs)[1] for _ in range(2))
    assert (first == second).all()
    other = make_agent(toy(seed=5), env).policy.act({}, obs)[1]
    assert not (first == other).all()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_envs", 0, "num_envs=0: give a whole number >= 1"),
        ("num_envs", -1, "num_envs=-1: give a whole number >= 1"),
        ("num_envs", 10**30, "num_envs=1000.*: give a whole number >= 1 and <= 1000000"),
        ("seed", -1, "seed=-1: give a whole number from 0 to 4294967295"),
        ("seed", 10**30, "seed=1000.*: give a whole number from 0 to"),
        ("env.max_steps", 0, "env.max_steps=0: give a whole number >= 1"),
        ("env.randomise.mass", [2, 1], r"randomise.mass=\[2, 1\]: give 0 < low <= high"),
        ("env.task.wings", 2, "tests.toys.Reach: got an unexpected keyword argument 'wings'"),
        ("env.task.dims", "two", "tests.toys.Reach: dims='two': give a whole number"),
        ("env.task.ends", 1, "tests.toys.Reach: ends=1: give true or false"),
        ("env.task._target_", "tests.toys.Reech", "cannot make tests.toys.Reech: .*Reech"),
        ("env.task._target_", "no.such.Task", "cannot make no.such.Task: .*'no'"),
        ("agent.wings", 2, "embodied.agents.ppo.PPO: got an unexpected .* 'wings'"),
        ("agent.lr", None, "embodied.agents.ppo.PPO: lr=None: give a number"),
        ("agent.target_kl", "high", "PPO: target_kl='high': give a number or null"),
        ("agent.device", 3, "PPO: device=3: give text"),
        ("agent.device", "toaster", "device=toaster: .*device=cpu works everywhere"),
        ("agent.gamma", 2, "agent.gamma=2: give a number from 0 to 1"),
        ("agent._target_", "embodied.agents.ppo.POP", "cannot make embodied.agents.ppo.POP"),
        ("reward_model.env.weight", None, "reward_model.env: weight=None: give a number"),
        ("reward_model.env.weight", math.inf, "env.weight=inf: give a number that is finite"),
        ("reward_model.env.shaping", "held", "a model of kind 'reward' gives no potential"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(toy, key: str, value, message: str) -> None:
    cfg = toy(**{key: value})
    with pytest.raises(UserError, match=message) as caught:
        env = make_env(cfg)
        make_agent(cfg, env)
        make_rewards(cfg, env, 0.9)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "keys", "message"),
    [
        ("[]", {}, "no reward model: give at least one"),
        ("near", {"reward_model.near.shaping": "potential"}, "potential shaping alone teaches"),
        ("success", {"reward_model.success.path": "nowhere"}, "nowhere: No such file"),
    ],
)
def test_rewards_that_cannot_be_made(toy, models: str, keys: dict, message: str) -> None:
    cfg = toy(models, **keys)
    with pytest.raises(UserError, match=message):
        make_rewards(cfg, make_env(cfg), 0.9)


class Wants:
    """Takes what it is offered, if it has a parameter of that name."""

    def __init__(self, size: int, depth: float | None = None, name="any", **rest) -> None:
        if size > 9:
            raise UserError("size=10: give at most 9")
        self.given = {"size": size, "depth": depth, "name": name, **rest}


def wants(**settings):
    return {"_target_": "tests.test_build.Wants", **settings}


def test_what_is_offered_is_taken_by_name_and_what_is_given_must_fit() -> None:
    node = OmegaConf.create(wants(size=3))
    assert make(node, {"depth": 2.5, "colour": "red"}).given == {
        "size": 3, "depth": 2.5, "name": "any",
    }  # fmt: skip
    assert make(node, {"size": 8}).given["size"] == 3  # the configuration wins
    assert make(node, depth=1).given["depth"] == 1
    assert make(OmegaConf.create(wants(size=3, depth=None, name=4))).given["name"] == 4
    with pytest.raises(UserError, match="Wants: missing a required argument: 'size'"):
        make(OmegaConf.create(wants()))
    with pytest.raises(UserError, match="Wants: depth='deep': give a number or null"):
        make(OmegaConf.create(wants(size=3, depth="deep")))
    with pytest.raises(UserError, match="Wants: size=True: give a whole number"):
        make(OmegaConf.create(wants(size=True)))


def test_what_the_thing_itself_says_comes_through() -> None:
    with pytest.raises(UserError, match="^size=10: give at most 9$"):
        make(OmegaConf.create(wants(size=10)))
    nested = {"_target_": "tests.toys.Reach", "dims": wants(size=10)}
    with pytest.raises(UserError, match="^size=10: give at most 9$"):
        make(OmegaConf.create(nested))


def test_a_function_is_a_target_too() -> None:
    node = OmegaConf.create({"_target_": "numpy.full", "fill_value": 3})
    assert (make(node, shape=(2,)) == np.full(2, 3)).all()
