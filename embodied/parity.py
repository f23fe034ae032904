"""Whether an exported graph acts as its policy does: in its worlds, at random, and at extremes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from embodied.agent import Policy
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.exported import Session
from embodied.spaces import to_vector
from embodied.types import ActionSpec, Array, Obs

TOLERANCE = 1e-5
"""By how much of an action's range the graph may differ from the policy."""
WORLDS, STEPS, RANDOM = 8, 8, 256
"""What is compared: so many worlds for so many steps, twice, and rows at random."""
SPREADS, HUGE = 10.0, 1e6
"""Extreme observations: so many spreads away; and what a normaliser must cut off."""


def compare(
    policy: Policy,
    env: Stepper,
    graph: bytes,
    inputs: Mapping[str, tuple[int, ...]],
    first: Any,
    seed: int = 0,
) -> dict[str, Any] | None:
    """By how much of an action's range the graph differs, over how many observations; None where
    onnxruntime is not installed. `first` is the first layer of the policy.

    Raises `UserError` where that is more than `TOLERANCE`.
    """
    if find_spec("onnxruntime") is None:
        return None
    spec, seen = env.action_spec, _seen(policy, env, tuple(inputs), seed)
    assert spec is not None
    session = Session(graph, inputs, spec.size)
    rows = _split(samples(to_vector(seen, tuple(inputs)), first, seed), inputs)
    obs = {key: np.concatenate([seen[key], value]) for key, value in rows.items()}
    largest = difference(policy, session, obs, spec)
    if not largest <= TOLERANCE:
        raise UserError(
            f"the graph acts otherwise than the policy, by {largest:.2g} of an action's range "
            f"(at most {TOLERANCE:g}): it is not exported"
        )
    count = len(obs[next(iter(inputs))])
    return {"largest": largest, "observations": count, "onnxruntime": session.version}


def samples(seen: Array, first: Any, seed: int = 0) -> Array:
    """Observations to compare on, `(K, D)`: at random around those `seen` `(M, D)`, and extreme.

    Of a network whose `first` layer normalises, around what that has learned, and so far away
    that it must cut them off. Elsewhere such numbers say nothing: a sum of them is rounded by more
    than an action's range, in torch too.
    """
    rng, normalises = np.random.default_rng(seed), hasattr(first, "var")
    if normalises:
        centre, spread = (np.asarray(x.detach().cpu()) for x in (first.mean, first.var.sqrt()))
    else:
        centre, spread = seen.mean(0), seen.std(0)
    spread = np.maximum(spread, 1e-3)
    size = len(centre)
    wide = rng.normal(size=(RANDOM, size)) * rng.choice([1.0, 3.0], (RANDOM, 1))
    corners = SPREADS * np.concatenate([rng.choice([-1.0, 1.0], (RANDOM, size)), [[1.0], [-1.0]]
                                        * np.ones(size)])  # fmt: skip
    rows = [centre + spread * wide, centre + spread * corners, np.zeros((1, size))]
    if normalises:
        rows += [HUGE * corners, np.sign(corners) * np.finfo(np.float32).max]
    return np.concatenate(rows).astype(np.float32)


def difference(policy: Policy, session: Session, obs: Obs, spec: ActionSpec) -> float:
    """By how much of an action's range a graph differs from the policy at most, one at a time,
    a few, and all at once; infinite where one of them takes for an action what is not finite.
    """
    count = len(next(iter(obs.values())))
    width = np.float64(spec.high) - np.float64(spec.low)
    largest = 0.0
    for size in (1, 7, count):
        some = {key: value[:size] for key, value in obs.items()}
        ours, theirs = _clamped(policy, some, spec), np.float64(session(some))
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            return math.inf
        ranged = np.isfinite(width) & (width > 0.0)
        scale = np.where(ranged, width, np.maximum(1.0, np.abs(ours)))
        largest = max(largest, float((np.abs(theirs - ours) / scale).max()))
    broken = {key: np.full_like(value[:1], np.nan) for key, value in obs.items()}
    return largest if np.isnan(session(broken)).all() else math.inf


def _clamped(policy: Policy, obs: Obs, spec: ActionSpec) -> Array:
    """The policy's greedy actions as worlds execute them."""
    _, action = policy.act(policy.carry(len(next(iter(obs.values())))), obs, greedy=True)
    return np.clip(np.float64(action), spec.low, spec.high)


def _seen(policy: Policy, env: Stepper, keys: Sequence[str], seed: int) -> dict[str, Array]:
    """Observations of the worlds as they come when the policy acts in them, `(M, ...)` float32."""
    rows = []
    for episode in range(2):
        obs = env.reset(seed=seed + episode * WORLDS)
        for _ in range(STEPS):
            rows.append({key: np.array(obs[key], np.float32) for key in keys})
            carry = policy.carry(env.num_worlds)
            step = env.step(policy.act(carry, rows[-1], greedy=True)[1])
            obs = env.reset(np.asarray(step.done)) if step.done.any() else step.obs
    return {key: np.concatenate([row[key] for row in rows]) for key in keys}


def _split(rows: Array, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Flat vectors `(K, D)` as observations by name."""
    ends = np.cumsum([math.prod(shape) for shape in inputs.values()])[:-1]
    parts = zip(inputs.items(), np.split(rows, ends, axis=1), strict=True)
    return {key: part.reshape(-1, *shape) for (key, shape), part in parts}
