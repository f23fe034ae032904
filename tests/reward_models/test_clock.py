"""The clock: what it counts, and why the order of successes alone proves nothing."""

from __future__ import annotations

import numpy as np
import pytest
from embodied.reward_models.clock import Clock

from embodied.errors import UserError
from embodied.judgement import judge
from embodied.statistics import spearman
from embodied.types import Moment
from tests.reward_models.episodes import demonstrations, flawed
from tests.toys import rollout


def test_it_counts_the_steps_of_an_episode() -> None:
    episode = demonstrations(1).episodes[0].at(np.zeros(6, int))
    told = judge(Clock(horizon=4.0), [episode])[0]
    assert told.value.tolist() == [0, 0.25, 0.5, 0.75, 1, 1]


def test_worlds_that_start_anew_count_from_nought() -> None:
    never = np.zeros((6, 2), bool)
    traj = rollout(np.zeros((6, 2, 1)), np.zeros((6, 2, 1)), never, never)
    clock, moment = Clock(horizon=10.0), Moment({})
    carry, first = clock.begin({}, np.ones(2, bool), moment)
    assert first.tolist() == [0, 0]
    carry, score = clock.score(carry, traj.slice(0, 3))
    assert score.value[:, 0] == pytest.approx([0.1, 0.2, 0.3])
    carry, _ = clock.begin(carry, np.array([False, True]), moment)
    carry, score = clock.score(carry, traj.slice(3, 6))
    assert score.value[:, 0] == pytest.approx([0.4, 0.5, 0.6])
    assert score.value[:, 1] == pytest.approx([0.1, 0.2, 0.3])


def test_a_fit_takes_the_mean_length() -> None:
    dataset = demonstrations(4)
    figures = Clock().fit(dataset)
    assert figures == {"horizon": np.mean([len(episode) - 1 for episode in dataset.episodes])}


def test_a_saved_clock_goes_alike(tmp_path) -> None:
    clock = Clock()
    clock.fit(demonstrations(4))
    clock.save(tmp_path / "clock")
    assert Clock(path=str(tmp_path / "clock")).horizon == clock.horizon


def test_it_orders_successes_best_and_knows_nothing() -> None:
    clock = Clock()
    clock.fit(demonstrations())
    expert = demonstrations(4, seed=9).episodes
    for told in judge(clock, expert):
        risen = told.value[told.value < 1]
        assert spearman(risen, np.arange(len(risen))) == pytest.approx(1.0)
    frozen = [episode.at(np.zeros(60, int)) for episode in expert]
    assert min(told.value[-1] for told in judge(clock, frozen)) == 1
    assert min(told.value[-1] for told in judge(clock, flawed("undoes").episodes)) == 1


def test_bad_input() -> None:
    with pytest.raises(UserError, match="horizon=0: give a number of steps"):
        Clock(horizon=0)
    with pytest.raises(UserError, match="no episodes to learn from"):
        Clock().fit(demonstrations(1).take([]))
