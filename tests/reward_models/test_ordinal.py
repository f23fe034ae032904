"""The ordinal model: what clips deserve, by hand; what counterfactuals and clipping are for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.negatives import ELSEWHERE, mixed, told_otherwise, words
from embodied.reward_models.ordinal import Ordinal, clip_scores, counterfactual_score
from embodied.reward_models.watchful import WatchfulEncoder, texture

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.reward_model import Channel, start
from embodied.rewards import Rewards
from embodied.types import ABSTAINED
from tests.reward_models.episodes import (
    INSTRUCTION,
    OTHER,
    PROPRIO,
    SPACE,
    demonstrations,
    flawed,
)

STEPS = 250


def model(**settings: Any) -> Ordinal:
    return Ordinal(SPACE, PROPRIO, (INSTRUCTION,), **settings)


def others(images: bool = False) -> list[Dataset]:
    data = demonstrations(4, seed=9, images=images, instruction=OTHER)
    return [Dataset(replace(data.info, stages=("find the button", "push it")), data.episodes)]


@cache
def fitted(counterfactuals: float = 0.3, clipping: bool = True) -> Ordinal:
    judge_ = model(counterfactuals=counterfactuals, clipping=clipping, members=1)
    judge_.fit(demonstrations(15), others(), steps=STEPS)
    return judge_


def scores(ordinal: Ordinal, episodes: list[Episode]) -> np.ndarray:
    """The mean score, 1 to 5, at the end of clips."""
    return np.array([1.0 + 4.0 * told.value[-1] for told in judge(ordinal, episodes)])


def held_out() -> list[Episode]:
    return demonstrations(8, seed=5).episodes


def clip(stages: list[int], success: list[int], names: tuple[str, ...]) -> Dataset:
    """A demonstration of these stages."""
    data = demonstrations(1)
    episode = data.episodes[0].at(np.zeros(len(stages), int))
    episode = replace(episode, stage=np.array(stages), success=np.array(success, bool))
    return Dataset(replace(data.info, stages=names), [episode])


def test_what_clips_deserve_by_hand() -> None:
    three = clip([0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 1, 0], ("a", "b", "c"))
    # none, 1/3 and 2/3 of the stages: 1, 1 + 4/3 = 2.3 and 1 + 8/3 = 3.7; 5 from success on
    assert clip_scores(three).tolist() == [1, 1, 2, 2, 4, 5, 5]
    five = clip([0, 1, 2, 3, 4, 4], [0, 0, 0, 0, 0, 1], tuple("abcde"))
    assert clip_scores(five).tolist() == [1, 2, 3, 3, 4, 5]  # 1, 1.8, 2.6, 3.4, 4.2
    lost = clip([0, 1, 2, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0, 1], ("a", "b", "c"))
    assert clip_scores(lost).tolist() == [1, 2, 4, 1, 2, 4, 5]  # what is lost counts no more
    assert clip_scores(three, clipping=False).tolist() == [0, 0, 0, 0, 0, 5, 5]


@pytest.mark.parametrize(
    ("text", "deserves"),
    [
        ("wave to the people", 1),  # nothing in common
        ("press the cube of ice twice", 2),  # cube: 1 of 4 words
        ("push the cube to the goal", 3),  # cube and goal: 2 of 3
        ("lift the lamp", 3),  # lift: 1 of 2
        ("find some very small cheap lamp", 1),  # 0 of 6
    ],
)
def test_what_other_instructions_deserve_by_hand(text: str, deserves: int) -> None:
    right = ("pick up the cube and hold it at the goal", "lift the red block")
    assert counterfactual_score(text, right) == deserves


def test_a_task_that_begins_alike_deserves_more() -> None:
    ours = ("reach the cube", "grasp it", "lift it", "bring it", "hold it")
    for stages, deserves in (
        (("open the drawer",), 1),
        (("reach the cube", "push it", "stop", "leave"), 2),  # 1 of 4
        (("reach the cube", "grasp it", "shake it"), 3),  # 2 of 3
    ):
        assert counterfactual_score("wave", ("lift a cube",), stages, ours) == deserves


def test_expected_scores_by_hand() -> None:
    """Four thresholds around a score of zero: a value is the mean of P(n > k)."""
    one = model(members=1)
    with torch.no_grad():
        for weights in one.net.members.parameters():
            weights.zero_()
        one.net.gaps.fill_(float(np.log(np.e - 1)))  # softplus of that is 1
    shown = torch.ones(1, 65)
    logits = one.net(shown[:, None], shown, torch.zeros(1, 64))
    np.testing.assert_allclose(logits.detach()[0, 0], [1.0, 0.0, -1.0, -2.0], atol=1e-5)
    value = one.read(shown[:, None], torch.zeros(1, 64), {"first": shown}, True)[0]
    expected = np.mean(1 / (1 + np.exp([-1.0, 0.0, 1.0, 2.0])))
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_it_learns_what_clips_deserve() -> None:
    told = fitted()
    assert scores(told, held_out()).mean() > 4.0
    halves = [e.at(slice(0, int((e.stage == 1).argmax()) + 4)) for e in held_out()]
    assert abs(scores(told, halves).mean() - 2.0) < 0.5
    for flaw, low, high in (("stops_short", 1.5, 2.5), ("undoes", 1.0, 2.5), ("slow", 3.5, 5.0)):
        assert low < scores(told, flawed(flaw, 6).episodes).mean() < high, flaw


def test_a_reversed_clip_has_done_nothing_and_a_frozen_one_stays() -> None:
    backward = [e.at(slice(None, None, -1)) for e in held_out()]
    assert scores(fitted(), backward).mean() < 1.3
    frozen = judge(fitted(), [e.at(np.zeros(60, int)) for e in held_out()])
    for told in frozen:
        np.testing.assert_allclose(told.value, told.value[0], atol=1e-6)
        assert told.value[0] < 0.1


def test_only_counterfactuals_teach_it_to_read() -> None:
    other = [replace(episode, instruction=OTHER) for episode in held_out()]
    assert scores(fitted(), other).mean() < 1.5
    assert scores(fitted(counterfactuals=0.0), other).mean() > 4.0


def test_only_clipping_teaches_it_that_half_done_is_not_done() -> None:
    halves = [e.at(slice(0, int((e.stage == 1).argmax()) + 4)) for e in held_out()]
    assert scores(fitted(), halves).mean() < 2.5
    assert scores(fitted(clipping=False), halves).mean() > 4.0


def test_it_pays_once_at_the_end_of_an_episode() -> None:
    from embodied.judgement import as_trajectory
    from tests.toys import episode_step

    traj = as_trajectory(held_out()[:3])
    traj.valid[:] = True
    rewards = Rewards({"m": Channel("m", fitted(), every=10**6)}, 3, 0.99)
    rewards.begin(start(traj, 0))
    rewards.label(traj, episode_step(traj))
    paid = traj.reward != 0.0
    np.testing.assert_array_equal(paid, traj.truncated)
    np.testing.assert_allclose(
        1.0 + 4.0 * traj.reward[paid].sum() / 3, scores(fitted(), held_out()[:3]).mean(), atol=1e-4
    )


def test_from_pixels_it_learns_and_abstains_from_what_shows_nothing() -> None:
    told = model(input="pixels", members=1)
    data = demonstrations(10, images=True)
    told.fit(data, others(images=True), steps=150)
    shown = demonstrations(4, seed=5, images=True).episodes
    backward = [e.at(slice(None, None, -1)) for e in shown]
    assert scores(told, shown).mean() > scores(told, backward).mean() + 1.0
    black = [replace(e, images={"front": 0 * e.images["front"]}) for e in shown]
    for verdict in judge(told, black):
        assert (verdict.status[1:] == ABSTAINED).mean() > 0.9
        assert not verdict.value[1:][verdict.status[1:] == ABSTAINED].any()


def test_a_saved_model_says_the_same(tmp_path) -> None:
    fitted().save(tmp_path / "m")
    again = model(members=1, seed=3, path=str(tmp_path / "m"))
    for a, b in zip(judge(again, held_out()), judge(fitted(), held_out()), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_longer_window_is_to_be_fed() -> None:
    Channel("m", model(window=3, stride=5), every=5)
    with pytest.raises(UserError, match="remembers states 5 steps apart"):
        Channel("m", model(window=3, stride=5), every=10**6)


def spoilt(name: str) -> Dataset:
    data = demonstrations(3)
    episode = data.episodes[1]
    if name == "fails":
        episode.success[:] = False
    elif name == "unlabelled":
        episode.stage[4] = -1
    elif name == "skips":
        episode.stage[episode.stage == 1] = 0
    return data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "episode 1 never succeeds"),
        ("unlabelled", "episode 1: frame 4 has no stage"),
        ("skips", "episode 1 never is in stage"),
    ],
)
def test_bad_demonstrations_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model().fit(spoilt(name))


def test_nothing_to_tell_apart_is_refused() -> None:
    with pytest.raises(UserError, match="counterfactuals=0, clipping=false: all are 5"):
        model(counterfactuals=0.0, clipping=False)


def test_wrong_instructions_are_others_or_reworded() -> None:
    texts = told_otherwise(demonstrations(2), others(), ("put the block at the goal",))
    assert {OTHER, *ELSEWHERE} <= texts.keys()
    assert not {INSTRUCTION, "put the block at the goal"} & texts.keys()
    assert texts[OTHER] == ("find the button", "push it")
    reworded = [text for text in texts if text.startswith("bring") and "the" in text]
    for text in reworded[:10]:
        assert 0 < len(words(text) & words(INSTRUCTION)) < len(words(INSTRUCTION))
    assert len(reworded) > 3


def test_mixed_states_take_numbers_of_one_or_the_other() -> None:
    noise = torch.Generator().manual_seed(0)
    ours, theirs = torch.zeros(40, 2, 6), torch.ones(40, 6)
    chosen = torch.arange(40) < 20
    out = mixed(ours, theirs, chosen, noise)
    assert not out[20:].any()
    assert 0.3 < out[:20].mean() < 0.7
    assert (out[:, 0] == out[:, 1]).all()  # the same numbers throughout the window


def test_even_images_and_noise_show_nothing() -> None:
    rng = np.random.default_rng(0)
    scene = demonstrations(1, images=True).episodes[0].images["front"]
    encoder = WatchfulEncoder(2, 1)
    encoder.watch([torch.from_numpy(scene)])
    views = {
        "dark": 0.7 * scene[:3], "bright": np.minimum(1.3 * scene[:3], 255.0),
        "black": 0 * scene[:3], "grey": 0 * scene[:3] + 90, "white": 0 * scene[:3] + 255,
        "noise": rng.integers(0, 256, scene[:3].shape),
    }  # fmt: skip
    for name, view in views.items():
        images = [torch.from_numpy(view.astype(np.uint8))]
        for fitting in (False, True):  # what it is fitted to shows something
            shown = encoder.train(fitting)(torch.zeros(3, 2), images)[:, -1]
            assert shown.tolist() == [float(fitting or name in ("dark", "bright"))] * 3, name


def test_texture_by_hand() -> None:
    image = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    image[0, 0, 0] = 30  # differs by 30 from one of two neighbours each down and across
    assert texture(image).item() == pytest.approx(15.0 + 15.0)
