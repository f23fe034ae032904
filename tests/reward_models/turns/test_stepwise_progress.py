"""Stepwise progress: the sum that is learned, what is paid for it, and what is hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.turns.episodes import marked, together
from embodied.reward_models.turns.stepwise_progress import StepwiseProgress, sum_loss

from embodied.errors import UserError
from tests.reward_models.turns.mixed import mixed
from tests.talks import lm
from tests.toys import through_disk

FAST: dict[str, Any] = {"lr": 1e-3, "head_lr": 1e-2, "updates": 20, "batch": 8}


def made(**settings: Any) -> StepwiseProgress:
    return StepwiseProgress(lambda: lm().clone(), **settings)


def credited(model: StepwiseProgress, credit: list[float]) -> None:
    """Let the first, second, ... place of every episode have a credit that is known."""
    model.learner.judge = (
        lambda parts: [  # type: ignore[method-assign]
            np.array(credit[: len(part.places)], np.float32) for part in parts
        ]
    )


def test_the_loss_by_hand() -> None:
    tokens = np.arange(3)
    data = together(
        [
            marked([tokens[:1], tokens[:2], tokens], [0.0, 0.0, 1.0]),
            marked([tokens[:1], tokens[:2]], [0.0, 0.0]),
        ]
    )
    loss = sum_loss(torch.tensor([0.25, 0.25, 0.0, 0.5, 0.25]), data)
    assert loss.item() == pytest.approx((0.5**2 + 0.75**2) / 2)


def test_what_is_paid_by_hand() -> None:
    traj, model = mixed(worlds=4), made(alpha=2.0, beta=0.25)
    credited(model, [0.5, -0.25, 0.125, 0.0, 1.0])
    value = model.score({}, traj)[1].value
    np.testing.assert_array_equal(value[:, 0], [1.25, -0.25, 0.0, 0.0, 0.0])  # two turns, then rest
    np.testing.assert_array_equal(value[:, 1], [1.25, -0.5, 0.25, 0.0, 2.0])  # "dance": not valid
    np.testing.assert_array_equal(value[:, 3], [1.0, -0.5, 0.25, 0.0, 2.0])


def test_credit_is_bounded_and_the_last_turn_hidden() -> None:
    traj, model = mixed(worlds=4), made(beta=0.0, bound=0.25, hide_last=True)
    credited(model, [0.5, -0.75, 0.125, -0.5, 1.0])
    value = model.score({}, traj)[1].value
    np.testing.assert_array_equal(value[:, 0], [0.25, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(value[:, 1], [0.25, -0.25, 0.125, -0.25, 0.0])
    assert model.value_range == (-0.25, 0.25)


def test_before_it_has_learned_it_pays_valid_turns_alone() -> None:
    traj = mixed()
    value = made().score({}, traj)[1].value
    np.testing.assert_array_equal(value, 0.5 * (traj.valid & traj.readouts["world.valid"]))


def test_without_alpha_nothing_is_learned() -> None:
    traj, model = mixed(worlds=4), made(alpha=0.0, **FAST)
    before = model.score({}, traj)[1].value
    assert model.learn(traj) == {} and not model.memory.kept
    np.testing.assert_array_equal(model.score({}, traj)[1].value, before)
    assert before.max() == 0.5


def test_the_sum_learns_to_be_the_outcome() -> None:
    model = made(**FAST)
    errors = [model.learn(mixed(seed))["error"] for seed in range(8)]
    assert errors[0] == 0.5  # 0 for all, of which half succeeded
    assert errors[-1] < 0.2
    total = model.credit(mixed(99)).sum(0)
    assert np.abs(total - np.tile([1, 0, 1, 0], 2)).max() < 0.5


def test_the_head_alone_learns_the_talks_it_was_given() -> None:
    model, traj = made(train_body=False, head_lr=0.01, updates=100, batch=8), mixed()
    before = [p.clone() for p in lm().trained().values()]
    errors = [model.learn(traj)["error"] for _ in range(8)]
    assert errors[0] == 0.5 and errors[-1] < 0.2
    after = model.learner.lm.trained().values()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_it_pays_no_credit_before_it_has_explored() -> None:
    model, traj = made(explore=9, beta=0.0, **FAST), mixed(worlds=8)
    model.learn(traj)
    assert any(c.any() for c in model.judge(model._episodes(traj)))  # it knows something
    assert not model.score({}, traj)[1].value.any()
    model.learn(traj)
    assert model.score({}, traj)[1].value.any()


def test_with_the_last_turn_hidden_those_before_tell_the_outcome() -> None:
    """One door opened leads to success in two of three talks: that is what its turn is worth."""
    model = made(hide_last=True, **FAST)
    figures: dict[str, float] = {}
    for seed in range(8):
        figures = model.learn(mixed(seed))
    assert "last" not in figures
    traj = mixed(99)
    credit = model.credit(traj)
    np.testing.assert_array_equal(credit[traj.terminated | traj.truncated], 0.0)
    assert (credit[0, [0, 2]] > 0.5).all()
    assert np.abs(credit.sum(0)[[1, 3]]).max() < 0.3


def test_episodes_of_one_turn_teach_nothing_with_it_hidden() -> None:
    traj = mixed(worlds=4).slice(0, 1)
    traj.truncated, traj.due = np.ones((1, 4), bool), None
    assert made(hide_last=True).learn(traj) == {}
    assert made().learn(traj).keys() == {"loss", "error"}  # none succeeded


def test_it_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    one, two = made(seed=3), made(seed=3)
    one.learn(mixed(0))
    two.load_state_dict(through_disk(one.state_dict(), tmp_path))
    assert one.learn(mixed(1)) == two.learn(mixed(1))
    np.testing.assert_array_equal(one.credit(mixed(2)), two.credit(mixed(2)))


@pytest.mark.parametrize("bad", [{"bound": -1.0}, {"updates": 0}, {"lr": -1.0}, {"episodes": 0}])
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(UserError, match=f"stepwise_progress.{next(iter(bad))}"):
        made(**bad)
