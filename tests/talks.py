"""Talks with the doors of `text_toys`, in which is said what a test wants, and a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from embodied.agents.language_policy import LanguagePolicy

from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.collect import Collector
from embodied.conversations import all_texts, experts
from embodied.generation import Generation, Replies
from embodied.reward_model import Channel, Needs
from embodied.rewards import Rewards
from embodied.text_env import TextEnv
from embodied.tiny_lm import tiny_model, tiny_tokenizer
from embodied.types import SCORED, Score, Trajectory

DOORS = {"_target_": "tests.text_toys.Doors", "doors": 2}
READ = (
    "success",
    "reward",
    "world.valid",
    "world.reached",
    "world.subgoals",
    "world.progress",
    "world.begun",
)


def doors(num_worlds: int = 4, group: int = 2, max_steps: int = 5, **options: Any) -> TextEnv:
    return TextEnv(DOORS, "doors", num_worlds, group=group, max_steps=max_steps, **options)


@cache
def lm() -> CausalLM:
    """An untrained model that knows the doors' words. Clone it to train it."""
    words = all_texts(experts(doors(12, 1), range(12)))
    tokenizer = tiny_tokenizer([*words, "say nothing What?"], 400)
    return CausalLM(tiny_model(tokenizer, 32, 2, 2, context=512), tokenizer)


def talk(
    plans: Sequence[Sequence[str]] | None = None,
    model: CausalLM | None = None,
    group: int = 2,
    readouts: Sequence[str] = READ,
    env: TextEnv | None = None,
    transform: Any = None,
) -> Trajectory:
    """One episode of every world: `plans[i]` is said in world i, the last of it again and again.

    By default the gold actions. It has all that a language policy tells, and no reward yet.
    """
    env = env or doors(4 if plans is None else len(plans), group)
    rewards = Rewards({"all": Channel("all", _All(readouts))}, env.num_worlds, 1)
    collector = Collector(env, rewards, transform=transform)
    policy = LanguagePolicy(model or lm(), 16, 1.0, 512, None, 0)
    collector.start(policy)
    policy.generation = _Said(policy.lm, env.gold() if plans is None else plans)
    return collector.collect(policy, None)


class _Said(Generation):
    """Says what it is told to, and how likely the model would have said it."""

    def __init__(self, model: CausalLM, plans: Sequence[Sequence[str]]) -> None:
        super().__init__(model)
        self.plans, self.turn = plans, 0

    def reply(self, contexts: Any, rows: Any, noise: Any, greedy: bool = False) -> Replies:
        texts = [self.plans[row][min(self.turn, len(self.plans[row]) - 1)] for row in rows]
        self.turn += 1
        ids = [self.lm.chat.reply(text) for text in texts]
        whole = padded([np.concatenate(pair) for pair in zip(contexts, ids, strict=True)], 0)
        targets = torch.full_like(whole, IGNORED)
        for k, (context, said) in enumerate(zip(contexts, ids, strict=True)):
            end = len(context) + len(said)
            targets[k, len(context) : end] = whole[k, len(context) : end]
        with torch.no_grad():
            each = self.lm.logprobs(whole, targets)[0].numpy()
        logs = [row[t != IGNORED] for row, t in zip(each, targets.numpy(), strict=True)]
        return Replies(ids, logs)


class _All:
    kind, scope, causal, value_range = "reward", "step", True, (0.0, 0.0)

    def __init__(self, readouts: Sequence[str]) -> None:
        self.needs = Needs(readouts=frozenset(readouts))

    def begin(self, carry: Any, mask: Any, moment: Any) -> Any:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Any, traj: Trajectory) -> Any:
        return carry, Score(np.zeros(traj.shape, np.float32), np.full(traj.shape, SCORED, np.int8))

    def state_dict(self) -> dict:
        return {}
