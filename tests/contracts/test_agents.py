"""What every agent in conf/ promises, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make_agent, make_env
from embodied.config import CONF, compose_config, options
from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.imitate import imitate
from embodied.run import load_policy, open_run
from embodied.train import train

AGENTS = [
    name
    for name in options("agent")
    if "max_tokens" not in OmegaConf.load(CONF / "agent" / f"{name}.yaml")
]
"""Those of numbers: `test_language_agents` has those that speak."""
IMITATORS = ("bc",)  # which learn from demonstrations, by `embodied imitate`
WORLDS = 4


def settings(name: str) -> list[str]:
    """The agent as it is, but not compiled, which takes long."""
    given = [f"agent={name}", "env=hopper", f"num_envs={WORLDS}", "~tuned"]
    return [*given, *(["agent.compile=false"] if "compile" in compose_config(given).agent else [])]


def worlds(name: str, num_envs: int = WORLDS, env: str = "hopper") -> Stepper:
    return make_env(compose_config([*settings(name), f"env={env}"]), num_envs=num_envs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run of every agent."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        given = [*settings(name), "tensorboard=false", "video=false", f"run_dir={folder}/{name}"]
        if name in IMITATORS:
            given = [*given, "dataset=none", "agent.steps=20"]
            return imitate(given, dataset=played())[0]
        return train([*given, "total_steps=256"])

    return {name: run(name) for name in AGENTS}


def played() -> Dataset:
    """Two episodes of the env, played at random."""
    env = worlds("ppo", 2)
    size, actions = env.observation_space["state"].shape[0], env.action_spec.size  # type: ignore[index]
    rng = np.random.default_rng(0)
    info = DatasetInfo("hopper", 50.0, env.action_spec, size, (), ())
    length = 20

    def episode(seed: int) -> Episode:
        return Episode(
            instruction="",
            source="random",
            seed=seed,
            state=rng.normal(size=(length, size)).astype(np.float32),
            action=rng.uniform(-1, 1, (length, actions)).astype(np.float32),
            reward=np.zeros(length, np.float32),
            success=np.zeros(length, bool),
            stage=np.full(length, -1),
            progress=np.full(length, np.nan, np.float32),
        )

    return Dataset(info, [episode(0), episode(1)])


@pytest.mark.parametrize("name", AGENTS)
def test_an_action_is_a_row_a_world_and_depends_on_it_alone(
    name: str, runs: dict[str, Path]
) -> None:
    env = worlds(name, 5)
    policy = load_policy(open_run(runs[name]), env)
    obs = {key: np.array(value) for key, value in env.reset().items()}
    before = {key: value.copy() for key, value in obs.items()}
    _, action = policy.act(policy.carry(5), obs, greedy=True)
    assert (action.shape, action.dtype) == ((5, env.action_spec.size), np.float32)  # type: ignore[union-attr]
    assert np.isfinite(action).all()
    for key, value in before.items():
        np.testing.assert_array_equal(obs[key], value)  # it leaves what it is shown alone
    last = {key: value[4:] for key, value in obs.items()}
    _, alone = policy.act(policy.carry(1), last, greedy=True)
    np.testing.assert_allclose(alone[0], action[4], atol=1e-5)
    _, explored = policy.act(policy.carry(5), obs)
    assert (explored != action).any()


@pytest.mark.parametrize("name", AGENTS)
def test_saved_and_loaded_it_acts_the_same(name: str, runs: dict[str, Path]) -> None:
    run = open_run(runs[name])
    env = worlds(name)
    agent = make_agent(compose_config([*settings(name), "seed=7"]), env)
    rng = np.random.default_rng(0)
    shapes = {key: np.shape(value) for key, value in env.reset().items()}
    obs = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    loaded = load_policy(run, env)
    fresh = agent.policy.act(agent.policy.carry(WORLDS), obs, greedy=True)[1]
    expected = loaded.act(loaded.carry(WORLDS), obs, greedy=True)[1]
    assert (fresh != expected).any()
    agent.load_state_dict(run.checkpoint.state["agent"])
    got = agent.policy.act(agent.policy.carry(WORLDS), obs, greedy=True)[1]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", AGENTS)
def test_a_policy_refuses_other_observations(name: str, runs: dict[str, Path]) -> None:
    with pytest.raises(UserError):
        load_policy(open_run(runs[name]), worlds(name, env="half_cheetah"))


@pytest.mark.parametrize("name", AGENTS)
def test_a_policy_carries_what_a_robot_needs(name: str, runs: dict[str, Path]) -> None:
    env = worlds(name)
    policy = load_policy(open_run(runs[name]), env)
    assert env.action_spec is not None
    assert policy.action_spec.to_dict() == env.action_spec.to_dict()
