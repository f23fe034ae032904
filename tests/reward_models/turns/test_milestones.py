"""Milestones: progress between subgoals by hand, what the core makes of it, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.turns.milestones import Milestones, progress

from embodied.errors import UserError
from embodied.reward_model import Channel, start
from embodied.rewards import Rewards
from embodied.types import Trajectory
from tests.reward_models.turns.mixed import mixed
from tests.talks import lm
from tests.toys import through_disk

FAST: dict[str, Any] = {"lr": 1e-3, "head_lr": 1e-2, "updates": 20, "batch": 8}


def made(**settings: Any) -> Milestones:
    return Milestones(lambda: lm().clone(), **settings)


def paid(model: Milestones, traj: Trajectory, shaping: str = "delta") -> np.ndarray:
    traj = replace(traj, reward_terms={}, valid=traj.valid.copy())
    channel = Channel("m", model, whole=True, shaping=shaping, threshold=2.0, weight=0.5)
    rewards = Rewards({"m": channel}, traj.shape[1], 1.0)
    rewards.begin(start(traj, 0))
    rewards.label(traj, np.tile(np.arange(traj.shape[0])[:, None], traj.shape[1]))
    return traj.reward


def test_progress_by_hand() -> None:
    """Three subgoals, reached after the second, third and sixth turn."""
    target = progress(np.array([0, 1, 2, 2, 2, 3]), 3)
    np.testing.assert_allclose(target * 18, [0, 3, 6, 12, 14, 16, 18], rtol=1e-6)


def test_after_the_last_that_was_reached_progress_stands_still() -> None:
    np.testing.assert_allclose(progress(np.array([0, 1, 1, 1]), 2), [0, 0.25, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(progress(np.array([0, 0]), 2), [0, 0, 0])


def test_two_subgoals_reached_at_once() -> None:
    """The first of them is headed for: (1 - a) 0/4 + a 1/4; then both count."""
    np.testing.assert_allclose(progress(np.array([0, 2, 2, 3]), 4) * 8, [0, 1, 4, 5, 6])


def test_what_is_undone_later_has_been_reached() -> None:
    np.testing.assert_array_equal(progress(np.array([1, 0]), 2), [0, 0.5, 0.5])


def test_the_places_are_states_and_the_targets_their_progress() -> None:
    traj, model = mixed(worlds=4), made()
    following = traj.next_obs["text"]
    gold, one_door = model._states(traj, 0, following), model._states(traj, 1, following)
    assert gold.targets.tolist() == [0.0, 0.5, 1.0]
    assert one_door.targets.tolist() == [0.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    ends = [len(traj.extras["context"][t, 0]) - 1 for t in range(2)]
    assert len(gold.lengths) == 1 and gold.places[:2].tolist() == ends


def test_a_turn_is_paid_what_its_state_is_further_by_hand() -> None:
    traj, model = mixed(worlds=4), made()
    told = [0.25, 0.5, 0.375, -3.0, 1.0, 7.0]  # P is within 0 to 1
    model.learner.judge = (
        lambda parts: [  # type: ignore[method-assign]
            np.array(told[: len(part.places)], np.float32) for part in parts
        ]
    )
    reward = paid(model, traj)
    np.testing.assert_array_equal(reward[:, 0], [0.125, -0.0625, 0, 0, 0])
    np.testing.assert_array_equal(reward[:, 1], [0.125, -0.0625, -0.1875, 0.5, 0.0])
    reward = paid(model, traj, "potential")  # 0 after the end, which a limit of turns is too
    np.testing.assert_array_equal(reward[:, 0], [0.125, -0.25, 0, 0, 0])
    np.testing.assert_array_equal(reward[:, 1], [0.125, -0.0625, -0.1875, 0.5, -0.5])


def test_the_first_text_alone_tells_where_an_episode_starts() -> None:
    traj, model = mixed(worlds=4), made()
    assert model.learner.head is not None
    noise = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.learner.head.weight, 0.0, 0.02, generator=noise)
    torch.nn.init.constant_(model.learner.head.bias, 0.5)
    first = model.begin({}, np.array([True, True, False, True]), start(traj, 0))[1]
    following = traj.next_obs["text"]
    parts = model.learner.judge([model._states(traj, n, following) for n in range(4)])
    expected = np.clip([part[0] for part in parts], 0, 1) * [1, 1, 0, 1]
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert 0 < first[0] < 1 and first[0] != 0.5


def test_before_it_has_learned_it_pays_nothing() -> None:
    assert not paid(made(), mixed()).any()


@pytest.mark.parametrize("body", [True, False])
def test_it_learns_to_rise_where_doors_open(body: bool) -> None:
    model = made(train_body=body, **FAST | ({} if body else {"head_lr": 0.05}))
    errors = [model.learn(mixed(seed))["error"] for seed in range(8 if body else 40)]
    assert errors[-1] < 0.15 < 0.3 < errors[0]
    reward = paid(model, mixed(99)) / 0.5
    assert (reward[:2, [0, 2, 4, 6]] > 0.25).all()  # each of the two doors is worth 0.5
    assert (reward[0, [1, 5]] > 0.25).all()
    assert np.abs(reward[1:, [1, 5]]).max() < 0.25 and np.abs(reward[:, [3, 7]]).max() < 0.25


def test_it_pays_once_it_has_explored_also_after_a_checkpoint(tmp_path: Any) -> None:
    model = made(explore=16, **FAST)
    model.learn(mixed(0, worlds=8))
    assert not paid(model, mixed(9)).any()
    other = made(explore=16, **FAST)
    other.load_state_dict(through_disk(model.state_dict(), tmp_path))
    other.learn(mixed(1, worlds=8))
    assert paid(other, mixed(9)).any()


def test_it_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    one, two = made(seed=3), made(seed=3)
    one.learn(mixed(0))
    two.load_state_dict(through_disk(one.state_dict(), tmp_path))
    assert one.learn(mixed(1)) == two.learn(mixed(1))
    traj = mixed(2)
    np.testing.assert_array_equal(one.score({}, traj)[1].value, two.score({}, traj)[1].value)


def test_nothing_ended_is_nothing_to_learn_from() -> None:
    assert made().learn(mixed(worlds=4).slice(0, 1)) == {}


@pytest.mark.parametrize(
    "bad", [{"updates": 0}, {"lr": -1.0}, {"head_lr": -1.0}, {"episodes": 0}, {"explore": -1}]
)
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(UserError, match=f"milestones.{next(iter(bad))}"):
        made(**bad)
