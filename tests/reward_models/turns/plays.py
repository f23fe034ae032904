"""Episodes of text worlds: some written by hand, and plans that are carried out word by word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.build import make_env
from embodied.collect import Collector
from embodied.config import compose_config
from embodied.reward_model import Channel, RewardModel
from embodied.rewards import Rewards
from embodied.text_env import TextEnv
from embodied.text_space import texts
from embodied.types import Array, Carry, Obs, Trajectory
from tests.toys import chunks, rollout


def by_hand(ends: Sequence[str], **readouts: Any) -> Trajectory:
    """Turns of worlds: of each world a letter a turn, "." goes on, "T" and "C" end an episode
    (terminated, truncated), "-" rests. `readouts` are `(T, N)` each, a name's "__" a point."""
    letters = np.array([list(row) for row in ends]).T
    blank = np.zeros((*letters.shape, 1))
    given = {name.replace("__", "."): _array(value) for name, value in readouts.items()}
    traj = rollout(blank, blank, letters == "T", letters == "C", **given)
    rests = letters == "-"
    traj.is_first &= ~rests
    traj.valid = ~rests
    traj.due = ~rests
    return traj


def _array(value: Any) -> Array:
    flat = np.asarray(value, object)
    return texts(value) if isinstance(flat.flat[0], str) else np.asarray(value)


def values(model: Any, traj: Trajectory, length: int | None = None) -> Array:
    """A model's values, in chunks of `length` or at once."""
    carry = model.begin({}, np.ones(traj.shape[1], bool), None)[0]
    parts = []
    for part in chunks(traj, length or traj.shape[0]):
        carry, score = model.score(carry, part)
        parts.append(score.value)
    return np.concatenate(parts)


class Planned:
    """Says the actions of plans, one a turn, world by world; the last again and again."""

    action_spec = None

    def __init__(self, plans: Sequence[Sequence[str]]) -> None:
        self.plans = plans

    def carry(self, num_worlds: int) -> Carry:
        return {"world": np.arange(num_worlds), "turn": np.zeros(num_worlds, np.int64)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        pairs = zip(carry["world"], carry["turn"], strict=True)
        said = [self.plans[n][min(t, len(self.plans[n]) - 1)] for n, t in pairs]
        return {**carry, "turn": carry["turn"] + 1}, texts(said)


def open_env(name: str, num_worlds: int, *overrides: str) -> TextEnv:
    env: Any = make_env(compose_config([f"env={name}", *overrides]), num_worlds, 0)
    return env


def play(
    env: TextEnv, model: RewardModel, plans: Sequence[Sequence[str]] | None = None
) -> Trajectory:
    """One episode of every world, as it is rewarded; the gold actions where no plans are given."""
    channel = Channel("it", model, whole=True)
    collector = Collector(env, Rewards({"it": channel}, env.num_worlds, 1.0))
    collector.start(Planned([]))
    return collector.collect_episodes(Planned(env.gold() if plans is None else plans))
