"""Rollouts of a language policy as TRL takes them, and its replies as TRL samples them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.errors import UserError
from embodied.generation import Generation, Replies
from embodied.transcripts import transcripts
from embodied.types import Trajectory

from .language import LanguageAgent, sound_alone


def sequences(agent: LanguageAgent, traj: Trajectory) -> dict[str, Any]:
    """A rollout `(T, N)` as TRL takes it: N sequences, with a list of each for every world.

    "prompt_ids" end where the first reply begins; "completion_ids" are all tokens from there on, as
    they were sampled and heard, and of these: "logprobs"; "env_mask", 1 for what was said in an
    episode that can be learned from; "advantages", what its turn was worth to the `agent`.
    """
    lm, sound = agent.policy.lm, sound_alone(traj)
    played = np.ones(traj.shape, bool) if traj.due is None else np.asarray(traj.due)
    data = transcripts(replace(traj, valid=played), lm.pad)
    if len(data) > traj.shape[1]:
        raise UserError(
            f"an episode has more than {agent.policy.context} tokens, and TRL takes it as one "
            "sequence: give fewer env.max_steps, or a smaller max_completion_length"
        )
    worth = np.zeros(traj.shape, np.float32)
    if sound.valid.any():
        malformed = sound.extras["malformed"].astype(bool) & sound.valid
        reward = np.where(sound.valid, sound.reward - agent.malformed_penalty * malformed, 0.0)
        worth = agent.advantages(sound, reward)
    said = data.spread(sound.valid) > 0
    tokens = {
        "completion_ids": data.ids,
        "logprobs": data.log_prob,
        "env_mask": said.long(),
        "advantages": agent.weighed(data.spread(worth), said),
    }
    out: dict[str, Any] = {name: [] for name in ("prompt_ids", *tokens)}
    for n in range(len(data)):
        said = (data.turn[n] >= 0).nonzero()
        begin, end = int(said[0]), int(said[-1]) + 1
        out["prompt_ids"].append(data.ids[n, :begin].tolist())
        for name, values in tokens.items():
            out[name].append(values[n, begin:end].tolist())
    return out


class TRLGeneration(Generation):
    """Samples replies as a trainer does: with vLLM, in continuous batches, or by `generate`.

    What TRL does not tell of the log-probabilities is read off the model. Greedy replies, for
    evaluation, are our own.
    """

    def __init__(self, lm: CausalLM, trainer: Any) -> None:
        super().__init__(lm, trainer.max_completion_length, trainer.temperature)
        self.trainer = trainer

    def reply(
        self, contexts: Sequence[np.ndarray], rows: np.ndarray, noise: torch.Generator,
        greedy: bool = False,
    ) -> Replies:  # fmt: skip
        if greedy:
            return super().reply(contexts, rows, noise, greedy)
        asked = [context.tolist() for context in contexts]
        said, log_probs = self.trainer._generate_single_turn(asked, None, {}, 1)
        ids = [np.array(reply, np.int32) for reply in said]
        if log_probs is None:
            log_probs = self._likelihood(contexts, ids)
        return Replies(ids, [np.array(each, np.float32) for each in log_probs])

    @torch.no_grad()
    def _likelihood(
        self, contexts: Sequence[np.ndarray], replies: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        out: list[np.ndarray] = []
        at_once = self.trainer.args.per_device_train_batch_size
        for start in range(0, len(replies), at_once):
            turns = list(zip(contexts, replies, strict=True))[start : start + at_once]
            ids = padded([np.concatenate(turn) for turn in turns], self.lm.pad, self.lm.device)
            targets = torch.full_like(ids, IGNORED)
            own = [slice(len(context), len(context) + len(reply)) for context, reply in turns]
            for row, part in enumerate(own):
                targets[row, part] = ids[row, part]
            each = self.lm.logprobs(ids, targets, self.temperature)[0].cpu().numpy()
            out += [each[row, part] for row, part in enumerate(own)]
        return out
