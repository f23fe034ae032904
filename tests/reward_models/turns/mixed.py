"""Talks of which some succeed, and a language model whose likelihoods are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embodied.causal_lm import IGNORED
from embodied.types import Trajectory
from tests.talks import READ, doors, talk


def mixed(seed: int = 0, worlds: int = 8, readouts: tuple[str, ...] = READ) -> Trajectory:
    """Groups of four: two say the gold actions, one only the first of them, one none."""
    twin = doors(worlds, 4, seed=seed)
    twin.reset()
    plans = [
        (plan, [plan[0], "dance"], plan, ["dance"])[i % 4] for i, plan in enumerate(twin.gold())
    ]
    return talk(plans, readouts=readouts, env=doors(worlds, 4, seed=seed))


def constant(each: float) -> Any:
    """In place of `CausalLM.logprobs`: every token that was said is as likely."""

    def logprobs(ids: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        said = (targets != IGNORED).float()
        return said * each, torch.zeros_like(said)

    return logprobs
