"""Text worlds that step together, as a `Stepper`: observations and actions are texts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from embodied.errors import UserError, check_range
from embodied.random import Draw, world_seeds
from embodied.text_pool import Answer, HerePool, Pool, ProcessPool
from embodied.text_space import AnyText, texts
from embodied.text_world import Turn
from embodied.types import WORLD_FAULT, Array, Obs, Step

log = logging.getLogger(__name__)
MOST_CHARACTERS = 1 << 16
"""Of an observation or an action; what is longer is cut."""


class TextEnv:
    """N text worlds. `world` says by its `_target_` which (see `embodied.text_world`).

    World i begins with task `first_task + (seed + i // group) % tasks` and goes from there to all
    others before one comes again (where `tasks` is None, to any of 2**31 by chance); the worlds of
    a `group` play the same ones. With `workers` 0 the worlds are in this
    process, else in as many others, where each action is to be answered within `deadline_s`; a
    world that fails, hangs or dies ends its episode with a fault.

    The observation is the single text "text"; the reward is the world's own `score`. `readouts`
    are "world.valid", "world.reached", "world.subgoals", "world.progress" (reached of subgoals)
    and "world.begun" (those that held from the start), all `(N,)`, and as texts what the world
    tells, as "world.NAME". An episode is its task and its actions: it is saved, and forked, by
    playing it again.

    Raises `UserError` for worlds that cannot be made.
    """

    exact_resume = True
    action_spec = None

    def __init__(
        self,
        world: Mapping[str, Any],
        name: str,
        num_worlds: int,
        max_steps: int | None = None,
        seed: int = 0,
        group: int = 1,
        first_task: int = 0,
        tasks: int | None = None,
        workers: int = 0,
        deadline_s: float = 10.0,
    ) -> None:
        check_range("env", 1, group=group, tasks=1 if tasks is None else tasks)
        check_range("env", 0, first_task=first_task, workers=workers)
        if num_worlds % group:
            raise UserError(f"env.group={group}: num_envs={num_worlds} is no multiple of it")
        if max_steps is not None and max_steps < 1:
            raise UserError(f"env.max_steps={max_steps}: give a whole number >= 1")
        self.name, self.num_worlds, self.world = name, num_worlds, world
        self.instructions: tuple[str, ...] = ()  # its first text says what is to be done
        self.group = np.arange(num_worlds) // group
        self.first_task, self.tasks = first_task, tasks
        self.pool: Pool = ProcessPool(world, workers, deadline_s) if workers else HerePool(world)
        self.tells = self.pool.tells
        self.max_steps = max_steps or self.pool.max_turns
        self.action_space = AnyText(MOST_CHARACTERS)
        self.observation_space = gym.spaces.Dict({"text": AnyText(MOST_CHARACTERS)})
        self._seed = world_seeds(seed, num_worlds // group)[self.group]
        self._episode = np.full(num_worlds, -1, np.int64)
        self._elapsed = np.zeros(num_worlds, np.int64)
        self._over = np.ones((2, num_worlds), bool)  # terminated, truncated
        self._task = np.zeros(num_worlds, np.int64)
        self._begun = np.zeros(num_worlds, np.float32)
        self._actions: list[list[str]] = [[] for _ in range(num_worlds)]
        self._turns = [Turn("", told=dict.fromkeys(self.tells, ""))] * num_worlds
        self.failures = 0

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        ids = np.arange(self.num_worlds) if mask is None else np.flatnonzero(mask)
        if seed is not None:
            seeds = np.asarray(seed, np.int64)
            if not seeds.ndim:
                seeds = world_seeds(int(seeds), len(np.unique(self.group)))[self.group]
            self._seed[ids], self._episode[ids] = seeds[ids], -1
        self._episode[ids] += 1
        self._task[ids] = self._tasks()[ids]
        for i in ids:
            self._actions[i] = []
        self._begin(ids)
        self._over[:, ids], self._elapsed[ids] = False, 0
        return self._obs()

    def step(self, action: Array) -> Step:
        """An action in every world; one that has ended stands still until its reset."""
        n = self.num_worlds
        if np.shape(action) != (n,):
            raise ValueError(f"actions have shape {np.shape(action)}, expected {(n,)}")
        said = [text[:MOST_CHARACTERS] for text in np.asarray(action).tolist()]
        live = np.flatnonzero(~self._over.any(axis=0))
        questions = [{"world": int(i), "do": "step", "action": said[i]} for i in live]
        score, fault = np.zeros(n), np.zeros(n, np.int8)
        for i, answer in zip(live, self.pool.ask(questions), strict=True):
            if "error" in answer:
                self._note(answer)
                fault[i] = WORLD_FAULT
                continue
            self._actions[i].append(said[i])
            self._turns[i] = turn = _turn(answer)
            score[i] = turn.score
            self._over[0, i] = turn.terminated
        self._elapsed[live] += 1
        self._over[1] |= (self._elapsed >= self.max_steps) & ~self._over[0]
        broken = fault != 0
        self._over[:, broken] = [[False], [True]]
        success = np.array([turn.success for turn in self._turns]) & ~broken
        terminated, truncated = self._over.copy()
        terms = {"score": score.copy()}
        return Step(self._obs(), score, terms, terminated, truncated, success, fault, texts(said))

    def stagger(self) -> bool:
        played = Draw(self._seed, self._episode).integers("stagger", (), self.max_steps)
        self._elapsed = np.maximum(self._elapsed, played)
        return True

    def readouts(self) -> dict[str, Array]:
        turns = self._turns
        reached = np.array([turn.reached for turn in turns], np.float32)
        subgoals = np.array([turn.subgoals for turn in turns], np.float32)
        told = {f"world.{name}": texts([turn.told[name] for turn in turns]) for name in self.tells}
        return {
            "world.valid": np.array([turn.valid for turn in turns]),
            "world.reached": reached,
            "world.subgoals": subgoals,
            "world.progress": reached / np.maximum(subgoals, 1.0),
            "world.begun": self._begun.copy(),
            **told,
        }

    def gold(self, ids: Array | None = None) -> list[list[str]]:
        """Actions that solve the running episodes of some worlds (of all) from their start."""
        which = np.arange(self.num_worlds) if ids is None else np.asarray(ids)
        answers = self.pool.ask([{"world": int(i), "do": "gold"} for i in which])
        for answer in answers:
            if "error" in answer:
                raise UserError(f"{self.name} has no gold actions: {answer['error']}")
        return [answer["said"] for answer in answers]

    def snapshot(self, ids: Array) -> list[dict[str, Any]]:
        """Some worlds' episodes as they are now: rows that `restore` takes, in any world."""
        return [
            {"task": int(self._task[i]), "actions": list(self._actions[i]),
             "elapsed": int(self._elapsed[i])}
            for i in np.asarray(ids)
        ]  # fmt: skip

    def restore(self, rows: list[dict[str, Any]], ids: Array) -> Obs:
        """Fork: the episodes of `rows` go on in the worlds `ids`; observations of all."""
        for row, i in zip(rows, np.asarray(ids), strict=True):
            self._task[i], self._actions[i] = row["task"], list(row["actions"])
            self._elapsed[i] = row["elapsed"]
        self._begin(np.asarray(ids))
        for i in np.asarray(ids):
            self._over[:, i] = self._turns[i].terminated, False
        return self._obs()

    def render(self, camera: str | None, ids: Array, height: int, width: int) -> np.ndarray:
        raise UserError(f"{self.name} is made of text: there is no image of it")

    def state_dict(self) -> dict[str, Any]:
        arrays = {name: getattr(self, f"_{name}").copy() for name in _KEPT}
        return {**arrays, "actions": [list(actions) for actions in self._actions]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if np.shape(state["seed"]) != self._seed.shape:
            raise UserError(
                f"the checkpoint has {len(state['seed'])} worlds of {self.name}, "
                f"this env {self.num_worlds}: same num_envs is needed"
            )
        for name in _KEPT:
            setattr(self, f"_{name}", np.array(state[name]))
        self._actions = [list(actions) for actions in state["actions"]]
        self._begin(np.flatnonzero(self._episode >= 0))

    def close(self) -> None:
        self.pool.close()

    def _tasks(self) -> np.ndarray:
        """The task that every world plays in its episode, `(N,)`."""
        if self.tasks is None:
            drawn = Draw(self._seed, self._episode).integers("task", (), 1 << 31)
        else:
            drawn = (self._seed + _stride(self.tasks) * self._episode) % self.tasks
        return self.first_task + drawn

    def _begin(self, ids: np.ndarray) -> None:
        """Play the episodes of some worlds up to where they are; one that fails is tried again."""
        left = [int(i) for i in ids]
        for last_try in (False, True):
            asked = [
                {"world": i, "do": "reset", "seed": int(self._task[i]), "actions": self._actions[i]}
                for i in left
            ]
            failed = []
            for i, answer in zip(left, self.pool.ask(asked), strict=True):
                if "error" not in answer:
                    self._turns[i], self._begun[i] = _turn(answer), answer["begun"]
                    continue
                self._note(answer)
                failed.append(i)
                if last_try:
                    raise UserError(f"{self.name} cannot be reset: {answer['error']}")
            left = failed

    def _note(self, answer: Answer) -> None:
        self.failures += 1
        if self.failures == 1:
            log.warning("%s: a world failed, it starts anew: %s", self.name, answer["error"])

    def _obs(self) -> Obs:
        return {"text": texts([turn.text[:MOST_CHARACTERS] for turn in self._turns])}


_KEPT = ("seed", "episode", "elapsed", "over", "task")


def _stride(tasks: int) -> int:
    """From a world's task to its next: through all of them, far from those of its neighbours."""
    golden = round(0.618 * tasks)
    return next(k for k in range(max(1, golden), 2 * tasks + 2) if math.gcd(k, tasks) == 1)


def _turn(answer: Answer) -> Turn:
    """What a world said, without halves of characters, which no file could hold."""
    said = answer["said"]
    told = {name: _whole(text) for name, text in said["told"].items()}
    return Turn(**{**said, "text": _whole(said["text"]), "told": told})


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
