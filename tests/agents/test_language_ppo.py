"""PPO's values and advantages of turns."""

from __future__ import annotations

import numpy as np
import torch
from embodied.agents.language_ppo import LanguagePPO

from embodied.transcripts import transcripts
from tests.talks import doors, lm, talk


def learner(**settings: float) -> LanguagePPO:
    made = LanguagePPO(max_tokens=8, context=256, **settings)
    made._begin(lm().clone())
    return made


def test_advantages_over_turns_by_hand() -> None:
    traj = talk([["dance"], ["say oak"]], group=1, env=doors(2, 1, max_steps=2))
    made = learner(lam=0.5)
    reward = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    value = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    got, target = made._turns(traj, value, reward)
    # first world: delta = 0 + 1 - 1 = 0 and 2 - 1 = 1 (its limit ends it): 0 + .5 * 1, 1
    # second: 1 + 0 - .5 = .5 and 0
    np.testing.assert_allclose(got, [[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(target, [[1.5, 1.0], [2.0, 0.0]])


def test_the_critic_learns_what_is_to_come() -> None:
    traj = talk([["dance"], ["say oak"]], group=1, env=doors(2, 1, max_steps=2))
    traj.reward = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    made = learner(critic_lr=0.05, lr=0.0, epochs=200, value_weight=1.0)
    made.minibatches = 1
    made.update(traj)
    data = transcripts(traj)
    with torch.no_grad():
        value = data.gathered(made._values(data) * data.begins, traj.shape)
    assert value[1, 0] > 0.7 and abs(float(value[1, 1])) < 0.3


def test_a_turn_that_was_taken_out_is_passed_over() -> None:
    traj = talk([["dance"]], group=1, env=doors(1, 1, max_steps=3))
    traj.valid[1] = False
    made = learner(lam=1.0)
    reward, value = torch.tensor([[0.0], [9.0], [2.0]]), torch.tensor([[1.0], [7.0], [1.5]])
    got, target = made._turns(traj, value, reward)
    # 0 + 1.5 - 1, and then 2 - 1.5; with lam = 1 the first is 2 - 1
    np.testing.assert_allclose(got[:, 0], [1.0, 0.0, 0.5])
    np.testing.assert_allclose(target[[0, 2], 0], [2.0, 2.0])
