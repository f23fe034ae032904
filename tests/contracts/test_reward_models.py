"""Every reward model in `conf/reward_model` keeps the contract, on rollouts of a real env."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from embodied.build import make_env, make_reward_model, make_rewards
from embodied.collect import Collector
from embodied.config import compose_config, options
from embodied.reward_model import KINDS, Channel, Needs, RewardModel, Rewards, start
from embodied.shaping import SHAPINGS
from embodied.types import ABSTAINED, FAILED, SCORED, SILENT, Trajectory
from tests.toys import chunks, episode_step, through_disk

NAMES = options("reward_model")
TRUTHS = ("reward", "success", "term/")
"""Readouts that no robot has: they count as privileged."""


def config(*names: str) -> DictConfig:
    choice = f"reward_model=[{','.join(names)}]"
    return compose_config(
        ["env=half_cheetah", "env.max_steps=9", "num_envs=4", "sim.threads=1", choice]
    )


@cache
def rollout() -> tuple[Any, Trajectory]:
    """Twenty random steps of four worlds whose episodes end at different times, all read out."""
    cfg = config("env")
    env = make_env(cfg)
    rng = np.random.default_rng(0)

    class Random:
        def carry(self, num_worlds):
            return {}

        def act(self, carry, obs, greedy=False):
            return carry, rng.uniform(-1, 1, (4, env.action_spec.size)).astype(np.float32)

    class All:
        """Asks for all that the env gives, so that any model can be asked about the rollout."""

        kind, scope, causal, value_range = "reward", "step", True, (0.0, 0.0)

        def __init__(self) -> None:
            terms = {f"term/{name}" for name in env.step(Random().act({}, {})[1]).reward_terms}
            names = {"reward", "success", *terms, *env.readouts()}
            self.needs = Needs(readouts=frozenset(names))

        def begin(self, carry, mask, moment):
            return carry, np.zeros(4, np.float32)

        def score(self, carry, traj):
            return make_reward_model(cfg, env, "env").score(carry, traj)

    rewards = Rewards({"all": Channel("all", All())}, 4, 0.9)
    traj = Collector(env, rewards, stagger=True).collect(Random(), 20)
    assert len({tuple(row) for row in traj.truncated.T}) > 1
    return env, traj


def build(name: str) -> RewardModel:
    """The model as configured; one that learns is fitted to tell the upper half of a readout."""
    env, traj = rollout()
    model: Any = make_reward_model(config(name), env, name)
    if hasattr(model, "fit"):
        labelled = traj.slice(0, 20)
        height = traj.next_obs["state"][..., 0]
        labelled.readouts = {**traj.readouts, "success": height > np.median(height)}
        model.fit(labelled)
    return model


def scores(model: RewardModel, traj: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Values and statuses, scored from the first row on, beginning wherever an episode does."""
    rewards = Rewards({"m": Channel("m", model, threshold=0.0)}, 4, 0.9)
    channel = rewards.channels["m"]
    rewards.begin(start(traj, 0))
    score = rewards._score(channel, traj)[1]
    return score.value, score.status


@pytest.mark.parametrize("name", NAMES)
def test_the_option_names_a_channel_of_its_own(name: str) -> None:
    cfg = config("env", name)
    assert set(cfg.reward_model) == {"env", name}
    assert {"_target_", "weight", "shaping", "every"} <= cfg.reward_model[name].keys()
    assert cfg.reward_model[name].shaping in SHAPINGS


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_what_it_is(name: str) -> None:
    model, (_, traj) = build(name), rollout()
    assert model.kind in KINDS
    assert model.scope in ("step", "episode")
    assert isinstance(model.causal, bool)
    low, high = model.value_range
    assert low <= high
    if model.kind in ("potential", "success"):
        assert np.isfinite([low, high]).all()
    needs = model.needs
    assert needs.readouts <= traj.readouts.keys()
    assert needs.privileged <= needs.readouts
    assert {name for name in needs.readouts if name.startswith(TRUTHS)} <= needs.privileged


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_finite_and_in_range_or_carries_a_status(name: str) -> None:
    model, (_, traj) = build(name), rollout()
    value, status = scores(model, traj)
    assert value.shape == status.shape == traj.shape
    assert np.isin(status, [SCORED, SILENT, ABSTAINED, FAILED]).all()
    told = value[status == SCORED]
    low, high = model.value_range
    assert len(told) and np.isfinite(told).all()
    assert low <= told.min() and told.max() <= high
    first = model.begin({}, np.ones(4, bool), start(traj, 0))[1]
    assert first.shape == (4,) and np.isfinite(first).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 7, 19])
def test_chunks_are_scored_as_the_whole_is(name: str, length: int) -> None:
    model, (_, traj) = build(name), rollout()
    whole = scores(model, traj)
    rewards = Rewards({"m": Channel("m", model, threshold=0.0)}, 4, 0.9)
    rewards.begin(start(traj, 0))
    parts = [rewards._score(rewards.channels["m"], part)[1] for part in chunks(traj, length)]
    assert (np.concatenate([part.value for part in parts]) == whole[0]).all()
    assert (np.concatenate([part.status for part in parts]) == whole[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_does_not_depend_on_the_neighbours(name: str) -> None:
    model, (_, traj) = build(name), rollout()
    order = np.array([2, 0, 3, 1])
    mixed = traj.slice(0, 20)
    for field in ("terminated", "truncated", "is_first", "final_index"):
        setattr(mixed, field, getattr(traj, field)[:, order])
    for field in ("obs", "readouts"):
        rows = {key: value[:, order] for key, value in getattr(traj, field).items()}
        setattr(mixed, field, rows)
    mixed.last_obs = {key: value[order] for key, value in traj.last_obs.items()}
    np.testing.assert_allclose(
        scores(model, mixed)[0], scores(model, traj)[0][:, order], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_its_state_brings_back_its_verdicts(name: str, tmp_path) -> None:
    model, (env, traj) = build(name), rollout()
    again = make_reward_model(config(name), env, name)
    again.load_state_dict(through_disk(model.state_dict(), tmp_path))
    assert (scores(again, traj)[0] == scores(model, traj)[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_as_configured_it_gives_rewards_to_learn_from(name: str) -> None:
    env, traj = rollout()
    rewards = make_rewards(config(name), env, 0.9)
    rewards.channels[name].model = build(name)
    part = traj.slice(0, 20)
    part.reward_terms, part.valid = {}, part.valid.copy()
    rewards.begin(start(traj, 0))
    rewards.label(part, episode_step(traj))
    assert part.valid.all() and np.isfinite(part.reward).all() and part.reward.any()
    assert set(part.reward_terms) == {name}
