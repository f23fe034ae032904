"""Every reward model in `conf/reward_model` keeps the contract, on rollouts of a real env."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from embodied.build import make_env, make_reward_model, make_rewards
from embodied.card import measure
from embodied.collect import Collector
from embodied.config import CONF, compose_config, options
from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.record import record
from embodied.reward_folder import RewardFile
from embodied.reward_model import KINDS, Channel, Needs, RewardModel, start
from embodied.rewards import Rewards, ask
from embodied.sandbox_worker import load, world_of
from embodied.served import ServedReward
from embodied.server import Server
from embodied.server_limits import Limits
from embodied.shaping import SHAPINGS
from embodied.statistics import spearman
from embodied.tracing import Trace
from embodied.types import ABSTAINED, FAILED, SCORED, SILENT, Trajectory
from tests.toys import chunks, episode_step, through_disk

NAMES = [
    name
    for name in options("reward_model")
    if ".turns." not in OmegaConf.load(CONF / "reward_model" / f"{name}.yaml")["_target_"]
]
"""Those of states: `test_turn_rewards` has those of turns."""
CODE_MODELS = ("reward_code", "lare")
HONEST = [n for n in NAMES if n not in ("env", "clock", "always_yes", *CODE_MODELS)]
"""Those that learned to judge what they see."""
TRUTHS = ("reward", "success", "term/", "progress", "stage")
"""Readouts that no robot has: they count as privileged."""
CAMERA = "top"


@cache
def written() -> Path:
    """A folder with reward code."""
    trace = Trace(CODE_READS)
    given = trace.inputs()
    graph = trace.graph(load(CODE)(world_of(given), given["action"], 0.05))
    file = RewardFile(CODE, "line_reach", 0.05, CODE_READS, graph=graph)
    return file.save(tempfile.mkdtemp())


CODE = """
def reward(world, action, dt):
    away = np.linalg.norm(world.puck.position - world.red_pad.position, axis=-1)
    return {"reach": 1.0 - np.tanh(away), "lit": world.lamp.lit, "cost": -dt * action[:, 0] ** 2}
"""
CODE_READS = {"puck.position": [2], "red_pad.position": [2], "lamp.lit": [], "action": [2]}


@cache
def config(*names: str, sees: str = "state") -> DictConfig:
    """Models with an `input` see the `state`, or `pixels`; of their `members` one will do."""
    plain = compose_config([f"reward_model=[{','.join(names)}]"])
    eyes = [name for name in names if "input" in plain.reward_model[name]]
    own = [f"reward_model.{name}.input={sees}" for name in eyes]
    own += [f"reward_model.{name}.cameras=[{CAMERA}]" for name in eyes]
    many = [name for name in names if "members" in plain.reward_model[name]]
    own += [f"reward_model.{name}.members=1" for name in many]
    own += [f"reward_model.{name}.path={written()}" for name in names if name in CODE_MODELS]
    own += [f"reward_model.{name}.url={served()}" for name in names if name == "remote"]
    worlds = ["env=line_reach", "env.max_steps=9", "num_envs=4", "sim.threads=1"]
    return compose_config([*worlds, f"reward_model=[{','.join(names)}]", *own])


@cache
def served() -> str:
    """Where the model that `remote` asks is served, until the tests end."""
    model, space = build("stage_aware", "state"), rollout()[0].observation_space
    there = ServedReward(model, space, "stage_aware", "fitted here")
    return Server(there, limits=Limits(rate=1e6)).__enter__().url


@cache
def demonstrations(sources: tuple[str, ...], seed: int) -> Dataset:
    worlds: Any = make_env(compose_config(["env=line_reach", "sim.threads=1"]), num_envs=16)
    return record(worlds, sources, range(seed, seed + len(sources)), (CAMERA,))


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
            self.needs = Needs(readouts=frozenset(names), cameras=(CAMERA,))

        def begin(self, carry, mask, moment):
            return carry, np.zeros(4, np.float32)

        def score(self, carry, traj):
            return make_reward_model(cfg, env, "env").score(carry, traj)

    rewards = Rewards({"all": Channel("all", All())}, 4, 0.9)
    traj = Collector(env, rewards, stagger=True).collect(Random(), 20)
    assert len({tuple(row) for row in traj.truncated.T}) > 1
    return env, traj


@cache
def build(name: str, sees: str) -> RewardModel:
    """The model as configured; one that learns is fitted to demonstrations.

    With cameras hardly at all: that is enough for what is asked of images here.
    """
    env, _ = rollout()
    model: Any = make_reward_model(config(name, sees=sees), env, name)
    if hasattr(model, "fit"):
        count, steps = (16, 200) if sees == "state" else (4, 2)
        limited = "steps" in signature(model.fit).parameters
        model.fit(demonstrations(("varied",) * count, 0), **({"steps": steps} if limited else {}))
    return model


def looks(name: str) -> bool:
    return "input" in compose_config([f"reward_model={name}"]).reward_model[name]


VIEWS = [(name, sees) for name in NAMES for sees in ("state", "pixels")[: 1 + looks(name)]]


def scores(model: RewardModel, traj: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Values and statuses, scored from the first row on, beginning wherever an episode does."""
    rewards = Rewards({"m": Channel("m", model, threshold=0.0)}, 4, 0.9)
    channel = rewards.channels["m"]
    rewards.begin(start(traj, 0))
    score = ask(channel, traj)[1]
    return score.value, score.status


@cache
def verdicts(name: str, sees: str) -> tuple[np.ndarray, np.ndarray]:
    return scores(build(name, sees), rollout()[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_option_names_a_channel_of_its_own(name: str) -> None:
    cfg = config("env", name)
    assert set(cfg.reward_model) == {"env", name}
    assert {"_target_", "weight", "shaping", "every"} <= cfg.reward_model[name].keys()
    assert cfg.reward_model[name].shaping in SHAPINGS


@pytest.mark.parametrize(("name", "sees"), VIEWS)
def test_it_declares_what_it_is(name: str, sees: str) -> None:
    model, (_, traj) = build(name, sees), rollout()
    assert model.kind in KINDS
    assert model.scope in ("step", "episode")
    assert isinstance(model.causal, bool)
    assert getattr(model, "learned", False) is (name not in ("env", "lare"))
    low, high = model.value_range
    assert low <= high
    if model.kind in ("potential", "success"):
        assert np.isfinite([low, high]).all()
    needs = model.needs
    assert needs.cameras == ((CAMERA,) if sees == "pixels" else ())
    assert needs.readouts <= traj.readouts.keys()
    assert needs.privileged <= needs.readouts
    assert {name for name in needs.readouts if name.startswith(TRUTHS)} <= needs.privileged


@pytest.mark.parametrize(("name", "sees"), VIEWS)
def test_every_value_is_finite_and_in_range_or_carries_a_status(name: str, sees: str) -> None:
    model, (_, traj) = build(name, sees), rollout()
    value, status = verdicts(name, sees)
    assert value.shape == status.shape == traj.shape
    assert np.isin(status, [SCORED, SILENT, ABSTAINED, FAILED]).all()
    told = value[status == SCORED]
    low, high = model.value_range
    assert len(told) or (sees == "pixels" and (status == ABSTAINED).any())
    assert np.isfinite(told).all() and ((low <= told) & (told <= high)).all()
    first = model.begin({}, np.ones(4, bool), start(traj, 0))[1]
    assert first.shape == (4,) and np.isfinite(first).all()


@pytest.mark.parametrize(("name", "sees"), VIEWS)
@pytest.mark.parametrize("length", [1, 7])
def test_chunks_are_scored_as_the_whole_is(name: str, sees: str, length: int) -> None:
    model, (_, traj) = build(name, sees), rollout()
    whole = verdicts(name, sees)
    rewards = Rewards({"m": Channel("m", model, threshold=0.0)}, 4, 0.9)
    rewards.begin(start(traj, 0))
    parts = [ask(rewards.channels["m"], part)[1] for part in chunks(traj, length)]
    assert (np.concatenate([part.value for part in parts]) == whole[0]).all()
    assert (np.concatenate([part.status for part in parts]) == whole[1]).all()


@pytest.mark.parametrize(("name", "sees"), VIEWS)
def test_a_verdict_does_not_depend_on_the_neighbours(name: str, sees: str) -> None:
    model, (_, traj) = build(name, sees), rollout()
    order = np.array([2, 0, 3, 1])
    mixed = traj.slice(0, 20)
    by_world = ("terminated", "truncated", "is_first", "final_index")
    for field in (*by_world, "action", "action_executed"):
        setattr(mixed, field, getattr(traj, field)[:, order])
    for field in ("obs", "readouts"):
        rows = {key: value[:, order] for key, value in getattr(traj, field).items()}
        setattr(mixed, field, rows)
    mixed.last_obs = {key: value[order] for key, value in traj.last_obs.items()}
    for frames in mixed.frames.values():
        frames.index, frames.first = frames.index[:, order], frames.first[:, order]
    np.testing.assert_allclose(
        scores(model, mixed)[0], verdicts(name, sees)[0][:, order], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_its_state_brings_back_its_verdicts(name: str, tmp_path) -> None:
    model, (env, traj) = build(name, "state"), rollout()
    again = make_reward_model(config(name), env, name)
    again.load_state_dict(through_disk(model.state_dict(), tmp_path))
    assert (scores(again, traj)[0] == verdicts(name, "state")[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_as_configured_it_gives_rewards_to_learn_from(name: str) -> None:
    env, traj = rollout()
    rewards = make_rewards(config(name), env, 0.9)
    rewards.channels[name].model = build(name, "state")
    part = traj.slice(0, 20)
    part.reward_terms, part.valid = {}, part.valid.copy()
    rewards.begin(start(traj, 0))
    rewards.label(part, episode_step(traj))
    assert part.valid.all() and np.isfinite(part.reward).all()
    assert set(part.reward_terms) == {name}
    model: Any = rewards.channels[name].model
    if model.kind == "potential":
        assert part.reward.any()


@pytest.mark.parametrize("name", HONEST)
def test_the_expert_is_worth_more_than_chance(name: str) -> None:
    model = build(name, "state")
    good = judge(model, demonstrations(("expert",) * 6, 900).episodes)
    bad = judge(model, demonstrations(("random",) * 6, 900).episodes)
    low, high = model.value_range
    assert np.mean([one.value[-1] for one in good]) > low + 0.6 * (high - low)
    assert np.mean([one.value[-1] for one in bad]) < low + 0.4 * (high - low)


@pytest.mark.parametrize("name", HONEST)
def test_progress_rises_on_an_expert_and_falls_on_the_way_back(name: str) -> None:
    model = build(name, "state")
    if model.kind != "potential":
        pytest.skip("says only whether it is done")
    episodes = demonstrations(("expert",) * 6, 900).episodes
    there_and_back = [e.at(np.r_[: len(e), len(e) - 1 : -1 : -1]) for e in episodes]
    ways = [one.value.reshape(2, -1) for one in judge(model, there_and_back)]
    rise, fall = zip(*[[spearman(v, np.arange(len(v))) for v in way] for way in ways], strict=True)
    assert np.mean(rise) > 0.7
    assert np.mean(fall) < -0.7


@pytest.mark.parametrize("name", [n for n in HONEST if looks(n) and n != "perceptual"])
def test_from_pixels_colours_that_were_never_in_view_are_not_believed(name: str) -> None:
    model: Any = build(name, "pixels")
    shown = demonstrations(("varied",) * 4, 0).episodes[0].images[CAMERA]
    flooded = np.full_like(shown[:1], (255, 0, 255))
    allowed = [model.hues(torch.from_numpy(part)) for part in (shown[-1:], flooded)]
    assert allowed[0] > 0.5 > 0.1 > allowed[1]


def all_zero(episode: Episode) -> Episode:
    return replace(episode, success=0 * episode.success, stage=0 * episode.stage)


def all_done(episode: Episode) -> Episode:
    return replace(episode, success=episode.success | True, stage=0 * episode.stage)


@pytest.mark.parametrize("name", sorted({*HONEST} - {"perceptual", "remote"}))  # with no targets
@pytest.mark.parametrize("same", [all_zero, all_done])
def test_targets_that_are_all_alike_are_refused(
    name: str, same: Callable[[Episode], Episode]
) -> None:
    model: Any = make_reward_model(config(name), rollout()[0], name)
    data = demonstrations(("expert",) * 4, 0)
    with pytest.raises(UserError) as caught:
        model.fit(Dataset(data.info, [same(episode) for episode in data.episodes]))
    assert "\n" not in str(caught.value) and not model.fitted


@pytest.mark.parametrize("name", ["clock", "always_yes"])
def test_a_judge_that_does_not_look_fails_the_gate(name: str) -> None:
    sources = ("expert",) * 4 + ("expert:stops_short",) * 4 + ("random",) * 4
    card = measure(build(name, "state"), demonstrations(sources, 900))
    assert card.gate == "failed"
    wrong = {finding.check.name for finding in card.failed}
    assert "success_auroc" in wrong
    assert wrong & {"clock", "frozen_rise", "frozen_accepted"}
