"""Branches of an episode: what they are worth, that nothing of them stays, and their variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.agents.language_policy import LanguagePolicy
from hypothesis import given
from hypothesis import strategies as st

from embodied.branches import Branches, branches, centred
from embodied.errors import UserError
from embodied.text_env import TextEnv
from embodied.text_space import texts
from embodied.types import Array, Carry, Obs, Step
from tests.talks import lm

DOORS = {"_target_": "tests.text_toys.Doors", "doors": 3}


def doors(num_worlds: int = 4, max_steps: int = 6, **options: Any) -> TextEnv:
    env = TextEnv(DOORS, "doors", num_worlds, max_steps=max_steps, **options)
    env.reset()
    return env


class Says:
    """Says what it is told to, and keeps what it was given."""

    action_spec = None

    def __init__(self, *said: str) -> None:
        self.said, self.given = said, ()

    def carry(self, num_worlds: int) -> Carry:
        return {"memory": np.zeros((num_worlds, 2))}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        self.given = (carry, obs)
        return carry, texts(list(self.said))


class Guesses(Says):
    """Says what the door says half of the time, and nothing else."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = np.random.default_rng(seed)

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        right = [text.rpartition(" ")[2].rstrip(".") for text in obs["text"]]
        knows = self.chance.random(len(right)) < 0.5
        said = [f"say {word}" if it else "dance" for word, it in zip(right, knows, strict=True)]
        return carry, texts(said)


def opened(seen: Obs, step: Step, told: Any) -> Array:
    return step.reward


def branch(env: TextEnv, policy: Says, judge: Any = opened, world: int = 1, k: int = 3) -> Branches:
    return branches(env, policy, env.snapshot(np.array([world]))[0], policy.carry(1), k, judge)


def test_by_hand() -> None:
    env = doors()
    gold = env.gold()
    shown = env.step(texts([plan[0] for plan in gold])).obs["text"][1]
    seen = {}

    def judge(before: Obs, step: Step, told: Any) -> Array:
        seen.update(before=before["text"], said=step.action_executed, valid=told["world.valid"])
        return told["world.reached"]  # 2, 1 and 1: mean 4/3

    policy = Says(gold[1][1], "say nothing", "dance")
    row, carry = env.snapshot(np.array([1]))[0], {"memory": np.array([[3.0, 4.0]])}
    got = branches(env, policy, row, carry, 3, judge)
    assert got.actions.tolist() == [gold[1][1], "say nothing", "dance"]
    np.testing.assert_array_equal(got.scores, [2, 1, 1])
    np.testing.assert_allclose(got.advantages, [2 / 3, -1 / 3, -1 / 3])
    given, obs = policy.given
    np.testing.assert_array_equal(given["memory"], [[3.0, 4.0]] * 3)
    assert obs["text"].tolist() == seen["before"].tolist() == [shown] * 3
    assert seen["said"].tolist() == got.actions.tolist()
    assert seen["valid"].tolist() == [True, True, False]


def test_the_env_is_afterwards_as_it_was() -> None:
    env, twin = doors(), doors()
    gold = env.gold()
    first = texts([gold[0][0], "dance", *(plan[0] for plan in gold[2:])])
    for one in (env, twin):
        one.step(first)
    branch(env, Says("say oak", "dance", "crash"), world=2)
    for name, value in twin.readouts().items():
        np.testing.assert_array_equal(env.readouts()[name], value, err_msg=name)
    state, other = env.state_dict(), twin.state_dict()
    assert state.pop("actions") == other.pop("actions")
    for name, value in other.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    second = texts([gold[0][1], *(plan[0] for plan in gold[1:])])
    ours, theirs = env.step(second), twin.step(second)
    np.testing.assert_array_equal(ours.obs["text"], theirs.obs["text"])
    np.testing.assert_array_equal(ours.reward, theirs.reward)
    np.testing.assert_array_equal(env.reset()["text"], twin.reset()["text"])


def test_episodes_that_are_over_stay_so() -> None:
    env = doors(3, max_steps=2)
    gold = env.gold()
    env.step(texts(["dance"] * 3))
    env.reset(np.array([False, True, False]))
    env.step(texts(["dance"] * 3))  # worlds 0 and 2 have come to their limit
    branch(env, Says("dance", "dance"), world=1, k=2)
    step = env.step(texts(["say nothing", "say nothing", gold[2][0]]))
    assert step.truncated.tolist() == [True] * 3 and step.reward.tolist() == [0.0] * 3
    assert step.obs["text"][0].startswith("What?")


def test_an_episode_of_another_env_can_be_branched() -> None:
    env, own = doors(2), doors(3, seed=50)
    env.step(texts([plan[0] for plan in env.gold()]))
    right = env.gold()[1][1]
    got = branches(own, Says(right, "?"), env.snapshot(np.array([1]))[0], {}, 2, opened)
    np.testing.assert_allclose(got.scores, [1 / 3, 0])


def test_a_language_model_makes_differing_next_steps_with_one_memory() -> None:
    env = doors()
    policy = LanguagePolicy(lm(), 8, 1.0, 512, None, 0)
    carry, _ = policy.act(policy.carry(4), env.reset())
    before = {name: value.copy() for name, value in carry.items()}
    env.step(texts(["dance"] * 4))
    mine = {name: value[2:3] for name, value in carry.items()}
    branches(env, policy, env.snapshot(np.array([2]))[0], mine, 4, opened)
    heard = policy.extras["context"]
    assert all(np.array_equal(one, heard[0]) for one in heard)
    assert len({tuple(reply) for reply in policy.extras["reply"]}) > 1
    for name, value in before.items():
        np.testing.assert_array_equal(carry[name], value)


def test_a_branch_whose_world_fails_has_no_part() -> None:
    env = doors()
    got = branch(env, Says(env.gold()[1][0], "crash", "dance"))
    np.testing.assert_allclose(got.advantages, [1 / 6, 0, -1 / 6])


@pytest.mark.parametrize("ends", ["won", "late"])
def test_an_episode_that_is_over_has_no_branches(ends: str) -> None:
    env = doors(2, max_steps=3)
    gold = env.gold()
    for t in range(3):
        env.step(texts([plan[t] for plan in gold] if ends == "won" else ["dance"] * 2))
    with pytest.raises(UserError, match="the episode is over"):
        branch(env, Says("dance"), k=1)
    assert (env.readouts()["world.reached"] == (3 if ends == "won" else 0)).all()


def test_what_a_caller_got_wrong_is_told_and_the_env_put_back() -> None:
    env = doors(2)
    with pytest.raises(UserError, match=r"branches\.k=3: give a number from 1 to 2"):
        branch(env, Says("a", "b", "c"))
    with pytest.raises(ValueError, match="scores have shape"):
        branch(env, Says("dance", "dance"), judge=lambda *_: np.zeros(3), k=2)
    assert env.snapshot(np.array([0]))[0]["actions"] == []


@given(st.lists(st.floats(-9, 9) | st.just(np.nan), min_size=1, max_size=6))
def test_advantages_add_up_to_nothing(scores: list[float]) -> None:
    got = centred(np.array(scores), np.ones(len(scores), bool))
    assert abs(got.sum()) < 1e-9 and np.isfinite(got).all()


def test_a_step_s_advantage_varies_less_than_the_return_of_whole_episodes() -> None:
    """Of 3 doors, each opened at once by half: a step pays 1/3 or 0, a return adds three of them.

    So the variances are 1/4/9 = 0.0278 and three times as much.
    """
    many = 400
    env = doors(many, max_steps=3, group=many)
    policy = Guesses(1)
    row = env.snapshot(np.array([0]))[0]
    step = branches(env, policy, row, policy.carry(1), many, opened).advantages
    returns, obs = np.zeros(many), env.reset()
    for _ in range(3):
        after = env.step(policy.act({}, obs)[1])
        returns, obs = returns + after.reward, after.obs
    assert step.var() == pytest.approx(1 / 36, rel=0.1)
    assert returns.var() == pytest.approx(3 / 36, rel=0.2)
    assert step.var() < returns.var() / 2
