"""Labels that come late come when they should, all of them, and once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.env import EnvReward

from embodied.errors import UserError
from embodied.late import Late, LateLabels, Verdict
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.run import open_run
from embodied.train import train
from embodied.types import FAILED, SCORED, Moment, Score
from tests.toys import rollout, through_disk

WORLDS, ROWS, DELAY = 2, 4, 3


def verdict(first: int, status: int = SCORED) -> Verdict:
    """Labels that are the numbers of their steps."""
    term = np.arange(first, first + ROWS * WORLDS, dtype=np.float32).reshape(ROWS, WORLDS)
    return Verdict(term, term, np.full(term.shape, status, np.int8))


def ids(first: int) -> np.ndarray:
    return np.arange(first, first + ROWS * WORLDS).reshape(ROWS, WORLDS)


def submit(labels: LateLabels, chunks: int) -> None:
    for k in range(chunks):
        first = k * ROWS * WORLDS
        labels.submit("judge", DELAY, ids(first), lambda first=first: verdict(first))


def told(late: list[Late]) -> list[int]:
    assert all((one.step_id == one.term).all() for one in late)
    return [int(step) for one in late for step in one.step_id]


def test_a_label_is_known_exactly_so_much_later() -> None:
    labels = LateLabels(WORLDS)
    submit(labels, 2)
    seen: list[int] = []
    for row in range(ROWS * 2 + DELAY + 3):
        seen += told(list(labels.arrived(row)))
        known = max(0, min(2 * ROWS, row - DELAY))  # step t at t + DELAY, and row steps are made
        assert seen == list(range(known * WORLDS)), row
    assert not list(labels.arrived(1000))


def test_it_waits_for_a_slow_judge_and_passes_on_its_mistake() -> None:
    labels, ready = LateLabels(WORLDS), threading.Event()

    def slow() -> Verdict:
        assert ready.wait(10.0)
        return verdict(0)

    labels.submit("judge", 0, ids(0), slow)
    assert not list(labels.arrived(0))
    threading.Timer(0.05, ready.set).start()
    assert told(list(labels.arrived(ROWS + 1))) == list(range(ROWS * WORLDS))

    def broken() -> Verdict:
        raise UserError("no words")

    labels.submit("judge", 0, ids(0), broken)
    with pytest.raises(UserError, match="no words"):
        list(labels.arrived(100))


def test_what_is_not_known_yet_is_saved(tmp_path: Path) -> None:
    labels = LateLabels(WORLDS)
    submit(labels, 2)
    first = told(list(labels.arrived(DELAY + 2)))
    other = LateLabels(WORLDS)
    other.load_state_dict(through_disk(labels.state_dict(), tmp_path))
    rest = told(list(other.arrived(1000)))
    assert rest == told(list(labels.arrived(1000)))
    assert first + rest == list(range(2 * ROWS * WORLDS))


class Failing(EnvReward):
    """Fails where the reward is negative."""

    def score(self, carry: Any, traj: Any) -> Any:
        carry, score = super().score(carry, traj)
        return carry, Score(score.value, np.where(score.value < 0, FAILED, SCORED).astype(np.int8))


def test_a_late_channel_says_what_it_would_have_said_at_once() -> None:
    reward = np.array([[1, 2], [3, -4], [5, 6]], np.float32)
    still = np.zeros(reward.shape, bool)
    parts = []
    for late in (0, 2):
        channels = {
            "now": Channel("now", EnvReward(), weight=10.0),
            "later": Channel("later", Failing(), late=late),
        }
        rewards = Rewards(channels, WORLDS, 0.9)
        state = np.zeros((*reward.shape, 1), np.float32)
        traj = rollout(state, state[:1], still, still, reward=reward)
        rewards.begin(Moment({"state": state[0]}))
        rewards.label(traj, np.zeros(reward.shape, np.int64))
        parts.append((rewards, traj))
    (_, at_once), (rewards, traj) = parts
    assert rewards.lag == 2 and np.isnan(traj.reward_terms["later"]).all() and traj.valid.all()
    np.testing.assert_array_equal(traj.reward, 10.0 * reward)
    assert rewards.counts["failed"] == 0
    (late,) = rewards.arrived(100)
    np.testing.assert_array_equal(late.step_id, traj.step_id.ravel())
    expected = np.where(at_once.valid, at_once.reward_terms["later"], np.nan)
    np.testing.assert_array_equal(late.term, expected.ravel())
    assert rewards.counts["failed"] == 1


COMMON = ["env=line_reach", "num_envs=4", "tensorboard=false", "video=false"]
SAC = ["agent=sac", "agent.warm_up=40", "agent.batch=8", "agent.compile=false"]
LATE = "reward_model.env.late"


def test_a_run_learns_from_late_labels_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    start = [*COMMON, *SAC, f"{LATE}=6"]
    whole = train([*start, "total_steps=160", f"run_dir={tmp_path}/whole"])
    part = train([*start, "total_steps=100", f"run_dir={tmp_path}/part"])
    train(["total_steps=160"], resume=part)
    ends = [open_run(run).checkpoint.state["agent"] for run in (whole, part)]
    for key, value in ends[0]["policy"].items():
        np.testing.assert_array_equal(value, ends[1]["policy"][key], err_msg=key)
    channels = ends[0]["replay"]["rows"]["channels"]
    labelled = np.isfinite(channels[..., 0]).all(1)
    assert labelled.sum() == 40 - 6 and labelled[:34].all()  # rows of 4 worlds


def test_an_agent_without_a_replay_cannot_wait(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="late=6: ppo learns from a rollout at once: take agent=sac"
    ):
        train([*COMMON, f"{LATE}=6", "total_steps=160", f"run_dir={tmp_path}/run"])
    assert not (tmp_path / "run").exists()
