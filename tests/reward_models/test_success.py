"""The success classifier: what it learns, how it is saved, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from embodied.reward_models.success import SuccessClassifier

from embodied.dataset import Dataset
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.types import Moment
from tests.reward_models.episodes import INSTRUCTION, OTHER, PROPRIO, SPACE, demonstrations, flawed


def model(**options) -> SuccessClassifier:
    return SuccessClassifier(SPACE, PROPRIO, (INSTRUCTION,), **options)


def values(judge_model: SuccessClassifier, dataset: Dataset) -> np.ndarray:
    return np.concatenate([told.value for told in judge(judge_model, dataset.episodes)])


def truth(dataset: Dataset) -> np.ndarray:
    return np.concatenate([episode.success for episode in dataset.episodes])


@pytest.fixture(scope="module")
def fitted() -> SuccessClassifier:
    one = model()
    figures = one.fit(demonstrations(), [demonstrations(2, instruction=OTHER)], steps=300)
    assert figures["loss_after"] < 0.3 * figures["loss_before"]
    assert min(figures["accuracy_done"], figures["accuracy_not_done"]) > 0.9
    return one


def test_it_tells_done_from_not_done(fitted: SuccessClassifier) -> None:
    held_out = demonstrations(6, seed=9)
    told, done = values(fitted, held_out), truth(held_out)
    assert (told[done] > 0.5).mean() > 0.9 and (told[~done] < 0.5).mean() > 0.9
    assert (values(fitted, flawed("stops_short", 4)) < 0.5).all()


def test_a_rare_success_is_not_drowned() -> None:
    """One done frame in about three hundred: an unweighted loss would call everything undone."""
    scarce = [replace(e, success=e.success & False) for e in demonstrations(8).episodes]
    scarce[0].success[-1] = True
    one = model(wrong_instruction=0.0)
    one.fit(Dataset(demonstrations(1).info, scarce), steps=150)
    assert values(one, Dataset(demonstrations(1).info, scarce[:1]))[-1] > 0.5


def test_another_task_is_not_done(fitted: SuccessClassifier) -> None:
    ends = [episode.at(np.full(3, len(episode) - 1)) for episode in demonstrations(5).episodes]
    info = demonstrations(1).info
    assert values(fitted, Dataset(info, ends)).min() > 0.5
    astray = Dataset(info, [replace(episode, instruction=OTHER) for episode in ends])
    assert values(fitted, astray).max() < 0.5
    deaf = model(wrong_instruction=0.0)
    deaf.fit(demonstrations(), steps=200)
    assert values(deaf, astray).max() > 0.5


def test_it_learns_from_pixels_and_nothing_seen_is_not_done() -> None:
    one = model(input="pixels")
    one.fit(demonstrations(images=True), steps=120)
    held_out = demonstrations(4, seed=9, images=True)
    told, done = values(one, held_out), truth(held_out)
    assert told[done].mean() > told[~done].mean() + 0.4
    blank = held_out.episodes[0].at(np.full(4, len(held_out.episodes[0]) - 1))
    blank.images["front"][:] = 90
    assert values(one, Dataset(held_out.info, [blank])).max() < 0.5


def test_a_saved_model_scores_the_same(fitted: SuccessClassifier, tmp_path) -> None:
    fitted.save(tmp_path / "model")
    again = model(path=str(tmp_path / "model"), seed=5)
    assert (values(again, demonstrations(3)) == values(fitted, demonstrations(3))).all()


def test_a_fit_is_repeatable_and_leaves_the_global_randomness_alone() -> None:
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        one = model()
        one.fit(demonstrations(4), steps=5)
        runs.append(values(one, demonstrations(2)))
    assert (runs[0] == runs[1]).all()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("label", [False, True])
def test_one_class_alone_teaches_nothing(label: bool) -> None:
    dataset = demonstrations(3)
    for episode in dataset.episodes:
        episode.success[:] = label
    with pytest.raises(UserError, match=f"success labels are all {label:d}: give episodes"):
        model().fit(dataset)


def test_untrained_it_refuses_to_score() -> None:
    rewards = Rewards({"s": Channel("s", model(), threshold=0.5)}, 50, 0.9)
    with pytest.raises(UserError, match="success is untrained: `embodied fit reward_model=succ"):
        rewards.begin(Moment({"state": np.zeros((50, 9), np.float32)}))
