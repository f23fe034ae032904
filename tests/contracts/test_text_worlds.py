"""What every text world in conf/ promises, whoever wrote it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make_env
from embodied.config import CONF, amend, compose_config, options
from embodied.gym_view import GymView
from embodied.text_env import TextEnv
from embodied.text_space import texts

WORLDS = [
    name
    for name in options("env")
    if "world" in OmegaConf.load(CONF / "env" / f"{name}.yaml").get("stepper", {})
]
SEEDS = 12
"""Tasks that are solved; the worlds' own tests solve more."""


@cache
def configuration(name: str) -> Any:
    return compose_config([f"env={name}"])


def make(name: str, num_envs: int, *overrides: str, seed: int = 0) -> TextEnv:
    env = make_env(amend(configuration(name), ["env.workers=0", *overrides]), num_envs, seed)
    assert isinstance(env, TextEnv)
    return env


def played(env: TextEnv, plans: list[list[str]]) -> list[dict[str, np.ndarray]]:
    """What plans of equal or differing length lead to, the last action of a short one repeated."""
    rows = []
    for t in range(max(map(len, plans))):
        step = env.step(texts([plan[min(t, len(plan) - 1)] for plan in plans]))
        rows.append({"text": step.obs["text"], "reward": step.reward, "success": step.success})
        rows[-1] |= {"terminated": step.terminated, **env.readouts()}
    return rows


@pytest.mark.parametrize("name", WORLDS)
def test_gold_actions_score_one_and_reach_every_subgoal(name: str) -> None:
    env = make(name, SEEDS)
    obs = env.reset()
    assert len(set(obs["text"])) > SEEDS // 2, "tasks that differ should look so"
    gold = env.gold()
    assert all(0 < len(plan) <= env.max_steps for plan in gold)
    rows = played(env, gold)
    last = rows[-1]
    assert last["success"].all() and last["terminated"].all()
    np.testing.assert_allclose(sum(row["reward"] for row in rows), 1.0, atol=1e-6)
    np.testing.assert_allclose(last["world.progress"], 1.0)
    for row, before in zip(rows[1:], rows, strict=False):
        assert (row["world.reached"] >= before["world.reached"]).all(), "it never falls"
    assert rows[0]["world.valid"].all()
    assert (rows[0]["world.reached"] < rows[0]["world.subgoals"])[[len(g) > 2 for g in gold]].all()
    env.close()


@pytest.mark.parametrize("name", WORLDS)
def test_gold_actions_are_all_needed(name: str) -> None:
    env = make(name, 6)
    env.reset()
    gold = env.gold()
    longest = max(map(len, gold))
    rows = played(env, [[*plan[:-1], *["?"] * (longest - len(plan) + 1)] for plan in gold])
    assert not rows[-1]["success"].any()
    env.close()


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("said", ["", "fly to the moon", "ß 日本 \x00\n\n" * 3, "a" * 5000])
def test_what_means_nothing_is_answered_so(name: str, said: str) -> None:
    env = make(name, 2)
    env.reset()
    before = env.readouts()
    step = env.step(texts([said, said]))
    assert not env.readouts()["world.valid"].any()
    assert not step.fault.any() and not step.success.any()
    assert all(text.strip() for text in step.obs["text"])
    np.testing.assert_array_equal(env.readouts()["world.reached"], before["world.reached"])
    np.testing.assert_array_equal(step.reward, 0.0)
    env.close()


@pytest.mark.parametrize("name", WORLDS)
def test_equal_tasks_and_actions_give_equal_turns(name: str) -> None:
    env, other = make(name, 3), make(name, 2, seed=1)
    env.reset(seed=np.array([4, 5, 6]))
    played(env, [plan[:1] for plan in env.gold()])
    first = env.reset(seed=np.array([4, 5, 6]))["text"]
    again = other.reset(seed=np.array([6, 4]))["text"]
    np.testing.assert_array_equal(first[[2, 0]], again)
    plans = [[*plan[:2], "nonsense", *plan[2:]] for plan in env.gold()]
    assert other.gold() == [env.gold()[2], env.gold()[0]]
    length = min(map(len, plans))
    here = played(env, [plan[:length] for plan in plans])
    there = played(other, [plans[2][:length], plans[0][:length]])
    for ours, theirs in zip(here, there, strict=True):
        for key, value in ours.items():
            np.testing.assert_array_equal(value[[2, 0]], theirs[key], err_msg=key)
    env.close()
    other.close()


@pytest.mark.parametrize("name", WORLDS)
def test_an_episode_is_forked_and_saved(name: str) -> None:
    env, other = make(name, 2), make(name, 2, seed=50)
    env.reset()
    gold = env.gold()
    env.step(texts([plan[0] for plan in gold]))
    env.restore(env.snapshot(np.array([0])), np.array([1]))
    other.load_state_dict(env.state_dict())
    following = gold[0][min(1, len(gold[0]) - 1)]
    for _ in range(2):
        one, two = env.step(texts([following] * 2)), other.step(texts([following] * 2))
        assert one.obs["text"][0] == one.obs["text"][1] == two.obs["text"][0]
        np.testing.assert_array_equal(one.reward, two.reward)
    env.close()
    other.close()


@pytest.mark.parametrize("name", WORLDS)
def test_a_view_is_gymnasium_s_vector_env(name: str) -> None:
    view = GymView(make(name, 2, "env.max_steps=3"))
    obs, _ = view.reset(seed=3)
    assert obs in view.observation_space
    for _ in range(4):
        obs, reward, terminated, truncated, _ = view.step(("look", "nonsense"))
        assert obs in view.observation_space
        assert reward.shape == terminated.shape == truncated.shape == (2,)
    view.close()
