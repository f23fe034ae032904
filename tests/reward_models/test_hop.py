"""The hop model: labels, sampling and fusion by hand; and that each mechanism is needed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from embodied.reward_models.hop import PERSPECTIVES, Hop
from embodied.reward_models.hop_labels import fuse, hop, land, potentials, sample_hops

from embodied.dataset import Dataset
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.progress_metrics import auroc, retry_voc, voc, vroc
from embodied.types import ABSTAINED
from tests.reward_models.episodes import OTHER, PROPRIO, SPACE, demonstrations, flawed


@cache
def fitted(**options) -> Hop:
    model = Hop(SPACE, PROPRIO, **options)
    others = [demonstrations(2, seed=9, instruction=OTHER)]
    model.fit(demonstrations(15), others, steps=300)
    return model


def again(model: Hop, **options) -> Hop:
    """The same weights, judging in another way."""
    other = Hop(SPACE, PROPRIO, **options)
    other.load_state_dict(model.state_dict())
    return other


def values(model: Hop, dataset: Dataset) -> list[np.ndarray]:
    return [judged.value for judged in judge(model, dataset.episodes)]


def backwards(dataset: Dataset) -> Dataset:
    return Dataset(dataset.info, [e.at(np.arange(len(e))[::-1]) for e in dataset.episodes])


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers)


# --- labels, by hand


def test_a_hop_is_a_share_of_what_is_left_or_of_what_there_was() -> None:
    before, after = tensor(0.25, 0.5, 0.5, 0, 1, 1, 0), tensor(0.5, 0.25, 0.5, 1, 0, 1, 0)
    torch.testing.assert_close(hop(before, after), tensor(1 / 3, -0.5, 0, 1, -1, 0, 0))


def test_landing_undoes_the_hop() -> None:
    grid = torch.linspace(0, 1, 21)
    before, after = torch.meshgrid(grid, grid, indexing="ij")
    hops = hop(before, after)
    assert (hops.abs() <= 1 + 1e-6).all()
    torch.testing.assert_close(land(before, hops), after)


def test_potentials_are_linear_between_stage_boundaries() -> None:
    data = demonstrations(1)
    episode = data.episodes[0].at(np.arange(8))
    episode.stage[:] = [0, 0, 1, 0, 1, 1, 2, 2]  # falls back for one frame
    episode.success[:] = [0, 0, 0, 0, 0, 0, 0, 1]
    data = Dataset(data.info, [episode])
    thirds = [0, 0.5, 1, 0.5, 1, 1.5, 2, 3]
    np.testing.assert_allclose(potentials(data)[0], np.array(thirds) / 3)
    np.testing.assert_allclose(potentials(data, stage_labels=False)[0], np.arange(8) / 7)


def test_hops_are_sampled_evenly_over_scores_and_gaps() -> None:
    phi = np.linspace(0, 1, 80)
    hops = sample_hops(phi, np.random.default_rng(0), rewind=0.4, zero=0.1)
    gap = hops[:, 1] - hops[:, 0]
    assert len(hops) == 1000
    assert (gap == 0).sum() == 100 and (gap < 0).sum() == 360 and (gap > 0).sum() == 540
    sampled, there = _cells(phi, hops[gap > 0]), _cells(phi, np.stack(np.triu_indices(80, 1), -1))
    quota = sampled.max()
    assert (there > 3 * quota).any()  # evenly is not as they come
    assert (np.abs(sampled - np.minimum(there, quota)) <= 2).all()


def _cells(phi: np.ndarray, hops: np.ndarray) -> np.ndarray:
    """How many of the hops fall into each of 25 bins of the hop by 4 of the gap."""
    before, after = torch.from_numpy(phi[hops]).T
    gap = (hops[:, 1] - hops[:, 0]) / len(phi)
    bins = np.linspace(-1, 1, 26), np.linspace(0, 1, 5)
    return np.histogram2d(hop(before, after).numpy(), gap, bins)[0]


def test_few_frames_give_each_pair_once() -> None:
    hops = sample_hops(np.linspace(0, 1, 5), np.random.default_rng(0), rewind=0.5, zero=0.0)
    assert len(hops) == len(np.unique(hops, axis=0)) == 20


def test_without_rewind_no_hop_goes_backward() -> None:
    hops = sample_hops(np.linspace(0, 1, 50), np.random.default_rng(0), rewind=0.0)
    assert (hops[:, 1] >= hops[:, 0]).all()


def test_fusion_by_hand() -> None:
    hops = {"incremental": tensor(0.5), "forward": tensor(0.6), "backward": tensor(-0.2)}
    phi = tensor(0.4)
    torch.testing.assert_close(fuse(hops, phi), tensor(0.7))  # of 0.7, 0.6 and 0.8
    expected = {"incremental": 0.7, "forward": 0.7, "backward": 0.65}  # without it
    expected["forward"], expected["backward"] = 0.75, 0.65
    for name in PERSPECTIVES:
        rest = {other: value for other, value in hops.items() if other != name}
        torch.testing.assert_close(fuse(rest, phi), tensor(expected[name]))
    back = fuse({"incremental": tensor(-0.5)}, phi)
    torch.testing.assert_close(back, tensor(0.2))


def test_consistency_by_hand() -> None:
    hops = {"incremental": tensor(0.5), "forward": tensor(0.7), "backward": tensor(-0.3)}
    # they agree: half of (0.7 - 0.4) + (0.7 - 0.4) on top of 0.4
    torch.testing.assert_close(fuse(hops, tensor(0.4), consistency=2.0), tensor(0.7))
    hops["forward"], hops["backward"] = tensor(0.2), tensor(0.0)  # 0.2 and 1.0: mean 0.6
    trust = np.exp(-2.0 * (0.8 / 0.61) ** 2)
    expected = 0.4 + 0.5 * trust * ((0.6 - 0.4) + 0.3)
    torch.testing.assert_close(fuse(hops, tensor(0.4), consistency=2.0), tensor(expected).float())


# --- what it learns


def test_it_follows_progress_up_and_down() -> None:
    model, experts = fitted(), demonstrations(6, seed=7)
    assert np.mean([voc(value) for value in values(model, experts)]) >= 0.9
    assert np.mean([vroc(value) for value in values(model, backwards(experts))]) >= 0.7
    tried = flawed("retries", 6)
    told = zip(values(model, tried), tried.episodes, strict=True)
    assert np.mean([retry_voc(value, e.progress) for value, e in told]) >= 0.5


def test_it_tells_success_from_failure() -> None:
    score, done = [], []
    for kind in ("slow", "hesitates", "retries", "stops_short", "undoes"):
        data = flawed(kind, 5)
        score += [value[-1] for value in values(fitted(), data)]
        done += [episode.success[-1] for episode in data.episodes]
    assert auroc(np.array(score), done) >= 0.95


def test_standing_still_is_no_progress() -> None:
    frozen = [e.at(np.zeros(60, int)) for e in demonstrations(4, seed=7).episodes]
    for judged in judge(fitted(), frozen):
        assert judged.value.max() <= judged.value[0] + 0.03


def test_other_words_are_other_tasks() -> None:
    data = demonstrations(4, seed=7)
    told = Dataset(data.info, [replace(e, instruction=OTHER) for e in data.episodes])
    right, wrong = values(fitted(), data), values(fitted(), told)
    assert np.mean([value[-1] for value in wrong]) < 0.3 < 0.8 < np.mean([v[-1] for v in right])


# --- what each mechanism is for


def test_backward_hops_are_what_shows_that_work_is_undone() -> None:
    forgetful = fitted(perspectives=("incremental",), rewind=0.0)
    whole = again(fitted(), perspectives=("incremental",))
    left = []
    for model in (whole, again(forgetful, perspectives=("incremental",))):
        model.net.done.forget()  # which sees it too
        there_and_back = [
            episode.at(np.r_[: len(episode) : 2, len(episode) - 1 : 0 : -2])
            for episode in demonstrations(4, seed=7).episodes
        ]
        told = [judged.value for judged in judge(model, there_and_back)]
        left.append(np.mean([value[-1] / value.max() for value in told]))
    assert left[0] < 0.4 and left[1] > 0.7


def test_the_goal_is_what_shows_a_late_start() -> None:
    late = [e.at(np.arange(int(0.6 * len(e)), len(e))) for e in demonstrations(4, seed=7).episodes]
    both = [judged.value[0] for judged in judge(fitted(), late)]
    blind = again(fitted(), perspectives=("incremental", "forward"))
    without = [judged.value[0] for judged in judge(blind, late)]
    assert np.mean(without) < 0.1 < np.mean(both)


@pytest.mark.parametrize("wrong", PERSPECTIVES)
def test_every_perspective_counts(wrong: str, monkeypatch) -> None:
    """One that errs by itself shifts the value by its share, and not at all once left out."""

    def misled(hops, phi, consistency=None):
        return fuse({k: v - float(k == wrong) for k, v in hops.items()}, phi, consistency)

    data, rest = demonstrations(2, seed=7), tuple(name for name in PERSPECTIVES if name != wrong)
    models = again(fitted()), again(fitted(), perspectives=rest)
    right = [values(model, data)[0][1:] for model in models]
    monkeypatch.setattr("embodied.reward_models.hop.fuse", misled)
    shift = [r - values(m, data)[0][1:] for r, m in zip(right, models, strict=True)]
    assert shift[0].max() > 0.25 and (shift[1] == 0.0).all()


def test_consistency_bridges_a_covered_moment() -> None:
    """A few states garbled on the way: what disagrees with itself moves the value less."""
    rng = np.random.default_rng(0)
    steady, plain = again(fitted(), consistency=20.0), again(fitted())
    jumps = {steady: [], plain: []}
    for episode in demonstrations(6, seed=7).episodes:
        garbled = episode.at(np.arange(len(episode)))
        at = len(episode) // 2
        garbled.state[at] = rng.normal(size=garbled.state.shape[1]) * 0.5
        for model, jump in jumps.items():
            clean, covered = (judged.value for judged in judge(model, [episode, garbled]))
            jump.append(abs(covered[at] - clean[at]))
    assert np.mean(jumps[steady]) < 0.6 * np.mean(jumps[plain])


def test_stages_are_what_frees_it_from_time() -> None:
    """Demonstrators who dawdle in the first stage make t/T call that stage most of the task."""
    slow = demonstrations(9)
    times = [np.where(episode.stage == 0, 4, 1) for episode in slow.episodes]
    episodes = [
        e.at(np.repeat(np.arange(len(e)), n)) for e, n in zip(slow.episodes, times, strict=True)
    ]
    error = {}
    for stage_labels in (True, False):
        model = Hop(SPACE, PROPRIO, stage_labels=stage_labels)
        model.fit(Dataset(slow.info, episodes), steps=400)
        model.net.done.forget()
        error[stage_labels] = _error(model, demonstrations(4, seed=7))
    assert error[True] < 0.6 * error[False]


def test_being_done_ends_where_demonstrations_of_it_do() -> None:
    model, episode = again(fitted()), demonstrations(1, seed=7).episodes[0]
    model.hull.forget()
    model.net.ceiling.fill_(1e-3)  # whatever it sees, it takes for a success
    beside = episode.state.copy()
    beside[:, 5] += 0.6  # of the goal
    done = np.flatnonzero(episode.success)
    there, missed = judge(model, [episode, replace(episode, state=beside)])
    assert (there.value[done] == 1.0).all()
    allowed = model.net.done.allowed(torch.from_numpy(beside[done])).numpy()
    assert missed.value[done] == pytest.approx(allowed) and (allowed < 0.95).all()
    model.net.done.forget()
    assert (judge(model, [replace(episode, state=beside)])[0].value[done] == 1.0).all()


def test_one_demonstration_adapts_it_to_a_mirrored_world() -> None:
    model, experts = again(fitted()), _mirrored(demonstrations(5, seed=7))
    goal, before = model.net.goal.clone(), _error(model, experts)
    model.adapt(_mirrored(demonstrations(1, seed=8)))
    after = _error(model, experts)
    assert after < 0.15 and after < 0.5 * before
    assert (model.net.goal != goal).any()
    with pytest.raises(UserError, match="untrained"):
        Hop(SPACE, PROPRIO).adapt(experts)


def _error(model: Hop, data: Dataset) -> float:
    """The mean distance from the true progress."""
    told = zip(values(model, data), data.episodes, strict=True)
    return float(np.mean([np.abs(value - episode.progress).mean() for value, episode in told]))


def _mirrored(data: Dataset) -> Dataset:
    mirror = np.array([-1, -1, 1, -1, -1, -1, -1, 1, 1], np.float32)
    return Dataset(data.info, [replace(e, state=e.state * mirror) for e in data.episodes])


def test_from_pixels_it_follows_and_abstains_from_blank_images() -> None:
    model = Hop(SPACE, PROPRIO, input="pixels")
    model.fit(demonstrations(12, images=True), steps=150)
    experts = demonstrations(4, seed=7, images=True)
    assert np.mean([voc(value) for value in values(model, experts)]) >= 0.8
    blank = experts.episodes[0].at(np.arange(30))
    blank.images["front"][:] = 128
    judged = judge(model, [blank])[0]
    assert (judged.status[1:] == ABSTAINED).mean() > 0.9 and judged.value[1:].max() < 0.1


# --- files and bad input


def test_it_is_saved_with_its_references(tmp_path) -> None:
    data = demonstrations(2, seed=7)
    fitted().save(tmp_path / "hop")
    loaded = Hop(SPACE, PROPRIO, path=str(tmp_path / "hop"))
    for ours, theirs in zip(values(fitted(), data), values(loaded, data), strict=True):
        assert (ours == theirs).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perspectives": ()}, "incremental, forward, backward"),
        ({"perspectives": ("sideways",)}, "sideways"),
        ({"perspectives": ("forward",), "consistency": 1.0}, "leave none out"),
        ({"consistency": -1.0}, "consistency"),
        ({"rewind": 1.5}, "rewind"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Hop(SPACE, PROPRIO, **options)


def test_wrong_demonstrations_are_refused() -> None:
    model = Hop(SPACE, PROPRIO)
    with pytest.raises(UserError, match="episode 0 ends without success"):
        model.fit(flawed("stops_short", 2))
    data = demonstrations(3)
    data.episodes[1].stage[:] = -1
    with pytest.raises(UserError, match="episode 1"):
        model.fit(data)
    with pytest.raises(UserError, match="untrained"):
        judge(model, data.episodes)
