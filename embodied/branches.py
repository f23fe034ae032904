"""Steps compared with others that might have been: several continuations of one episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.agent import Policy
from embodied.errors import UserError, check_range
from embodied.text_env import TextEnv
from embodied.text_space import texts
from embodied.types import Array, Carry, Obs, Step

Judge = Callable[[Obs, Step, Mapping[str, Array]], Array]
"""Scores `(k,)` of k next steps, given what was seen before, the steps (what was said is their
`action_executed`), and the readouts after them."""


@dataclass(frozen=True)
class Branches:
    """Next steps of one episode, `(k,)` each: what was said, its score, and that less the mean."""

    actions: Array
    scores: Array
    advantages: Array


def branches(
    env: TextEnv, policy: Policy, row: Mapping[str, Any], carry: Carry, k: int, judge: Judge
) -> Branches:
    """Let a policy make the next step of an episode `k` times, and judge each.

    Truncated step sampling (SLATE, known to us by its abstract): the continuations share a prefix
    and differ in the next step alone, so that the advantage of a step has none of the variance of
    what comes before and after it, which can be a factor of the episode's length.

    `row` is the episode, as `env.snapshot` gives it (also that of another env of the same worlds);
    `carry` what the policy remembers of it, `(1, ...)` each. The env is afterwards as it was; its
    episodes are played again for that, so an env of its own, of `k` worlds, is quicker. A branch
    whose world fails, or whose score is not finite, has an advantage of 0 and no part in the mean.

    Raises `UserError` for an episode that is over, and for more branches than worlds.
    """
    check_range("branches", 1, env.num_worlds, k=k)
    before, worlds = env.state_dict(), np.arange(k)
    try:
        seen = _first(env.restore([dict(row)] * k, worlds), k)
        if row["elapsed"] >= env.max_steps or env.state_dict()["over"][0, 0]:
            raise UserError("the episode is over: give one that has a next step")
        copies = {name: np.repeat(value, k, axis=0) for name, value in carry.items()}
        _, actions = policy.act(copies, seen)
        said = texts([""] * env.num_worlds)
        said[:k] = actions
        step = _cut(env.step(said), k)
        scores = np.asarray(judge(seen, step, _first(env.readouts(), k)), np.float64)
    finally:
        env.load_state_dict(before)
    if scores.shape != (k,):
        raise ValueError(f"scores have shape {scores.shape}, expected {(k,)}")
    return Branches(actions, scores, centred(scores, step.fault == 0))


def centred(scores: Array, sound: Array) -> Array:
    """Scores `(k,)` less their mean; 0 for those that are not `sound` or not finite."""
    counts = sound & np.isfinite(scores)
    mean = scores[counts].mean() if counts.any() else 0.0
    return np.where(counts, scores - mean, 0.0)


def _first(values: Mapping[str, Array], k: int) -> dict[str, Array]:
    return {name: value[:k] for name, value in values.items()}


def _cut(step: Step, k: int) -> Step:
    return Step(
        obs=_first(step.obs, k),
        reward=step.reward[:k],
        reward_terms=_first(step.reward_terms, k),
        terminated=step.terminated[:k],
        truncated=step.truncated[:k],
        success=step.success[:k],
        fault=step.fault[:k],
        action_executed=step.action_executed[:k],
        info=_first(step.info, k),
    )
