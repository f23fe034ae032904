"""What reward code is tried on before anything is trained: episodes of everyone who can play them.

All that code may read of them is kept, and true success, which it never sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embodied.agent import Policy
from embodied.demonstrators import find_demonstrator
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.task import Task
from embodied.types import Obs

IDLE = "idle"
"""Who does nothing: the action nearest to zero."""


@dataclass(frozen=True)
class Evidence:
    """`rows` are `(K, T, ...)` float32 by name, `action` among them, of K episodes by `sources`.

    Steps after an episode's end are not `played` `(K, T)`; `success` `(K,)` is the truth.
    """

    rows: dict[str, np.ndarray]
    sources: tuple[str, ...]
    played: np.ndarray
    success: np.ndarray

    @property
    def flat(self) -> dict[str, np.ndarray]:
        """All steps that were played, `(M, ...)` by name."""
        return {name: value[self.played] for name, value in self.rows.items()}

    def returns(self, reward: np.ndarray) -> np.ndarray:
        """The mean reward a step of each episode `(K,)`, from rewards `(M,)` of `flat`."""
        whole = np.zeros(self.played.shape)
        whole[self.played] = reward
        return whole.sum(1) / np.maximum(self.played.sum(1), 1)


def who_plays(env: TaskEnv) -> tuple[str, ...]:
    """All there are: idling, chance, and the expert with its flaws where there is one."""
    if type(env.task).expert is Task.expert:
        return (IDLE, "random")
    return (IDLE, "random", "expert", *(f"expert:{flaw.name}" for flaw in env.task.flaws))


def gather(env: TaskEnv, steps: int | None = None, seed: int = 0) -> Evidence:
    """Episodes of `who_plays`, one after the other, one in each world of `env`.

    They last `steps` at most (by default as long as the env lets them). Raises `UserError` for an
    env that names nothing to read.
    """
    if not env.task.quantities:
        raise UserError(f"env={env.name} names nothing that reward code could read")
    return play(env, who_plays(env), steps, seed)


def play(
    env: TaskEnv,
    sources: Sequence[str],
    steps: int | None = None,
    seed: int = 0,
    policies: Mapping[str, Policy] | None = None,
) -> Evidence:
    """Episodes of each of `sources`, who may be one of `policies` by name."""
    steps = min(steps or env.max_steps, env.max_steps)
    parts = [_play(env, source, steps, seed, policies) for source in sources]
    rows = {name: np.concatenate([p[0][name] for p in parts]) for name in parts[0][0]}
    labels = tuple(source for source in sources for _ in range(env.num_worlds))
    played, success = (np.concatenate([p[k] for p in parts]) for k in (1, 2))
    return Evidence(rows, labels, played, success)


def _play(
    env: TaskEnv, source: str, steps: int, seed: int, policies: Mapping[str, Policy] | None
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """One episode a world: what may be read `(N, T, ...)`, which steps count, who succeeded."""
    count = env.num_worlds
    seeds = seed + np.arange(count)
    obs: Obs = env.reset(seed=seeds)
    player = None if source == IDLE else find_demonstrator(source, env, policies)
    if player is not None:
        player.begin(np.ones(count, bool), seeds)
    rows: dict[str, list[np.ndarray]] = {}
    played, success = np.zeros((count, steps), bool), np.zeros(count, bool)
    running = np.ones(count, bool)
    for t in range(steps):
        if player is None:
            action = np.clip(0.0, env.action_spec.low, env.action_spec.high) + np.zeros((count, 1))
        else:
            action = player.act(obs, seeds, np.full(count, t))[0]
        step = env.step(action.astype(np.float32))
        told = env.readouts()
        for q in env.task.quantities:
            rows.setdefault(q.name, []).append(np.array(told[f"world.{q.name}"], np.float32))
        rows.setdefault("action", []).append(np.array(step.action_executed, np.float32))
        played[:, t] = running & (step.fault == 0)
        success |= running & step.success
        running &= ~(step.terminated | step.truncated)
        obs = step.obs
    return {name: np.stack(parts, 1) for name, parts in rows.items()}, played, success
