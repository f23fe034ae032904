"""Recording demonstrations, good and bad: episodes played by experts, chance and policies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from embodied.agent import Policy
from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.demonstrators import find_demonstrator
from embodied.env import TaskEnv
from embodied.errors import UserError, unknown
from embodied.random import Draw
from embodied.spaces import to_vector, vector_keys, vector_size
from embodied.types import Array, Obs

Row = dict[str, Any]


def record(
    env: TaskEnv,
    sources: Sequence[str],
    seeds: Sequence[int],
    cameras: Sequence[str] = (),
    image_size: int = 64,
    after_success: int = 8,
    policies: Mapping[str, Policy] | None = None,
) -> Dataset:
    """Episode i is played by `sources[i]` (see `embodied.demonstrators`) from seed `seeds[i]`.

    It depends on these two alone, not on the number of worlds. It ends when the env ends it, or
    `after_success` steps after its first success, so demonstrations vary in length. Where the task
    itself ends it, the state that it ended in is one more frame, whose action is zero and was not
    played. Episodes with a fault are left out. Images are `(image_size, image_size)`.

    Raises `UserError` for an unknown source or camera, or a size that a video cannot hold.
    """
    if not isinstance(env, TaskEnv):
        raise UserError("only tasks can be recorded: this env has no task")
    for camera in cameras:
        if camera not in env.task.cameras:
            raise unknown(f"camera of {env.name}", camera, env.task.cameras)
    if not 16 <= image_size <= 1024 or image_size % 2:
        raise UserError(f"image_size={image_size}: give an even number from 16 to 1024")
    played: Iterable[tuple[int, Episode | None]] = _play(
        env, sources, seeds, tuple(cameras), image_size, after_success, policies
    )
    if sys.stderr.isatty():
        console = Console(file=sys.stderr)
        played = track(played, "record", len(sources), console=console, transient=True)
    episodes = dict(played)
    task = env.task
    info = DatasetInfo(
        env=env.name,
        rate_hz=task.rate_hz,
        action_spec=env.action_spec,
        proprio_size=task.proprio_size or vector_size(env.observation_space),
        stages=task.stages,
        cameras=tuple(cameras),
        robot=getattr(getattr(task, "robot", None), "name", ""),
    )
    return Dataset(info, [one for k in range(len(sources)) if (one := episodes[k]) is not None])


def _play(
    env: TaskEnv, sources: Sequence[str], seeds: Sequence[int], cameras: tuple[str, ...],
    image_size: int, after_success: int, policies: Mapping[str, Policy] | None,
) -> Iterator[tuple[int, Episode | None]]:  # fmt: skip
    """Each episode's number and what happened in it, as they finish; None for a fault."""
    names = list(dict.fromkeys(sources))
    players = [find_demonstrator(name, env, policies) for name in names]
    role_of = [names.index(name) for name in sources]
    count, queue = env.num_worlds, iter(range(len(sources)))
    running = np.array([next(queue, -1) for _ in range(count)])
    seed = np.array([seeds[max(k, 0)] for k in running], np.int64)
    turn, won_at = np.zeros(count, np.int64), np.full(count, -1)
    reels = _Reels(env, cameras, image_size)
    obs = env.reset(seed=seed)
    for player in players:
        player.begin(np.ones(count, bool), seed)
    while (running >= 0).any():
        shown = reels.frames(obs, np.flatnonzero(running >= 0))
        won = reels.success()
        won_at = np.where((won_at < 0) & won, turn, won_at)
        played = np.zeros((count, env.action_spec.size), np.float32)
        meant = np.zeros_like(played)
        roles = np.array([role_of[k] if k >= 0 else -1 for k in running])
        for role in np.unique(roles[roles >= 0]):
            mine = roles == role
            actions, intended = players[role].act(obs, seed, turn)
            played[mine], meant[mine] = actions[mine], intended[mine]
        low, high = env.action_spec.low, env.action_spec.high
        step = env.step(np.clip(played, low, high))
        obs, fault = step.obs, np.asarray(step.fault) != 0
        reels.keep(shown, np.clip(meant, low, high), np.asarray(step.reward))
        ends = np.asarray(step.done) | ((won_at >= 0) & (turn - won_at >= after_success))
        turn += 1
        ended = np.flatnonzero(ends & (running >= 0))
        if not len(ended):
            continue
        last = ended[np.asarray(step.terminated)[ended]]
        reels.keep(reels.frames(obs, last), np.zeros_like(meant), np.zeros(count))
        for world in ended:
            number = running[world]
            rows = reels.take(int(world))
            story = _episode(env, rows, sources[number], seeds[number], cameras)
            yield int(number), None if fault[world] else story
            running[world] = next(queue, -1)
            seed[world] = seeds[max(running[world], 0)]
        mask = np.zeros(count, bool)
        mask[ended] = True
        turn[mask], won_at[mask] = 0, -1
        obs = env.reset(mask, seed=seed)
        for player in players:
            player.begin(mask, seed)


class _Reels:
    """What is to be seen in the worlds, and the frames of the episodes that they are in."""

    def __init__(self, env: TaskEnv, cameras: tuple[str, ...], image_size: int) -> None:
        self.env, self.cameras, self.size = env, cameras, image_size
        self.keys = vector_keys(env.observation_space)
        self.reels: list[list[Row]] = [[] for _ in range(env.num_worlds)]
        task = env.task
        self.stage = _known(lambda: task.stage(env.memory)) if task.stages else None
        self.progress = _known(lambda: task.progress(env.sim, env.memory))

    def success(self) -> np.ndarray:
        return np.asarray(self.env.task.success(self.env.sim, self.env.memory))

    def frames(self, obs: Obs, worlds: np.ndarray) -> dict[int, Row]:
        """One frame of each of `worlds`, but for what the step from it will bring."""
        count, won = self.env.num_worlds, self.success()
        state = to_vector({key: np.asarray(obs[key]) for key in self.keys}, self.keys)
        stage = np.full(count, -1) if self.stage is None else np.asarray(self.stage())
        share = np.full(count, np.nan) if self.progress is None else np.asarray(self.progress())
        images = {
            camera: self.env.render(camera, worlds, self.size, self.size)
            for camera in self.cameras
            if len(worlds)
        }
        return {
            int(world): {
                "state": state[world].copy(),
                "success": won[world],
                "stage": stage[world],
                "progress": share[world],
                **{camera: view[row] for camera, view in images.items()},
            }
            for row, world in enumerate(worlds)
        }

    def keep(self, frames: dict[int, Row], action: np.ndarray, reward: np.ndarray) -> None:
        for world, row in frames.items():
            self.reels[world].append({**row, "action": action[world], "reward": reward[world]})

    def take(self, world: int) -> list[Row]:
        """The frames of the episode that ends in a world."""
        rows, self.reels[world] = self.reels[world], []
        return rows


def _known(read: Callable[[], Array]) -> Callable[[], Array] | None:
    """`read`, unless the task does not define what it reads."""
    try:
        read()
    except NotImplementedError:
        return None
    return read


def _episode(
    env: TaskEnv, rows: list[Row], source: str, seed: int, cameras: tuple[str, ...]
) -> Episode:
    def column(name: str, dtype: type) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype)

    texts = env.task.instructions
    own = np.array([seed], np.int64)
    pick = int(Draw(own, own * 0).integers("instruction", (), max(1, len(texts)))[0])
    return Episode(
        instruction=texts[pick] if texts else "",
        source=source,
        seed=int(seed),
        state=column("state", np.float32),
        action=column("action", np.float32),
        reward=column("reward", np.float32),
        success=column("success", np.bool_),
        stage=column("stage", np.int64),
        progress=column("progress", np.float32),
        images={camera: column(camera, np.uint8) for camera in cameras},
    )
