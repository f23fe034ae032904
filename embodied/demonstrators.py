"""Who acts while episodes are recorded.

    expert, expert:FLAW      the task's scripted expert, or its flawed variant
    varied                   the expert at a pace of its own, with slightly unsteady hands
    noisy, noisy:SHARE       the expert, which random actions interrupt and which recovers;
    noisy:SHARE:FLAW         what it meant to do is recorded, not what interrupted it
    random                   uniform actions within their limits
    anything else            a policy that is given by that name

What one does in an episode depends on the episode's seed, the step and the world alone, so a
recording is the same however many worlds there are. `varied` and `noisy` scale and replace
actions: they are for tasks in which the action zero means to hold still.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from embodied.actor import Expert, seat
from embodied.agent import Policy
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.random import Draw
from embodied.types import ActionSpec, Obs

STRETCH_STEPS = 10  # for which a varied expert keeps its pace
BURST_STEPS = 5  # for which a noisy expert acts at random
NOISE_SHARE = 0.2  # of a noisy expert's steps, where not said otherwise
UNSTEADY = 0.02  # standard deviation of a varied expert's noise, in ranges of the action

Actions = tuple[np.ndarray, np.ndarray]


class Demonstrator(Protocol):
    """Acts in all worlds `(N,)`; those that it does not play get an action that nobody uses."""

    def begin(self, mask: np.ndarray, seeds: np.ndarray) -> None:
        """New episodes begin in the worlds of `mask`; `seeds` `(N,)` are those of all worlds."""

    def act(self, obs: Obs, seeds: np.ndarray, turn: np.ndarray) -> Actions:
        """What is played at step `turn` `(N,)` of each world's episode, and what was meant.

        Both `(N, A)`. They differ where something disturbs the actor: then what was meant is worth
        imitating, and is recorded (as in DART, Laskey et al. 2017, arXiv 1703.09327).
        """


def find_demonstrator(
    source: str, env: TaskEnv, policies: Mapping[str, Policy] | None = None
) -> Demonstrator:
    """The one that `source` names, see the head of this file. Raises `UserError`."""
    if policies and source in policies:
        return _Trained(policies[source], env.num_worlds)
    kind, _, detail = source.partition(":")
    if kind == "expert":
        return _Scripted(env, detail or None)
    if kind == "noisy":
        share, _, flaw = detail.partition(":")
        return _Noisy(env, _share(source, share) if detail else NOISE_SHARE, flaw or None)
    if source == "varied":
        return _Varied(env)
    if source == "random":
        return _Random(env)
    known = "expert, expert:FLAW, varied, noisy, noisy:SHARE[:FLAW], random, or a run directory"
    raise UserError(f"unknown source {source!r}: give {known}")


def _share(source: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise UserError(f"{source}: give the share of random steps as a number from 0 to 1")
    return share


class _Scripted:
    def __init__(self, env: TaskEnv, flaw: str | None = None) -> None:
        self.expert = Expert(env, flaw)

    def begin(self, mask: np.ndarray, seeds: np.ndarray) -> None:
        pass

    def act(self, obs: Obs, seeds: np.ndarray, turn: np.ndarray) -> Actions:
        action = np.asarray(self.expert.act({}, obs)[1], np.float32)
        return action, action


class _Varied(_Scripted):
    """An episode has a slow pace, drawn from (0, 1); in half of its stretches it is kept."""

    def act(self, obs: Obs, seeds: np.ndarray, turn: np.ndarray) -> Actions:
        episode = _draw(seeds)
        slow = episode.at(turn // STRETCH_STEPS).uniform("slow") < 0.5
        pace = np.where(slow, episode.uniform("pace"), 1.0)
        meant = (super().act(obs, seeds, turn)[1] * pace[:, None]).astype(np.float32)
        spec = self.expert.env.action_spec
        noise = episode.at(turn).normal("hands", meant.shape[1:], UNSTEADY) * _range(spec)
        return (meant + noise).astype(np.float32), meant


class _Noisy(_Scripted):
    def __init__(self, env: TaskEnv, share: float, flaw: str | None = None) -> None:
        super().__init__(env, flaw)
        self.share, self.chance = share, _Random(env)

    def act(self, obs: Obs, seeds: np.ndarray, turn: np.ndarray) -> Actions:
        _, meant = super().act(obs, seeds, turn)
        burst = _draw(seeds).at(turn // BURST_STEPS).uniform("burst") < self.share
        return np.where(burst[:, None], self.chance.act(obs, seeds, turn)[0], meant), meant


class _Random:
    def __init__(self, env: TaskEnv) -> None:
        self.spec = env.action_spec

    def begin(self, mask: np.ndarray, seeds: np.ndarray) -> None:
        pass

    def act(self, obs: Obs, seeds: np.ndarray, turn: np.ndarray) -> Actions:
        unit = _draw(seeds).at(turn).uniform("chance", (self.spec.size,), -1.0, 1.0)
        middle = np.where(np.isfinite(self.spec.low), self.spec.low, -1.0) + 0.5 * _range(self.spec)
        action = (middle + 0.5 * _range(self.spec) * unit).astype(np.float32)
        return action, action


class _Trained:
    def __init__(self, policy: Policy, num_worlds: int) -> None:
        self.policy = policy
        self.carry = policy.carry(num_worlds)

    def begin(self, mask: np.ndarray, seeds: np.ndarray) -> None:
        fresh = self.policy.carry(len(mask))
        seat(self.policy, seeds)
        for name, value in self.carry.items():
            value[mask] = fresh[name][mask]

    def act(self, obs: Obs, seeds: np.ndarray, turn: np.ndarray) -> Actions:
        self.carry, played = self.policy.act(self.carry, obs, True)
        action = np.asarray(played, np.float32)
        return action, action


def _draw(seeds: np.ndarray) -> Draw:
    return Draw(seeds, np.zeros_like(seeds))


def _range(spec: ActionSpec) -> np.ndarray:
    """How far apart the limits of an action are, `(A,)`; 2 where it has none."""
    width = spec.high.astype(np.float64) - spec.low
    return np.where(np.isfinite(width), width, 2.0)
