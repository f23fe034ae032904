"""The pairwise model: labels and integration by hand; and that each mechanism is needed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from embodied.reward_models.pairwise import (
    Pairwise,
    _Lesson,
    critique,
    finished,
    integrate,
    still,
)

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.progress_metrics import voc
from embodied.types import ABSTAINED
from tests.reward_models.episodes import OTHER, PROPRIO, SPACE, demonstrations, flawed


@cache
def fitted(**options) -> Pairwise:
    model = Pairwise(SPACE, PROPRIO, **options)
    others = [demonstrations(2, seed=9, instruction=OTHER)]
    model.fit(demonstrations(15), others, steps=400)
    return model


def values(model: Pairwise, dataset: Dataset, every: int = 1) -> list[np.ndarray]:
    return [judged.value for judged in judge(model, dataset.episodes, every)]


def _there_and_back(episode: Episode) -> Episode:
    return episode.at(np.concatenate([np.arange(len(episode)), np.arange(len(episode))[::-1]]))


# --- integration and labels, by hand


@pytest.mark.parametrize(
    ("value", "change", "expected"),
    [
        (0.0, 25.0, 25.0),
        (50.0, 20.0, 60.0),  # a fifth of what is left
        (90.0, 100.0, 100.0),
        (40.0, 0.0, 40.0),
        (60.0, -20.0, 50.0),  # undoes 50 -> 60: 100 - 100 * 40 / 80
        (60.0, -90.0, 10.0),  # not below 10
        (60.0, -100.0, 10.0),
        (100.0, -50.0, 98.0),  # at least 1 counts as left: 100 - 100 * 1 / 50
        (50.0, -20.0, 40.0),  # from 50 down a share of what there is
        (8.0, -100.0, 0.0),
    ],
)
def test_integration_by_hand(value: float, change: float, expected: float) -> None:
    told = integrate(torch.tensor([value]), torch.tensor([change]))
    torch.testing.assert_close(told, torch.tensor([expected]))


def test_above_the_middle_a_reverse_pair_undoes_the_forward_one() -> None:
    value, change = torch.meshgrid(
        torch.linspace(51, 90, 9), torch.linspace(0, 80, 9), indexing="ij"
    )
    back = integrate(integrate(value, change), -change)
    torch.testing.assert_close(back, value, rtol=1e-4, atol=1e-3)


def test_labels_by_hand() -> None:
    model = Pairwise(SPACE, PROPRIO)
    table = model.table(_moving(11))
    before, after = torch.tensor([0, 0, 5, 5, 5, 10, 4]), torch.tensor([5, 10, 6, 10, 0, 9, 4])
    expected = torch.tensor([0.5, 1.0, 0.2, 1.0, -0.5, -1.0, 0.0])
    torch.testing.assert_close(critique(table, before, after), expected)
    torch.testing.assert_close(critique(table, after, before), -expected)


def _moving(count: int) -> Dataset:
    """One episode in which everything moves at one pace."""
    data = demonstrations(1)
    episode = data.episodes[0].at(np.zeros(count, int))
    episode.state[:] = np.arange(count)[:, None]
    episode.success[-1] = True
    return Dataset(data.info, [episode])


def test_still_pairs_are_no_progress() -> None:
    data = _moving(11)
    data.episodes[0].state[3] = data.episodes[0].state[2] + 0.05  # half a percent of the range
    table = Pairwise(SPACE, PROPRIO).table(data)
    pairs = torch.tensor([2, 2]), torch.tensor([3, 4])
    assert still(table, *pairs).tolist() == [True, False]
    torch.testing.assert_close(critique(table, *pairs), torch.tensor([0.0, 0.25]))


def test_a_change_in_the_image_alone_is_a_change() -> None:
    data = demonstrations(1, images=True)
    data.episodes[0].state[:] = 0.0
    data.episodes[0].images["front"][:] = 40
    data.episodes[0].images["front"][1, :2, :8] = 200  # 16 of 1024 pixels
    data.episodes[0].images["front"][2, :1, :8] = 200  # 8 of them
    table = Pairwise(SPACE, PROPRIO, input="pixels").table(data)
    pairs = torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3])
    assert still(table, *pairs).tolist() == [False, True, True]


def test_done_is_said_of_the_end_and_not_of_the_part_before() -> None:
    table = Pairwise(SPACE, PROPRIO).table(_moving(40))
    done, known = finished(table, torch.arange(40))
    assert done.tolist() == [0.0] * 38 + [1.0] * 2
    assert known.tolist() == [True] * 31 + [False] * 7 + [True] * 2


def test_pairs_are_short_and_long_and_run_both_ways() -> None:
    model, data = Pairwise(SPACE, PROPRIO, stride=3, rewind=0.25), demonstrations(3)
    table = model.table(data)
    before, after = _Lesson(model, table, data, [])._pairs(4000, torch.Generator().manual_seed(0))
    assert (table.episode[before] == table.episode[after]).all()
    gap = (after - before).numpy()
    assert 0.2 < (gap < 0).mean() < 0.3
    assert (np.abs(gap) <= 6).mean() > 0.5 and (np.abs(gap) > 15).mean() > 0.1


# --- what it learns


def test_it_rises_on_experts_and_falls_on_the_way_back() -> None:
    experts = demonstrations(6, seed=7)
    told = values(fitted(), experts)
    assert np.mean([voc(value) for value in told]) >= 0.9
    for episode in experts.episodes[:3]:
        value = judge(fitted(), [_there_and_back(episode)])[0].value
        assert value.max() > 0.8 and value[-1] < 0.6 * value.max()
        assert voc(value[len(episode) :]) < -0.8


def test_reverse_pairs_are_what_takes_it_all_back() -> None:
    episodes = [_there_and_back(e) for e in demonstrations(4, seed=7).episodes]
    left = [
        np.mean([judged.value[-1] for judged in judge(model, episodes)])
        for model in (fitted(), fitted(rewind=0.0))
    ]
    assert left[0] < 0.3 and left[1] > 0.7


def test_the_done_head_decides_between_all_and_nearly_all() -> None:
    experts, failures = demonstrations(6, seed=7), flawed("stops_short", 6)
    assert np.mean([value[-1] == 1.0 for value in values(fitted(), experts)]) >= 0.8
    assert max(value.max() for value in values(fitted(), failures)) <= 0.99
    told = np.concatenate(values(fitted(), experts))
    assert not ((told > 0.99) & (told < 1.0)).any()


def test_other_words_are_other_tasks() -> None:
    data = demonstrations(4, seed=7)
    told = Dataset(data.info, [replace(e, instruction=OTHER) for e in data.episodes])
    model = Pairwise(SPACE, PROPRIO, mismatch=0.3)
    model.fit(demonstrations(10), [demonstrations(1, seed=9, instruction=OTHER)], steps=300)
    assert np.mean([value[-1] for value in values(model, told)]) < 0.5
    deaf = fitted(mismatch=0.0)
    assert np.mean([value[-1] for value in values(deaf, told)]) > 0.8


def test_standing_still_is_no_progress() -> None:
    frozen = [e.at(np.zeros(60, int)) for e in demonstrations(4, seed=7).episodes]
    for judged in judge(fitted(), frozen):
        assert (judged.value == judged.value[0]).all()


def test_asking_more_often_adds_nothing_up_twice() -> None:
    """At the ends of strides the value is the same, whether it was asked in between or not."""
    experts = demonstrations(3, seed=7)
    often, seldom = values(fitted(), experts), values(fitted(), experts, every=5)
    for a, b in zip(often, seldom, strict=True):
        np.testing.assert_allclose(a[::5], b[::5], atol=1e-5)


def test_from_pixels_it_rises_and_abstains_from_blank_images() -> None:
    model = Pairwise(SPACE, PROPRIO, input="pixels")
    model.fit(demonstrations(12, images=True), steps=150)
    experts = demonstrations(4, seed=7, images=True)
    assert np.mean([voc(value) for value in values(model, experts)]) >= 0.8
    blank = experts.episodes[0].at(np.arange(30))
    blank.images["front"][:] = 128
    judged = judge(model, [blank])[0]
    assert (judged.status[1:] == ABSTAINED).mean() > 0.9 and judged.value[1:].max() < 0.1


# --- files and bad input


def test_it_is_saved_whole(tmp_path) -> None:
    data = demonstrations(2, seed=7)
    fitted().save(tmp_path / "pairwise")
    loaded = Pairwise(SPACE, PROPRIO, path=str(tmp_path / "pairwise"))
    for ours, theirs in zip(values(fitted(), data), values(loaded, data), strict=True):
        assert (ours == theirs).all()


@pytest.mark.parametrize("options", [{"rewind": -0.1}, {"mismatch": 1.1}, {"stride": 0}])
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        Pairwise(SPACE, PROPRIO, **options)


def test_wrong_demonstrations_are_refused() -> None:
    model = Pairwise(SPACE, PROPRIO)
    with pytest.raises(UserError, match="episode 0 ends without success"):
        model.fit(flawed("stops_short", 2))
    data = demonstrations(1)
    with pytest.raises(UserError, match="episode 0 is done from its first frame"):
        model.fit(Dataset(data.info, [data.episodes[0].at([-1] * 9)]))
    with pytest.raises(UserError, match="nothing to learn"):
        still = replace(data.episodes[0].at([0] * 9), success=np.arange(9) == 8)
        model.fit(Dataset(data.info, [still]))
    with pytest.raises(UserError, match="untrained"):
        judge(model, data.episodes)
