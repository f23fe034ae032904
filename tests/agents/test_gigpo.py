"""GiGPO's two parts, and rewards of turns as the second."""

from __future__ import annotations

import numpy as np
import pytest
from embodied.agents.gigpo import GiGPO

from embodied.errors import UserError
from tests.talks import doors, talk


def test_both_parts_by_hand() -> None:
    env = doors(2, 2, max_steps=2)
    env.reset()
    word = env.gold()[0][0]
    traj = talk([[word, "dance"], ["dance", "dance"]], group=2, env=doors(2, 2, max_steps=2))
    reward = np.array([[0.5, 0.0], [0.0, 0.0]])
    # the episodes: 0.5 against 0. Their first turns saw the same: 0.5 and 0, mean 0.25;
    # their second ones did not
    got = GiGPO(step_gamma=1.0).advantages(traj, reward)
    np.testing.assert_allclose(got, [[0.5 + 0.25, -0.5 - 0.25], [0.5, -0.5]])
    half = GiGPO(step_gamma=1.0, weight=0.5, episode="grpo").advantages(traj, reward)
    np.testing.assert_allclose(half, [[1.125, -1.125], [1.0, -1.0]], atol=1e-4)


def test_a_process_reward_is_the_step_part_and_no_part_of_the_episode_s() -> None:
    traj = talk([["dance"], ["say oak"]], group=2, env=doors(2, 2, max_steps=2))
    process = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    outcome = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    traj.reward_terms = {"outcome": outcome, "verified_turn": process}
    traj.weights = {"outcome": 1.0, "verified_turn": 2.0}
    learner = GiGPO(process=["verified_turn"], baseline="group", step_gamma=0.0)
    got = learner.advantages(traj, outcome + 2 * process)
    # turns pay 2, 0, 0, 2: mean 1, deviation 1; the episodes 1 and 0 in all
    np.testing.assert_allclose(got, [[1 + 1, -1 - 1], [1 - 1, -1 + 1]], atol=1e-4)
    traj.weights["verified_turn"] = 1.0  # turns pay 1, 0, 0, 1: mean 0.5, deviation 0.5
    for scale, part in ((True, 1.0), (False, 0.5)):
        for baseline in ("group", "turn", "state"):  # both saw the same first, not the same then
            how = {"baseline": baseline, "scale": scale, "step_gamma": 0.0}
            got = GiGPO(process=["verified_turn"], **how).advantages(traj, outcome + process)
            np.testing.assert_allclose(got[0], [1 + part, -1 - part], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"episode": "ppo"}, "unknown agent.episode 'ppo'"),
        ({"baseline": "none"}, "unknown agent.baseline 'none'"),
        ({"step_gamma": 2.0}, "agent.step_gamma=2"),
    ],
)
def test_bad_settings_are_told(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        GiGPO(**settings)


def test_a_channel_that_is_not_there_is_told() -> None:
    traj = talk(group=2)
    with pytest.raises(UserError, match=r"agent.process=\['milestones'\]: no such reward model"):
        GiGPO(process=["milestones"]).advantages(traj, traj.reward)
