"""What every reward of turns in conf/ promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make
from embodied.config import CONF, compose_config, options
from embodied.reward_model import KINDS, Channel, start
from embodied.rewards import Rewards
from embodied.types import Trajectory
from tests.talks import READ, lm, talk
from tests.toys import through_disk

TURNS = ".turns."
MODELS = [
    name
    for name in options("reward_model")
    if TURNS in OmegaConf.load(CONF / "reward_model" / f"{name}.yaml")["_target_"]
]
OWN_WORLD = ("tool_call", "cited_evidence", "information_gain")
"""Models of what only one world tells: their own tests have it."""
ASKS = ("judge", "utterance", "factored_state")
"""Models that ask another model: their own tests have one to ask."""
DOORS = [name for name in MODELS if name not in (*OWN_WORLD, *ASKS)]


def build(name: str) -> Any:
    cfg = compose_config([f"reward_model=[{name}]"]).reward_model[name]
    core = ("weight", "shaping", "every", "late", "threshold", "bonus", "clip")
    rest = OmegaConf.create({key: value for key, value in cfg.items() if key not in core})
    return make(rest, {"language": lambda: lm().clone()})


def labelled(name: str, traj: Trajectory) -> Trajectory:
    """A talk with what a model pays; a combiner's channels are the outcome and verified turns."""
    model = build(name)
    names = [*getattr(model, "over", ()), name]
    models = {n: model if n == name else build(n) for n in names}
    shaping = {n: "potential" if m.kind == "potential" else "none" for n, m in models.items()}
    channels = {
        n: Channel(
            n, m, whole=True, shaping=shaping[n], threshold=0.5 if shaping[n] != "none" else None
        )
        for n, m in models.items()
    }
    rewards = Rewards(channels, traj.shape[1], 1.0)
    traj = replace(traj, reward_terms={})
    rewards.begin(start(traj, 0))
    rewards.label(traj, np.tile(np.arange(traj.shape[0])[:, None], traj.shape[1]))
    rewards.learn(traj)
    return traj


@pytest.mark.parametrize("name", MODELS)
def test_it_says_what_it_is(name: str) -> None:
    if name in ASKS:
        pytest.skip("made with a model to ask in its own test")
    model = build(name)
    assert model.kind in KINDS and model.scope in ("step", "episode")
    assert model.needs.privileged <= model.needs.readouts
    assert {n for n in model.needs.readouts if n != "world.valid"} <= model.needs.privileged


@pytest.mark.parametrize("name", DOORS)
def test_it_pays_finite_rewards_and_nothing_where_a_world_rests(name: str) -> None:
    gold = talk(group=2)
    plans = [["say oak", "dance", "say elm"], *[["say ash"]] * 3]
    for traj in (gold, talk(plans, group=2)):
        told = labelled(name, traj)
        assert np.isfinite(told.reward).all()
        np.testing.assert_array_equal(told.reward[~told.valid], 0.0)


@pytest.mark.parametrize("name", DOORS)
def test_equal_talks_are_paid_alike(name: str) -> None:
    traj = talk(group=2)
    np.testing.assert_array_equal(labelled(name, traj).reward, labelled(name, traj).reward)


@pytest.mark.parametrize("name", [n for n in DOORS if n in ("outcome", "verified_turn", "gated")])
def test_what_is_verified_pays_the_gold_talk_more_than_any_other(name: str) -> None:
    gold = labelled(name, talk(group=2)).reward.sum(0)
    for said in ("dance", "say oak", ""):
        assert (labelled(name, talk([[said]] * 4, group=2)).reward.sum(0) < gold).all()


@pytest.mark.parametrize("name", DOORS)
def test_its_state_goes_through_a_checkpoint(name: str, tmp_path: Any) -> None:
    traj = talk(group=2)
    model = build(name)
    if hasattr(model, "learn"):
        traj.reward_terms = {}
        model.score({}, traj)
        model.learn(traj)
    other = build(name)
    other.load_state_dict(through_disk(model.state_dict(), tmp_path))
    if not getattr(model, "over", ()):
        one, two = model.score({}, traj)[1], other.score({}, traj)[1]
        np.testing.assert_allclose(one.value[traj.valid], two.value[traj.valid], atol=1e-6)


def test_every_readout_that_models_may_need_is_there() -> None:
    assert set(READ) <= {"success", "reward", *(f"world.{n}" for n in _WORLD)}


_WORLD = ("valid", "reached", "subgoals", "progress", "begun")
