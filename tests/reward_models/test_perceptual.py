"""Perceptual rewards: segments, selected features and the sum by hand; what selection is for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.perceptual import Perceptual, apartness, segments

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.progress_metrics import voc
from embodied.types import ABSTAINED
from tests.reward_models.episodes import INSTRUCTION, OTHER, PROPRIO, SPACE, demonstrations, flawed


def model(**settings: Any) -> Perceptual:
    return Perceptual(SPACE, PROPRIO, (INSTRUCTION,), **settings)


@cache
def fitted(features: int | None = 5) -> Perceptual:
    told = model(features=features)
    told.fit(demonstrations(8))
    return told


def values(told: Perceptual, episodes: list[Episode]) -> list[np.ndarray]:
    return [judged.value for judged in judge(told, episodes)]


def ends(told: Perceptual, episodes: list[Episode]) -> np.ndarray:
    return np.array([value[-1] for value in values(told, episodes)])


def held_out() -> list[Episode]:
    return demonstrations(8, seed=7).episodes


# --- by hand


def test_segments_by_hand() -> None:
    path = np.array([[0.0], [0.1], [5.0], [5.1], [5.2], [9.0]])
    assert segments(path, 3).tolist() == [0, 0, 1, 1, 1, 2]
    assert segments(path, 1).tolist() == [0] * 6
    assert segments(path, 6).tolist() == [0, 1, 2, 3, 4, 5]
    # with at least two frames each the last must take one from the middle
    assert segments(path, 3, shortest=2).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("shortest", [1, 2, 3])
def test_no_other_cuts_deviate_less(shortest: int) -> None:
    rng = np.random.default_rng(shortest)
    for _ in range(10):
        path = rng.normal(size=(11, 3)).cumsum(0)
        found = segments(path, 3, shortest)
        assert np.bincount(found).min() >= shortest
        costs = [
            _deviation(path, np.searchsorted(cuts, np.arange(11), side="right"))
            for cuts in combinations(range(1, 11), 2)
            if min(np.diff([0, *cuts, 11])) >= shortest
        ]
        assert _deviation(path, found) == pytest.approx(min(costs))


def _deviation(path: np.ndarray, which: np.ndarray) -> float:
    parts = [path[which == k] for k in range(which.max() + 1)]
    return float(sum(((part - part.mean(0)) ** 2).sum() for part in parts))


def test_a_feature_is_worth_its_distance_less_half_its_deviations() -> None:
    inside = torch.tensor([[3.0, 1.0, 0.0], [5.0, 1.0, 0.0]])  # means 4, 1, 0; deviations 1, 0, 0
    outside = torch.tensor([[0.0, 0.0, 4.0], [0.0, 2.0, 0.0]])  # means 0, 1, 2; 0, 1, 2
    assert apartness(inside, outside).tolist() == [4.0 - 0.5, 0.0 - 0.5, 2.0 - 1.0]


def test_steps_keep_the_features_that_set_them_apart() -> None:
    """Of four features the first tells step 0, the second step 1, the third nothing; the last
    never changes."""
    step = torch.tensor([0, 0, 1, 1])
    rows = torch.zeros(4, SPACE["state"].shape[0] + 1)
    rows[:, :3] = torch.tensor([[2, 0, -1], [2, 0.1, 1], [0, 3, -1], [0.1, 3, 1.0]])
    told = model(segments=2)
    told.net.learn(rows, step, 1)
    assert [row.nonzero().flatten().tolist() for row in told.net.kept] == [[1], [1]]
    told.net.learn(rows, step, 2)
    assert [row.nonzero().flatten().tolist() for row in told.net.kept] == [[0, 1], [0, 1]]
    told.net.learn(rows, step, None)
    assert told.net.kept.nonzero()[:, 1].tolist() == [0, 1, 2] * 2
    torch.testing.assert_close(told.net.mean[:, :2], torch.tensor([[2, 0.05], [0.05, 3]]))


def test_how_a_state_fits_and_what_it_pays_by_hand() -> None:
    told, size = model(segments=3), SPACE["state"].shape[0] + 1
    told.net.kept[:, :2] = 1.0
    told.net.mean[:, 0] = torch.tensor([0.0, 10.0, 20.0])
    told.net.spread[:, 0] = 2.0
    states = torch.zeros(4, size)
    states[:, 0] = torch.tensor([10.0, 12.0, 14.0, 20.0])
    told.net.scale.limit = 100.0
    fits = told.net.fits(states)
    # squared, 0, 1, 4 deviations off where two are to be expected of two features
    torch.testing.assert_close(fits[:3, 1], torch.tensor([1.0, 1.0, np.exp(-1.0)]).float())
    assert fits[3, 2] == 1.0
    # step 2 of 3 pays 2, step 3 pays 4: the half, and the whole
    torch.testing.assert_close(told.net(states[[0, 3]]), torch.tensor([0.5, 1.0]))


# --- what it learns


def test_experts_rise_to_the_end_and_failures_do_not_reach_it() -> None:
    told = fitted()
    assert np.mean([voc(value) for value in values(told, held_out())]) > 0.9
    assert ends(told, held_out()).mean() > 0.9
    for kind in ("stops_short", "undoes"):
        assert ends(told, flawed(kind, 6).episodes).mean() < 0.6, kind


def test_it_tells_no_time_and_sees_what_is_undone() -> None:
    for value in values(fitted(), [e.at(np.zeros(60, int)) for e in held_out()]):
        assert (value == value[0]).all() and value[0] < 0.3
    back = values(fitted(), [e.at(slice(None, None, -1)) for e in held_out()])
    assert np.mean([voc(value) for value in back]) < -0.9


def test_far_from_all_that_was_shown_it_is_worth_nothing() -> None:
    far = [replace(e, state=e.state + 5.0) for e in held_out()]
    assert max(value.max() for value in values(fitted(), far)) < 1e-3


def test_selection_is_what_lets_it_overlook_the_rest() -> None:
    """Two numbers that say nothing become others than any demonstration had."""
    odd = held_out()
    for episode in odd:
        episode.state[:, -2:] += 6.0
    assert ends(fitted(), odd).mean() > 0.9
    assert ends(fitted(features=None), odd).mean() < 0.1


def test_it_heeds_only_the_words_of_its_demonstrations() -> None:
    other = [replace(e, instruction=OTHER) for e in held_out()]
    assert ends(fitted(), other).max() == 0.0


def test_from_pixels_it_rises_and_abstains_from_what_shows_nothing() -> None:
    told = model(input="pixels", features=16)
    figures = told.fit(demonstrations(8, images=True), steps=120)
    assert figures["loss_after"] < 0.8 * figures["loss_before"]
    shown = demonstrations(4, seed=7, images=True).episodes
    assert np.mean([voc(value) for value in values(told, shown)]) > 0.5
    assert ends(told, shown).mean() > 0.7
    black = [replace(e, images={"front": 0 * e.images["front"]}) for e in shown]
    for verdict in judge(told, black):
        assert (verdict.status[1:] == ABSTAINED).all() and not verdict.value.any()


# --- files and bad input


def test_a_saved_model_says_the_same(tmp_path) -> None:
    fitted().save(tmp_path / "m")
    again = model(features=5, seed=3, path=str(tmp_path / "m"))
    for a, b in zip(values(again, held_out()), values(fitted(), held_out()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"segments": 1}, "segments=1"), ({"features": 0}, "features=0")],
)
def test_wrong_options_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model(**settings)


def test_wrong_demonstrations_are_refused() -> None:
    data = demonstrations(3)
    short = Dataset(data.info, [data.episodes[0], data.episodes[1].at(np.arange(5))])
    with pytest.raises(UserError, match="episode 1 has 5 frames: leave it out, at least 6"):
        model().fit(short)
    still = Dataset(data.info, [data.episodes[0].at(np.zeros(30, int))])
    with pytest.raises(UserError, match="no feature of the demonstrations ever changes"):
        model().fit(still)
    many = [replace(data.episodes[0], instruction=f"task {k}") for k in range(17)]
    with pytest.raises(UserError, match="17 instructions: give demonstrations of at most 16"):
        model().fit(Dataset(data.info, many))
    with pytest.raises(UserError, match="perceptual is untrained"):
        judge(model(), data.episodes)
