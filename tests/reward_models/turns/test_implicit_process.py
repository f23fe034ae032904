"""Implicit process rewards: both losses by hand, what is paid for a turn, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.turns.implicit_process import (
    ImplicitProcess,
    outcome_loss,
    pair_loss,
)

from embodied.errors import UserError
from embodied.types import Trajectory
from tests.reward_models.turns.mixed import constant, mixed
from tests.talks import lm, talk
from tests.toys import through_disk


def made(**settings: Any) -> ImplicitProcess:
    return ImplicitProcess(lambda: lm().clone(), **settings)


def lengths(traj: Trajectory) -> np.ndarray:
    """Tokens of every turn, `(T, N)`."""
    out = np.zeros(traj.shape)
    for t, n in np.argwhere(traj.valid):
        out[t, n] = len(traj.extras["reply"][t, n])
    return out


def said_at(traj: Trajectory, each: float) -> Trajectory:
    """The talk as if every token of it had been that likely to the policy."""
    told = traj.extras["log_prob"].copy()
    for t, n in np.argwhere(traj.valid):
        told[t, n] = np.full(len(told[t, n]), each, np.float32)
    return replace(traj, extras={**traj.extras, "log_prob": told})


def test_the_loss_of_pairs_by_hand() -> None:
    quality = torch.tensor([1.0, 0.0, 3.0, 2.0])
    success = torch.tensor([True, False, True, False])
    loss, right = pair_loss(quality, success)  # Q+ - Q-: 1 - 0, 1 - 2, 3 - 0, 3 - 2
    expected = sum(math.log1p(math.exp(-d)) for d in (1.0, -1.0, 3.0, 1.0)) / 4
    assert loss.item() == pytest.approx(expected)
    assert right == 0.75


def test_the_loss_of_outcomes_by_hand() -> None:
    total, success = torch.tensor([math.log(3.0), -1.0]), torch.tensor([True, True])
    loss, right = outcome_loss(total, success)  # sigmoid(log 3) = 3/4
    expected = (-math.log(0.75) + math.log1p(math.e)) / 2
    assert loss.item() == pytest.approx(expected)
    assert right == 0.5


def test_a_turn_is_paid_by_how_much_likelier_its_tokens_are_than_to_the_policy() -> None:
    traj, model = said_at(mixed(), -1.5), made(beta=0.1)
    model.learner.lm.logprobs = constant(-1.0)  # type: ignore[method-assign]
    value = model.score({}, traj)[1].value  # 0.1 * (-1 + 1.5) a token
    np.testing.assert_allclose(value, 0.05 * lengths(traj), rtol=1e-5)


def test_prime_holds_it_against_the_model_as_it_began() -> None:
    traj, model = said_at(mixed(), -9.0), made(mode="prime", beta=0.1)
    learner = model.learner
    assert model.reference is not None and model.reference is not learner.lm
    learner.lm.logprobs = constant(-1.0)  # type: ignore[method-assign]
    model.reference.logprobs = constant(-1.25)  # type: ignore[method-assign]
    value = model.score({}, traj)[1].value
    np.testing.assert_allclose(value, 0.025 * lengths(traj), rtol=1e-5)


@pytest.mark.parametrize("mode", ["istar", "prime"])
def test_before_it_has_learned_it_pays_nothing(mode: str) -> None:
    assert np.abs(made(mode=mode).score({}, mixed())[1].value).max() < 1e-5


def test_the_loss_of_a_rollout_is_of_the_mean_reward_of_turns() -> None:
    """In mode "istar"; in "prime" it is of their sum."""
    traj = said_at(mixed(worlds=4), -1.5)
    said, turns = lengths(traj), traj.valid.sum(0)
    success = torch.tensor([True, False, True, False])
    for mode, scale in (("istar", 1.0 / turns), ("prime", np.ones(4))):
        model = made(mode=mode, beta=0.2, lr=0.0)
        model.learner.lm.logprobs = constant(-1.0)  # type: ignore[method-assign]
        if model.reference is not None:
            model.reference.logprobs = constant(-1.5)  # type: ignore[method-assign]
        worth = torch.tensor(0.1 * said.sum(0) * scale)
        expected = (pair_loss if mode == "istar" else outcome_loss)(worth, success)
        model.learner.step = lambda loss: float(loss)  # type: ignore[method-assign]
        figures = model.learn(traj)
        assert figures == pytest.approx(
            {"loss": expected[0].item(), "accuracy": expected[1], "tasks": 1.0}, rel=1e-5
        )


def test_it_learns_from_tasks_with_both_outcomes_alone() -> None:
    gold = talk(group=2)
    assert made().learn(gold) == {"tasks": 0.0}
    assert made(mode="prime").learn(gold) == {"tasks": 0.0}  # 100% is out of 20% to 80%
    assert made(mode="prime", accuracy=None).learn(gold)["tasks"] == 2.0
    assert made(mode="prime", accuracy=[0.6, 1.0]).learn(mixed()) == {"tasks": 0.0}


def test_an_episode_with_a_fault_is_not_learned_from() -> None:
    traj = mixed(worlds=4)
    traj.valid = traj.valid.copy()
    traj.valid[0, [1, 3]] = False  # those that failed
    assert made().learn(traj) == {"tasks": 0.0}


@pytest.mark.parametrize("mode", ["istar", "prime"])
def test_it_learns_which_episodes_and_turns_are_good(mode: str) -> None:
    model = made(mode=mode, lr=3e-3, beta=0.2)
    figures = [model.learn(mixed(seed)) for seed in range(8)]
    assert figures[0]["loss"] > 0.45 > 0.15 > figures[-1]["loss"]  # log 2: it knows nothing
    assert np.mean([one["accuracy"] for one in figures[-4:]]) > 0.9  # of talks new to it
    value = model.score({}, mixed(99))[1].value
    assert value[1, [0, 2]].min() > value[1, [1, 3]].max()  # the second door, against a dance
    assert abs(value[0, 0] - value[0, 1]) < 1e-5  # the first door is as good in both


def test_equal_seeds_learn_alike_and_go_on_from_a_checkpoint(tmp_path: Any) -> None:
    for mode in ("istar", "prime"):
        one, two = (made(mode=mode, lr=1e-3, seed=3) for _ in range(2))
        one.learn(mixed(0))
        two.load_state_dict(through_disk(one.state_dict(), tmp_path))
        for seed in (1, 2):
            assert one.learn(mixed(seed)) == two.learn(mixed(seed))
        traj = mixed(5)
        np.testing.assert_array_equal(one.score({}, traj)[1].value, two.score({}, traj)[1].value)


def test_a_run_that_had_not_begun_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    model = made(mode="prime")
    model.load_state_dict(through_disk(made(mode="prime").state_dict(), tmp_path))
    assert model.reference is None


def test_without_groups_it_has_nothing_to_compare() -> None:
    traj = replace(mixed(), group=None)
    with pytest.raises(UserError, match="env.group=8"):
        made().learn(traj)
    assert made(mode="prime", accuracy=None).learn(traj)["tasks"] == 8.0


@pytest.mark.parametrize(
    "bad",
    [{"mode": "x"}, {"lr": -1.0}, {"epochs": 0}, {"accuracy": [0.8, 0.2]}, {"temperature": 0.0}],
)
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(UserError, match=f"implicit_process.{next(iter(bad))}"):
        made(**bad)
