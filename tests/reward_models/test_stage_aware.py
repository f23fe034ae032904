"""SARM: its labels by hand, what it makes of failures it never saw, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from embodied.reward_models.stage_aware import StageAware
from embodied.reward_models.stage_windows import wander
from embodied.reward_models.stages import StageLabels

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.frame_table import FrameTable
from embodied.judgement import Judgement, judge
from embodied.statistics import spearman
from embodied.types import ABSTAINED, SCORED
from tests.reward_models.episodes import INSTRUCTION, OTHER, PROPRIO, SPACE, demonstrations, flawed


def model(**options) -> StageAware:
    return StageAware(SPACE, PROPRIO, (INSTRUCTION,), **options)


def annotated(*stages: list[int], done: int = 0) -> Dataset:
    """Episodes with these stages, of which the last `done` frames are a success."""
    dataset = demonstrations(len(stages))
    episodes = []
    for episode, stage in zip(dataset.episodes, stages, strict=True):
        count = len(stage)
        part = episode.at(np.zeros(count, int))
        success = np.arange(count) >= count - done
        episodes.append(replace(part, stage=np.array(stage), success=success))
    return Dataset(dataset.info, episodes)


@pytest.fixture(scope="module")
def fitted() -> StageAware:
    one = model()
    figures = one.fit(demonstrations(), [demonstrations(2, instruction=OTHER)], steps=700)
    assert figures["rank_correlation"] > 0.9 and figures["done"] > 0.8
    return one


def values(one: StageAware, episodes: list[Episode]) -> list[np.ndarray]:
    return [told.value for told in judge(one, episodes)]


def agreement(told: list[np.ndarray], truth: list[np.ndarray]) -> float:
    return float(np.mean([spearman(a, b) for a, b in zip(told, truth, strict=True)]))


# --- labels


def test_labels_by_hand() -> None:
    """Shares of the stages are .5, .25, .25 and 1/3, 1/3, 1/3; time counts within a stage."""
    dataset = annotated([0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 2], done=1)
    labels = StageLabels.of(dataset)
    a, b, c = labels.shares.tolist()
    assert (a, b, c) == pytest.approx((5 / 12, 7 / 24, 7 / 24))
    assert labels.stage.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 0, 1, 2, 2]
    assert labels.within.tolist() == [0, 0.25, 0.5, 0.75, 0, 0.5, 0, 0.5, 1, 0, 0, 0, 1]
    first = [0, a / 4, a / 2, 3 * a / 4, a, a + b / 2, a + b, a + b + c / 2, 1]
    assert labels.value.tolist() == pytest.approx([*first, 0, a, a + b, 1])


def test_all_frames_after_success_are_done() -> None:
    labels = StageLabels.of(annotated([0, 1, 2, 2, 2, 2], done=3))
    assert labels.value.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1])


def test_without_stages_the_label_is_the_share_of_time() -> None:
    labels = StageLabels.of(annotated([0, 1, 2, 2, 2], done=2), annotated=False)
    assert labels.value.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_a_setback_gets_nowhere_until_it_is_made_good() -> None:
    """Stage 1 lasts two frames; the stay in stage 2 that falls back has got nowhere in it."""
    labels = StageLabels.of(annotated([0, 0, 1, 1, 2, 1, 1, 1, 2, 2, 2], done=1))
    assert labels.stage.tolist() == [0, 0, 1, 1, 2, 1, 1, 1, 2, 2, 2]
    assert labels.within.tolist() == [0, 0.5, 0, 0.5, 0, 0, 0, 0.5, 0, 0.5, 1]
    assert labels.shares.tolist() == pytest.approx([1 / 3] * 3)


def test_what_is_lost_after_success_is_done_no_more() -> None:
    dataset = annotated([0, 1, 2, 2, 2, 1, 1], done=4)
    dataset.episodes[0].success[4:] = False
    told = StageLabels.of(dataset).value.tolist()
    assert told == pytest.approx([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ([0, 0, -1, 1, 2], "episode 0: frame 2 has no stage"),
        ([0, 0, 2, 2, 2], "episode 0 never is in stage 'bring it to the goal'"),
        ([1, 1, 1, 2, 2], "episode 0 never is in stage 'reach the block'"),
        ([0, 1, 1, 1, 1], "episode 0 never is in stage 'hold it there'"),
        ([0, 1, 2, 3, 3], "episode 0: stage 3, but there are 3 stages"),
        ([0, 1, 2, 0, 0, 0, 0, 1], "episode 0 ends before its last stage has begun, or not in it"),
        ([0, 2, 2, 2, 2, 2, 1, 2], "episode 0 skips stage 'bring it to the goal'"),
        ([0, 0, 1, 1, 2], "episode 0 ends before its last stage has begun"),
    ],
)
def test_annotations_that_are_refused(stage: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model().fit(annotated(stage))


# --- training windows


def table(lengths: tuple[int, ...]) -> FrameTable:
    return FrameTable.of(annotated(*([0] * n for n in lengths)), 9)


def test_windows_run_at_any_pace_and_stay_in_their_episode() -> None:
    frames, noise = table((40, 30)), torch.Generator().manual_seed(0)
    now = torch.randint(70, (500,), generator=noise)
    rows = wander(frames, now, 4, 6, 0.0, noise)
    assert (rows[:, -1] == now).all()
    assert (frames.episode[rows] == frames.episode[now][:, None]).all()
    assert (rows.diff(dim=1) >= 0).all()
    assert set(rows.diff(dim=1)[:, -1].tolist()) == set(range(7))


def test_rewound_windows_come_back_from_later_frames() -> None:
    frames, noise = table((100,)), torch.Generator().manual_seed(0)
    now = torch.full((400,), 50)
    rows = wander(frames, now, 4, 6, 1.0, noise)
    assert (rows[:, -1] == now).all()
    moving = rows[(rows != now[:, None]).any(1)]
    assert (moving[:, -2] > 50).all()
    falls = (moving.diff(dim=1) < 0).sum(1)
    assert set(falls.tolist()) == {1, 2, 3}


# --- what it learns


def test_it_ranks_experts_and_flaws_it_never_saw(fitted: StageAware) -> None:
    experts = demonstrations(6, seed=9).episodes
    told = values(fitted, experts)
    assert agreement(told, [np.arange(len(e)) for e in experts]) > 0.9
    assert min(value[-1] for value in told) >= 0.95
    for kind in ("stops_short", "undoes", "near_miss"):
        assert max(value[-1] for value in values(fitted, flawed(kind, 4).episodes)) < 0.95, kind
    for kind in ("retries", "hesitates", "slow"):
        episodes = flawed(kind, 4).episodes
        assert agreement(values(fitted, episodes), [e.progress for e in episodes]) > 0.8, kind


def test_it_is_no_clock(fitted: StageAware) -> None:
    expert = demonstrations(1, seed=9).episodes[0]
    frozen = expert.at(np.zeros(60, int))
    assert np.ptp(values(fitted, [frozen])[0]) < 0.02
    backwards = expert.at(np.arange(len(expert))[::-1])
    assert spearman(values(fitted, [backwards])[0], np.arange(len(expert))) < -0.9
    spliced = expert.at(np.append(np.arange(10), [len(expert) - 1] * 3))
    assert values(fitted, [spliced])[0][-1] > 0.9


def test_another_instruction_is_no_progress(fitted: StageAware) -> None:
    expert = demonstrations(1, seed=9).episodes[0]
    assert values(fitted, [replace(expert, instruction=OTHER)])[0].max() < 0.1
    deaf = model(wrong_instruction=0.0)
    deaf.fit(demonstrations(), steps=300)
    assert values(deaf, [replace(expert, instruction=OTHER)])[0].max() > 0.5


def test_rewinding_teaches_that_progress_falls(fitted: StageAware) -> None:
    """Seen later states and then this one: without rewind a window that is never like it."""
    expert = demonstrations(1, seed=9).episodes[0]
    ahead = [expert.at(np.r_[t + 20 : t : -1, t]) for t in range(2, len(expert) - 21, 2)]
    first = [expert.at(np.array([t])) for t in range(2, len(expert) - 21, 2)]
    straight = model(rewind=0.0)
    straight.fit(demonstrations(), steps=700)

    def error(one: StageAware) -> float:
        told, truth = values(one, ahead), values(one, first)
        return float(np.mean([abs(a[-1] - b[-1]) for a, b in zip(told, truth, strict=True)]))

    assert error(fitted) < error(straight)


def test_far_from_all_demonstrations_nothing_is_worth_much(fitted: StageAware) -> None:
    """A goal far to the side of the block: no demonstration was ever like that."""
    strange = demonstrations(4, seed=9).episodes
    for episode in strange:
        episode.state[:, 5:7] += np.float32([1.0, -1.0])
    credulous = model(doubt=False)
    credulous.fit(demonstrations(), steps=500)
    assert max(value.max() for value in values(fitted, strange)) < 0.15
    assert max(value.max() for value in values(credulous, strange)) > 0.25


def test_the_farther_from_done_the_less_may_be_said(fitted: StageAware) -> None:
    """Where no demonstration went, there is a way uphill all the same."""
    sure = model()
    sure.load_state_dict(fitted.state_dict())
    sure.hull.forget()
    sure.net.ceiling.fill_(1e-3)  # whatever it sees, it takes for a success
    episode = demonstrations(1, seed=9).episodes[0]
    done = episode.at(np.flatnonzero(episode.success))
    told = []
    for beside in (0.0, 0.3, 0.6, 1.2, 2.4):
        moved = done.at(np.arange(len(done)))
        moved.state[:, 5] += beside
        told.append(values(sure, [moved])[0].max())
        sure.doubt = False
        assert values(sure, [moved])[0].min() == 1.0
        sure.doubt = True
    assert told[0] == 1.0 and (np.diff(told) < -0.02).all()


def test_however_sure_a_network_is_it_reaches_no_stage_from_afar(fitted: StageAware) -> None:
    sure = model()
    sure.load_state_dict(fitted.state_dict())
    last = int((sure.net.shares > 0).sum()) - 1
    with torch.no_grad():
        for member in sure.net.members:
            member[-1].bias[last] += 1000.0
    shown = demonstrations(4, seed=9).episodes
    for episode, told in zip(shown, values(sure, shown), strict=True):
        assert told[episode.stage == 0].max() < 0.5 < told[episode.success].min()


def test_stage_labels_agree_with_progress_where_time_does_not() -> None:
    """Demonstrators who linger in the first stage: t/T calls half of the way what is a third."""
    dataset = demonstrations()
    lingering = []
    for number, episode in enumerate(dataset.episodes):
        slow = np.repeat(np.arange(len(episode)), np.where(episode.stage == 0, 1 + number % 4, 1))
        lingering.append(episode.at(slow))
    held_out = demonstrations(6, seed=9).episodes
    errors = []
    for staged in (True, False):
        one = model(stage_labels=staged, doubt=False)
        one.fit(Dataset(dataset.info, lingering), steps=500)
        told = values(one, held_out)
        starts = [v[e.stage == 1][0] for v, e in zip(told, held_out, strict=True)]
        errors.append(float(np.std(starts)))
    assert errors[0] < errors[1]


def test_from_pixels_it_rises_and_abstains_when_blind() -> None:
    one = model(input="pixels", window=2)
    one.fit(demonstrations(images=True), steps=400)
    experts = demonstrations(3, seed=9, images=True).episodes
    told = judge(one, experts)
    assert agreement([t.value for t in told], [np.arange(len(e)) for e in experts]) > 0.8
    assert np.concatenate([t.status for t in told]).max() == SCORED
    blank = experts[0].at(np.full(5, len(experts[0]) - 1))
    blank.images["front"][:] = 60
    blind: Judgement = judge(one, [blank])[0]
    assert (blind.status[1:] == ABSTAINED).all() and (blind.value[1:] == 0).all()


# --- files and options


def test_a_saved_model_judges_the_same(fitted: StageAware, tmp_path) -> None:
    fitted.save(tmp_path / "model")
    again = model(path=str(tmp_path / "model"), seed=7)
    episodes = demonstrations(2, seed=9).episodes
    for one, other in zip(values(fitted, episodes), values(again, episodes), strict=True):
        assert (one == other).all()


def test_asked_rarely_it_judges_the_same(fitted: StageAware) -> None:
    episode = demonstrations(1, seed=9).episodes[0]
    often, rarely = (judge(fitted, [episode], every=k)[0].value for k in (1, 5))
    assert (often[::5] == rarely[::5]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewind": 1.5}, "stage_aware.rewind=1.5"),
        ({"wrong_instruction": -0.1}, "stage_aware.wrong_instruction=-0.1"),
        ({"members": 0}, "stage_aware.members=0"),
        ({"window": 0}, "window=0"),
    ],
)
def test_options_that_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model(**options)


def test_a_thing_still_at_its_place_is_not_done_though_the_hand_is() -> None:
    """Done frames with the block as well where it was at first: no demonstration shows that."""
    experts = demonstrations(4, seed=9, images=True).episodes
    left = []
    for episode in experts:
        done = episode.at(np.full(6, len(episode) - 1))
        first = episode.images["front"][0].astype(int)
        block = first[..., 1] > np.maximum(first[..., 0], first[..., 2]) + 40
        done.images["front"][:, block] = first[block]
        left.append(done)
    means = []
    for share in (0.3, 0.0):
        one = model(input="pixels", window=2, mixed=share, doubt=False)
        one.fit(demonstrations(images=True), steps=300)
        assert np.mean([told[-1] for told in values(one, experts)]) > 0.95
        means.append(np.mean([told[-1] for told in values(one, left)]))
    assert means[0] < means[1] - 0.05
