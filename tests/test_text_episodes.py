"""Episodes of text in a rollout: those that began and ended there, as they were told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embodied.text_episodes import TextEpisode, text_episodes
from tests.scripted_models import told
from tests.talks import talk

ONE, TWO = (["do it", "a", "b"], ["x", "y"]), (["go", "gone"], ["z"])


def test_episodes_are_told_world_by_world() -> None:
    one, two = text_episodes(told(ONE, TWO))
    assert one == TextEpisode(("do it", "a", "b"), ("x", "y"), 0, 0)
    assert two == TextEpisode(("go", "gone"), ("z",), 1, 0)
    assert (one.last, two.last) == (1, 0)
    assert one.upto(1) == TextEpisode(("do it", "a"), ("x",), 0, 0)


def test_what_has_not_ended_and_what_a_fault_ended_is_there_only_where_wanted() -> None:
    traj = told(ONE, ONE, unended=[0])
    traj.valid[1, 1] = False
    assert text_episodes(traj) == []
    assert [e.world for e in text_episodes(traj, unfinished=True)] == [0, 1]


def test_episodes_may_follow_one_another_in_a_world() -> None:
    traj = told((["a", "b", "d"], ["x", "y"]))
    ends = np.array([[True], [True]])
    traj = replace(traj, terminated=ends, is_first=ends)
    traj.final_index[:] = [[0], [1]]
    traj.final_obs = {"text": np.concatenate([traj.obs["text"][1], traj.final_obs["text"]])}
    traj.obs["text"][1, 0] = "c"
    assert text_episodes(traj) == [
        TextEpisode(("a", "b"), ("x",), 0, 0), TextEpisode(("c", "d"), ("y",), 0, 1)
    ]  # fmt: skip
    later = replace(traj, is_first=np.array([[False], [True]]))  # the first began before
    assert [e.first for e in text_episodes(later)] == [1]


def test_they_are_what_worlds_and_a_policy_said() -> None:
    traj = talk([["say nothing"], ["dance"]], group=1)
    for episode in text_episodes(traj):
        assert len(episode.said) == 5 and len(episode.seen) == 6
        assert episode.seen[0].startswith("Open 2 doors.")
        assert episode.seen[1].startswith(("Nothing happens.", "What?")[episode.world])
