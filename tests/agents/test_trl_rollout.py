"""Rollouts as TRL takes them: the very tokens, who said them, and what each was worth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from embodied.agents.gigpo import GiGPO
from embodied.agents.grpo import GRPO
from embodied.agents.language import LanguageAgent
from embodied.agents.rloo import RLOO
from embodied.agents.trl_rollout import TRLGeneration, sequences

from embodied.errors import UserError
from embodied.types import Trajectory
from tests.talks import doors, lm, talk


def agent(kind: type[LanguageAgent], **settings: Any) -> LanguageAgent:
    settings = {"standardise": False} | settings  # what a turn is worth as it is, by hand
    made = kind(**{"max_tokens": 8, "context": 256, **settings})
    made._begin(lm())
    return made


def paid(traj: Trajectory, reward: Any) -> Trajectory:
    traj.reward = np.where(traj.valid, reward, 0.0).astype(np.float32)
    return traj


def turns(out: dict[str, Any], n: int) -> list[tuple[list[int], set[float]]]:
    """The runs of tokens of sequence n that count: the tokens, and the advantages among them."""
    found: list[tuple[list[int], set[float]]] = []
    before = 0
    rows = (out[name][n] for name in ("completion_ids", "env_mask", "advantages"))
    for token, counts, worth in zip(*rows, strict=True):
        if counts:
            if not before:
                found.append(([], set()))
            found[-1][0].append(token)
            found[-1][1].add(round(worth, 5))
        else:
            assert worth == 0.0
        before = counts
    return found


def test_the_tokens_of_a_turn_have_its_advantage_by_hand() -> None:
    env = doors(2, 2, max_steps=2)
    env.reset()
    word = env.gold()[0][0]
    traj = talk([[word, "dance"], ["dance", "dance"]], group=2, env=doors(2, 2, max_steps=2))
    traj = paid(traj, [[0.5, 0.0], [0.0, 0.0]])
    out = sequences(agent(GiGPO, step_gamma=1.0), traj)
    # the episodes: 0.5 against 0. Their first turns saw the same: 0.5 and 0, mean 0.25;
    # their second ones did not
    replies = [[lm().chat.reply(text).tolist() for text in (word, "dance")] for _ in range(2)]
    replies[1][0] = replies[1][1]
    assert turns(out, 0) == [(replies[0][0], {0.75}), (replies[0][1], {0.5})]
    assert turns(out, 1) == [(replies[1][0], {-0.75}), (replies[1][1], {-0.5})]


def test_tokens_stay_as_they_were_heard_and_sampled() -> None:
    traj = paid(talk(), 0.0)
    out = sequences(agent(RLOO), traj)
    context, reply, log_prob = (traj.extras[k] for k in ("context", "reply", "log_prob"))
    for n in range(traj.shape[1]):
        last = int(np.flatnonzero(traj.valid[:, n])[-1])
        whole = [*context[last, n], *reply[last, n]]
        assert out["prompt_ids"][n] == context[0, n].tolist()
        assert out["prompt_ids"][n] + out["completion_ids"][n] == whole
        said = np.array(out["env_mask"][n], bool)
        logs = np.concatenate(log_prob[: last + 1, n])
        np.testing.assert_array_equal(np.array(out["logprobs"][n], np.float32)[said], logs)
        assert set(np.array(out["logprobs"][n])[~said]) == {0.0}


def test_a_reply_without_an_action_costs() -> None:
    traj = paid(talk([[""], ["say oak"]], env=doors(2, 2, max_steps=1)), 0.0)
    out = sequences(agent(RLOO, malformed_penalty=0.5), traj)
    assert [turns(out, n)[0][1] for n in (0, 1)] == [{-0.5}, {0.5}]


def test_an_episode_that_broke_is_there_and_does_not_count() -> None:
    traj = talk([["say oak"], ["dance"], ["say fir"], ["dance"]], group=4)
    traj.due = traj.valid.copy()
    traj.valid[1:, 3] = False  # a fault
    out = sequences(agent(RLOO), paid(traj, np.eye(len(traj.valid))[:, :1] * [1.0, 0.0, 0.5, 9.0]))
    worth = [{w for _, each in turns(out, n) for w in each} for n in range(4)]
    assert worth == [{0.75}, {-0.75}, {0.0}, set()]
    assert len(out["completion_ids"][3]) == len(out["completion_ids"][1])
    traj.valid[:] = False
    assert not any(any(row) for row in sequences(agent(GRPO), traj)["env_mask"])


def test_an_episode_that_does_not_fit_is_told() -> None:
    traj = paid(talk(), 0.0)
    traj.extras["context"][1, 0] = traj.extras["context"][1, 0][3:]  # something was forgotten
    with pytest.raises(UserError, match="more than 248 tokens.*fewer env.max_steps"):
        sequences(agent(RLOO), traj)


class Trainer:
    """What samples for TRL: replies that were thought of before, and perhaps how likely."""

    max_completion_length, temperature = 8, 0.7
    args = SimpleNamespace(per_device_train_batch_size=2)

    def __init__(self, replies: list[list[int]], log_probs: Any = None) -> None:
        self.replies, self.log_probs, self.asked = replies, log_probs, None

    def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, count: int) -> Any:
        self.asked = prompt_ids
        assert images is None and fields == {} and count == 1
        return self.replies, self.log_probs


CONTEXTS = [np.array([5, 6, 7], np.int32), np.array([8, 9], np.int32), np.array([4], np.int32)]
REPLIES = [[11, 12], [13, 14, 15], [16]]
NOISE = torch.Generator()


def test_how_likely_a_reply_was_is_read_off_the_model() -> None:
    trainer = Trainer(REPLIES)
    said = TRLGeneration(lm(), trainer).reply(CONTEXTS, np.arange(3), NOISE)
    assert [reply.tolist() for reply in said.ids] == REPLIES
    assert trainer.asked == [context.tolist() for context in CONTEXTS]
    for context, reply, got in zip(CONTEXTS, REPLIES, said.log_probs, strict=True):
        ids = torch.tensor([[*context.tolist(), *reply]])
        with torch.no_grad():
            logits = lm().model(ids).logits[0, len(context) - 1 : -1] / 0.7
        want = torch.log_softmax(logits, -1)[range(len(reply)), reply]
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4)


def test_what_vllm_tells_is_kept() -> None:
    logs = [[-0.5, None], [-1.0, -2.0, -3.0], [-4.0]]
    said = TRLGeneration(lm(), Trainer(REPLIES, logs)).reply(CONTEXTS, np.arange(3), NOISE)
    assert said.log_probs[1].tolist() == [-1.0, -2.0, -3.0] and said.log_probs[1].dtype == "float32"
    assert said.log_probs[0][0] == -0.5 and np.isnan(said.log_probs[0][1])


def test_greedy_replies_are_our_own() -> None:
    said = TRLGeneration(lm(), Trainer([])).reply(CONTEXTS, np.arange(3), NOISE, greedy=True)
    assert [len(reply) <= 8 for reply in said.ids] == [True] * 3
