"""Rollouts of a policy that speaks, as the sequences that a model is trained on."""

from __future__ import annotations

import numpy as np
import torch

from embodied.causal_lm import IGNORED
from embodied.transcripts import transcripts
from tests.talks import doors, lm, talk


def test_an_episode_is_one_sequence_with_every_turn_in_its_place() -> None:
    traj = talk([["say nothing", "dance", "say ash"], ["dance"]], group=1)
    data = transcripts(traj, lm().pad)
    assert len(data) == 2 and data.world.tolist() == [0, 1]
    said = [lm().chat.text(data.ids[0][data.turn[0] == t].numpy()) for t in range(traj.shape[0])]
    assert said[:3] == ["say nothing", "dance", "say ash"]
    whole = lm().tokenizer.decode(data.ids[0].tolist())
    assert whole.count("assistant\n") == traj.shape[0] and "What? The door says" in whole
    np.testing.assert_array_equal(data.targets == IGNORED, data.turn < 0)
    np.testing.assert_array_equal(data.ids[data.turn >= 0], data.targets[data.turn >= 0])


def test_the_policy_s_own_likelihood_is_that_of_the_whole_sequence() -> None:
    data = transcripts(talk(group=2), lm().pad)
    with torch.no_grad():
        again = lm().logprobs(data.ids, data.targets)[0]
    np.testing.assert_allclose(again.numpy(), data.log_prob.numpy(), atol=1e-4)


def test_turns_and_tokens_there_and_back() -> None:
    traj = talk(group=2)
    data = transcripts(traj, lm().pad)
    values = np.arange(traj.reward.size, dtype=np.float32).reshape(traj.shape)
    spread = data.spread(values)
    assert (spread[data.turn < 0] == 0).all()
    back = data.gathered(spread * data.begins, traj.shape).numpy()
    np.testing.assert_array_equal(back, np.where(traj.valid, values, 0.0))
    counts = data.gathered(torch.ones_like(spread), traj.shape)
    assert int(counts[0, 0]) == len(traj.extras["reply"][0, 0])


def test_a_turn_that_does_not_continue_the_last_begins_a_sequence() -> None:
    traj = talk([["say nothing"]], group=1, env=doors(1, 1, max_steps=3))
    context = traj.extras["context"]
    context[1, 0] = context[0, 0]  # as if all between had been forgotten
    data = transcripts(traj, lm().pad)
    assert data.world.tolist() == [0, 0]
    assert [sorted(set(row.tolist()) - {-1}) for row in data.turn] == [[0], [1, 2]]


def test_some_of_the_sequences_are_cut_to_the_longest_of_them() -> None:
    traj = talk([["dance"], ["say nothing"] * 4], group=1)
    data = transcripts(traj, lm().pad)
    part = data.rows(torch.tensor([1]))
    assert part.ids.shape == (1, int((data.turn[1] >= 0).nonzero().max()) + 1)
