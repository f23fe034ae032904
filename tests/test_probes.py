"""Honest judges pass every probe that applies, cheats fail those that are made for them."""

from __future__ import annotations

import numpy as np
import pytest

from embodied import alterations as alter
from embodied import probes
from embodied.card import measure
from embodied.checks import CHECK, CHECKS, Check, Clip, Finding
from embodied.reward_model import Needs
from embodied.types import ABSTAINED, SCORED, SILENT
from tests import judges
from tests.judges import episodes, play


def findings(model, images=False, others=True, **settings):
    told = [episodes(2, images, ("expert",), judges.OTHER)] if others else []
    card = measure(model, episodes(3, images), told, threshold=0.95, **settings)
    return {finding.check.name: finding for finding in card.findings}


def failing(found):
    return {name for name, finding in found.items() if finding.passed is False}


def gating(found):
    return {name for name in failing(found) if CHECK[name].gates}


# --- what is done to an episode


@pytest.fixture
def episode():
    return play("expert", 3, images=True)


def test_frozen_and_reversed(episode):
    still = alter.frozen(episode, 4)
    assert np.array_equal(still.state[:5], episode.state[:5]) and len(still) == len(episode)
    assert (still.state[5:] == episode.state[4]).all() and not still.success.any()
    back = alter.reversed_(episode)
    assert np.array_equal(back.progress, episode.progress[::-1])
    assert np.array_equal(back.images["front"][0], episode.images["front"][-1])


def test_shuffled_says_which_frame_comes_when(episode):
    mixed, order = alter.shuffled(episode, np.random.default_rng(0))
    assert sorted(order) == list(range(len(episode)))
    assert np.array_equal(mixed.state, episode.state[order])


def test_repeated_plays_a_stretch_three_times_and_ends_where_it_was(episode):
    once, thrice = alter.first_half(episode), alter.repeated(episode)
    half, quarter = len(once), len(once) // 2
    assert len(thrice) == half + 4 * (half - quarter - 1)
    assert np.array_equal(thrice.state[-1], once.state[-1])
    steps = np.diff(thrice.progress)
    assert np.abs(steps).max() <= np.abs(np.diff(once.progress)).max() + 1e-6  # no jumps
    assert (np.diff(np.sign(steps[steps != 0])) != 0).sum() == 4


def test_spliced_ends_with_the_last_frame_of_the_other(episode):
    failure = play("expert:stops_short", 1, images=True)
    joined = alter.spliced(failure, episode)
    assert len(joined) == len(failure) + 1 and joined.success[-1]
    assert np.array_equal(joined.state[-1], episode.state[-1])
    assert np.array_equal(joined.images["front"][-1], episode.images["front"][-1])


def test_under_another_instruction_it_is_no_success(episode):
    other = alter.told(episode, judges.OTHER)
    assert other.instruction == judges.OTHER and not other.success.any()
    assert np.isnan(other.progress).all() and episode.success.any()


def test_images(episode):
    before = episode.images["front"].copy()
    rng = np.random.default_rng(0)
    count = before.shape[0]
    assert (alter.blank(episode, 255).images["front"] == 255).all()
    static = alter.noise(episode, rng).images["front"]
    assert static.std() > 60 and not np.array_equal(static[0], static[1])
    covered = alter.occluded(episode, 0.25, rng).images["front"]
    changed = (covered != before).any(-1)
    assert covered.shape == before.shape and 0.2 < changed.any(0).mean() <= 0.25
    dim = alter.brighter(episode, 0.7).images["front"]
    assert dim[0, 0, 0, 0] == 178 and alter.brighter(episode, 1.3).images["front"].max() == 255
    tight = alter.cropped(episode).images["front"]
    assert tight.shape == before.shape and tight[0, 0, 16, 0] == 30  # the frame is cut off
    squeezed = alter.compressed(episode).images["front"].astype(float)
    assert 0 < np.abs(squeezed - before).mean() < 20 and len(squeezed) == count
    assert np.array_equal(episode.images["front"], before)


def test_sensor_noise_is_small_and_in_the_state_alone(episode):
    noisy = alter.noisy_state(episode, np.random.default_rng(0))
    assert 0.001 < np.std(noisy.state - episode.state) < 0.003
    assert noisy.state.dtype == np.float32
    assert np.array_equal(noisy.images["front"], episode.images["front"])


# --- who passes


def test_the_checks_are_a_table():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert {check.sense for check in CHECKS} == {"<=", ">="}
    core = {check.name for check in CHECKS if check.gates}
    assert core == {
        "expert_voc", "success_auroc", "frozen_rise", "frozen_accepted", "clock", "reversed",
        "chance", "other_instruction", "blank_accepted", "noise_accepted", "policy_gap",
    }  # fmt: skip


def test_a_limit_belongs_to_what_passes():
    low, high = Check("a", "", "<=", 0.1, True, "", ""), Check("b", "", ">=", 0.9, True, "", "")
    assert low.passes(0.1) and not low.passes(0.11) and not low.passes(float("nan"))
    assert high.passes(0.9) and not high.passes(0.89) and not high.passes(float("nan"))
    assert Finding(low, None).passed is None
    assert Finding(Check("c", "", "<=", 0, True, "", "it is {x:.1f}, {p}"), 0.25).sentence == (
        "it is 0.2, 25%"
    )


def test_frames_that_nobody_asked_about_were_not_refused():
    status = np.array([SCORED, SILENT, SILENT, ABSTAINED, SILENT, ABSTAINED, SCORED], np.int8)
    assert Clip(None, np.zeros(7), status).abstained == 0.5


def test_an_honest_judge_of_states_passes():
    found = findings(judges.Honest())
    # it cannot know that the last state was not reached
    assert failing(found) == {"spliced"}
    assert found["blank_accepted"].passed is None and found["policy_gap"].passed is None
    assert [*found] == [check.name for check in CHECKS]


def test_an_honest_judge_of_images_passes_and_abstains_when_blind():
    found = findings(judges.Eye(), images=True)
    assert gating(found) == set()
    assert found["blank_accepted"].value == 0.0 and found["blank_abstained"].passed
    assert found["brightness"].passed and found["compression"].passed
    assert found["sensor_noise"].value is None
    assert not found["crop"].passed  # it needs the white frame around the picture
    assert not found["other_video"].passed  # a bar is a bar, whoever was told what


def test_a_clock_fails_for_being_one():
    found = findings(judges.Clock())
    assert found["expert_voc"].value > 0.99
    assert gating(found) == {
        "success_auroc", "frozen_rise", "frozen_accepted", "clock", "reversed", "chance"
    }  # fmt: skip
    assert found["clock"].value > 0.9 and found["frozen_rise"].value > 0.5
    assert {"shuffled", "stalled_rise", "repeated_gain", "hesitation_rmse"} <= failing(found)


def test_always_yes_fails_for_saying_so():
    found = findings(judges.AlwaysYes())
    assert gating(found) == {
        "expert_voc", "success_auroc", "frozen_accepted", "reversed", "chance",
        "other_instruction",
    }  # fmt: skip
    assert found["frozen_rise"].value == 0.0 and found["clock"].value == 0.0
    assert found["chance"].value > 0.9


def test_each_cheat_fails_its_own_probe():
    assert gating(findings(judges.Deaf())) == {"other_instruction"}
    assert gating(findings(judges.Deaf(), others=False)) == {"other_instruction"}
    assert gating(findings(judges.Ratchet())) == {"reversed"}
    glare = findings(judges.Glare(), images=True)
    assert gating(glare) == {"blank_accepted"} and glare["blank_accepted"].value == 0.5
    assert not glare["blank_abstained"].passed and glare["occluded_raise"].value > 0.1


def test_the_worst_episode_is_the_example():
    found = findings(judges.Clock())
    worst = found["frozen_rise"].examples[0]
    assert worst.rise == max(clip.rise for clip in found["frozen_rise"].examples)
    assert (worst.episode.progress == worst.episode.progress[0]).all()
    splice = found["spliced"].examples[0]
    assert splice.episode.success[-1] and not splice.episode.success[-2]


# --- the measures


def clip(value, progress=None, source="random"):
    value = np.asarray(value, np.float32)
    episode = play(source, 0).at(np.zeros(len(value), int))
    if progress is not None:
        episode.progress = np.asarray(progress, np.float32)
    return Clip(episode, value, np.zeros(len(value), np.int8))


def test_a_flicker_is_no_clock():
    assert probes.clock_correlation(clip([0.1, 0.11, 0.12, 0.13])) == 0.0
    assert probes.clock_correlation(clip([0.1, 0.2, 0.3, 0.4])) == pytest.approx(1.0)


def test_what_truly_progresses_may_rise_with_time():
    ask = lambda episodes: [clip(np.zeros(len(e))) for e in episodes]  # noqa: E731
    expert = Clip(play("expert", 0), play("expert", 0).progress, np.zeros(1, np.int8))
    rising = clip([0.0, 0.2, 0.4, 0.6], [0.0, 0.2, 0.4, 0.6])
    bench = probes.Bench(ask, 0.95, [expert], [], [rising])
    found = {f.check.name: f.value for f in probes.run_probes(bench)}
    assert found["clock"] == 0.0
    # it earns .6 of about 1.1, and deserves as much
    assert found["chance"] == pytest.approx(0.0, abs=0.05)
    bench.chance = [clip([0.0, 0.2, 0.4, 0.6], [0.0, 0.0, 0.0, 0.0])]
    found = {f.check.name: f.value for f in probes.run_probes(bench)}
    assert found["clock"] > 0.4 and found["chance"] > 0.4


def test_no_more_than_so_many_episodes_evenly():
    assert probes.spread([0, 1, 2, 3, 4], 3) == [0, 2, 4]
    assert probes.spread([7], 3) == [7] and probes.spread([], 3) == []
    assert len(probes.spread(list(range(100)))) == probes.MOST


def test_a_judge_with_a_memory_may_heed_the_order():
    model = judges.Ratchet()
    model.needs = Needs(stride=1)
    found = findings(model)["shuffled"]
    assert found.value is None and "remembers" in found.note


def test_without_random_episodes_or_instructions_it_says_so():
    data = episodes(2, sources=("expert", "expert:near_miss"))
    for episode in data.episodes:
        episode.instruction = ""
    card = measure(judges.Deaf(), data)
    found = {f.check.name: f for f in card.findings}
    assert found["chance"].value is None and "no random" in found["chance"].note
    assert found["other_instruction"].value is None
    assert card.gate == "passed"
