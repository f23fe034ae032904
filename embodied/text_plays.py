"""Plays what is planned in worlds of text, and lays the episodes side by side for a reward model.

Every episode is played once, in the world itself, through the collector; which of them are shown to
a model together, and what is planted in what it sees, is decided afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embodied.collect import Collector
from embodied.errors import UserError
from embodied.reward_model import Channel, Needs
from embodied.rewards import Rewards
from embodied.text_env import TextEnv
from embodied.text_pairs import Pair, Play, Task
from embodied.text_space import texts
from embodied.types import SCORED, ActionSpec, Array, Carry, Moment, Obs, Score, Trajectory

READ = ("success", "world.valid", "world.reached", "world.progress")
_AT_REST = ("success", "reward")
"""Readouts that are nothing while a world rests; a world's own stay as they were."""


class Played:
    """Episodes that have been played in `env`, each once, and what a model needs to judge them.

    Raises `UserError` where the env does not tell a readout that is needed.
    """

    def __init__(self, env: TextEnv, readouts: Iterable[str] = ()) -> None:
        self.env = env
        watch = Channel("watch", _Watch({*READ, *readouts}))
        self.stage: Any = _Stage(env)
        self.collector = Collector(
            self.stage, Rewards({"watch": watch}, env.num_worlds, 1.0), max_fault_rate=1.0
        )
        self._at: dict[tuple[int, tuple[str, ...]], int] = {}
        self._parts: list[Trajectory] = []

    def play(self, plays: Iterable[Play]) -> None:
        """Play those that have not been played."""
        wanted = dict.fromkeys((play.task, play.said) for play in plays)
        new = sorted((key for key in wanted if key not in self._at), key=lambda key: len(key[1]))
        worlds = self.env.num_worlds
        for start in range(0, len(new), worlds):
            chunk = new[start : start + worlds]
            idle = (chunk[0][0], ("",))
            self.stage.plays = chunk + [idle] * (worlds - len(chunk))
            plans = [said for _, said in self.stage.plays]
            self.collector.start(_Says(plans), stagger=False)
            self._at |= {key: len(self._parts) * worlds + k for k, key in enumerate(chunk)}
            self._parts.append(self.collector.collect_episodes(_Says(plans)))

    def sound(self, pair: Pair) -> bool:
        """Whether both were played without a fault, and the pair is fair."""
        good, bad = self._column(pair.better), self._column(pair.worse)
        if not all(traj.valid[_rows(traj, n), n].all() for traj, n in (good, bad)):
            return False
        won, lost = (traj.readouts["success"][_rows(traj, n)[-1], n] for traj, n in (good, bad))
        able = bad[0].readouts["world.valid"][:, bad[1]]
        rows = len(_rows(*bad))
        possible = all(turn < rows and able[turn] for turn in pair.possible)
        return bool(possible and (won or not pair.wins) and not (lost and pair.loses))

    def shown(self, plays: Sequence[Play], group: Sequence[int] | np.ndarray) -> Trajectory:
        """A rollout in which world n plays `plays[n]`, and belongs to `group[n]`."""
        columns = [self._column(play) for play in plays]
        steps = max(len(_rows(*column)) for column in columns)
        parts = [_one(traj, n, steps) for traj, n in columns]
        for play, part in zip(plays, parts, strict=True):
            if play.planted:
                _plant(part, play)
        return _beside(parts, np.array(group))

    def turns(self, play: Play) -> int:
        """How long an episode was."""
        return len(_rows(*self._column(play)))

    def told(self, play: Play) -> tuple[tuple[str, ...], Trajectory]:
        """The world's texts in an episode, `(T + 1)`, and its rollout, `(T, 1)`."""
        alone = self.shown([play], [0])
        seen = [str(alone.obs["text"][0, 0]), *map(str, alone.next_obs["text"][:, 0])]
        return tuple(seen), alone

    def _column(self, play: Play) -> tuple[Trajectory, int]:
        part, n = divmod(self._at[play.task, play.said], self.env.num_worlds)
        return self._parts[part], n


def solved(env: TextEnv, count: int, played: Played) -> list[Task]:
    """So many tasks of an env, played as they are solved.

    Raises `UserError` where an env does not say how, or that does not solve it.
    """
    plans: list[tuple[int, tuple[str, ...]]] = []
    for start in range(0, count, env.num_worlds):
        env.reset(seed=np.arange(start, start + env.num_worlds))
        ids = np.arange(min(env.num_worlds, count - start))
        rows = zip(env.snapshot(ids), env.gold(ids), strict=True)
        plans += [(row["task"], tuple(gold)) for row, gold in rows]
    plans = list(dict.fromkeys(plans))
    last = [Play(number, gold[-1:]) for number, gold in plans]
    played.play([*(Play(number, gold) for number, gold in plans), *last])
    out = []
    for (number, gold), end in zip(plans, last, strict=True):
        seen, traj = played.told(Play(number, gold))
        if not traj.readouts["success"][-1, 0]:
            raise UserError(f"{env.name}: the gold actions of task {number} do not solve it")
        reached = traj.readouts["world.reached"][:, 0]
        counts = np.diff(reached, prepend=0.0) > 0  # what held at the start counts at the first
        idle = len(gold) > 1 and bool(played.told(end)[1].readouts["success"][-1, 0])
        out.append(Task(number, gold[: len(counts)], seen, tuple(map(bool, counts)), idle))
    return out


def fair(played: Played, pairs: Sequence[Pair]) -> list[Pair]:
    """Of every task, family and name the first pair that is fair once it was played."""
    left: dict[tuple[int, str, str], list[Pair]] = {}
    for pair in pairs:
        left.setdefault((pair.better.task, pair.family, pair.name), []).append(pair)
    found: dict[tuple[int, str, str], Pair] = {}
    tried = 1
    while left:
        now = {key: ours[:tried] for key, ours in left.items()}
        played.play(p for ours in now.values() for one in ours for p in (one.better, one.worse))
        for key, ours in now.items():
            if sound := [pair for pair in ours if played.sound(pair)]:
                found[key] = sound[0]
        left = {k: rest for k, ours in left.items() if k not in found and (rest := ours[tried:])}
        tried *= 2
    return list(found.values())


def _rows(traj: Trajectory, n: int) -> np.ndarray:
    """The turns of a world's episode."""
    return np.arange(traj.shape[0]) if traj.due is None else np.flatnonzero(traj.due[:, n])


def _one(traj: Trajectory, n: int, steps: int) -> Trajectory:
    """One world's episode alone, `(steps, 1)`: after its end it rests, as it was."""
    made = len(_rows(traj, n))
    rows, live = np.minimum(np.arange(steps), traj.shape[0] - 1), np.arange(steps)[:, None] < made

    def held(value: Array) -> Array:
        return np.array(value[rows, n : n + 1])

    def off(value: Array) -> Array:
        return np.where(live, held(value), np.zeros((), value.dtype))

    final = traj.final_index[made - 1, n]
    return Trajectory(
        obs={key: held(value) for key, value in traj.obs.items()},
        last_obs={key: np.array(value[n : n + 1]) for key, value in traj.last_obs.items()},
        final_obs={key: value[final : final + 1].copy() for key, value in traj.final_obs.items()},
        reward_terms={},
        due=live,
        final_index=np.where(np.arange(steps)[:, None] == made - 1, 0, -1),
        readouts={k: off(v) if k in _AT_REST else held(v) for k, v in traj.readouts.items()},
        action=held(traj.action),
        action_executed=held(traj.action_executed),
        **{name: off(getattr(traj, name)) for name in _FLAGS},
    )


_FLAGS = "reward terminated truncated is_first valid step_id".split()


def _plant(one: Trajectory, play: Play) -> None:
    """Write the planted text into what is seen of an episode."""
    end = len(_rows(one, 0))
    seen = one.obs["text"]
    for t in range(1 if play.everywhere else end, len(seen)):
        seen[t, 0] = f"{seen[t, 0]}\n{play.planted}"
    for last in (one.final_obs["text"], one.last_obs["text"]):
        last[0] = f"{last[0]}\n{play.planted}"


def _beside(parts: Sequence[Trajectory], group: np.ndarray) -> Trajectory:
    """Rollouts of one world each, as one of many."""

    def joined(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts], axis=1)

    def each(name: str, axis: int) -> dict[str, Array]:
        keys = getattr(parts[0], name)
        return {k: np.concatenate([getattr(p, name)[k] for p in parts], axis) for k in keys}

    due, index = joined("due"), joined("final_index")
    steps, worlds = due.shape
    names = {*_FLAGS, "action", "action_executed"}
    joint = Trajectory(
        obs=each("obs", 1), last_obs=each("last_obs", 0), final_obs=each("final_obs", 0),
        readouts=each("readouts", 1), reward_terms={}, due=None if due.all() else due,
        final_index=np.where(index == 0, np.arange(worlds), -1), group=group,
        **{name: joined(name) for name in names},
    )  # fmt: skip
    return replace(joint, step_id=np.arange(steps * worlds).reshape(steps, worlds))


class _Stage:
    """An env whose world i begins the episode `plays[i]`, with as many turns as that has."""

    def __init__(self, env: TextEnv) -> None:
        self.env = env
        self.plays: list[tuple[int, tuple[str, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        rows: list[dict[str, Any]] = [
            {"task": task, "actions": [], "elapsed": self.env.max_steps - len(said)}
            for task, said in self.plays
        ]
        return self.env.restore(rows, np.arange(len(rows)))


class _Says:
    """Says the actions of plans, world by world."""

    action_spec: ActionSpec | None = None

    def __init__(self, plans: Sequence[Sequence[str]]) -> None:
        self.plans = plans

    def carry(self, num_worlds: int) -> Carry:
        return {"world": np.arange(num_worlds), "turn": np.zeros(num_worlds, np.int64)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        pairs = zip(carry["world"], carry["turn"], strict=True)
        said = [self.plans[n][min(t, len(self.plans[n]) - 1)] for n, t in pairs]
        return {**carry, "turn": carry["turn"] + 1}, texts(said)


class _Watch:
    """Pays nothing, and asks for all that is to be read."""

    kind, scope, causal, blind, value_range = "reward", "step", True, True, (0.0, 0.0)

    def __init__(self, readouts: Iterable[str]) -> None:
        self.needs = Needs(readouts=frozenset(readouts))

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        return carry, Score(np.zeros(traj.shape, np.float32), np.full(traj.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass
