"""The episodes of text in a rollout: what the world said, and what was said to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodied.types import Trajectory


@dataclass(frozen=True)
class TextEpisode:
    """What a world said, `(T + 1)` texts of which the first says what to do, and what was said to
    it, `(T)`: in the rows `first` to `first + T - 1` of world `world`."""

    seen: tuple[str, ...]
    said: tuple[str, ...]
    world: int = 0
    first: int = 0

    @property
    def last(self) -> int:
        """The row of its last turn."""
        return self.first + len(self.said) - 1

    def upto(self, turns: int) -> TextEpisode:
        """Its first turns alone."""
        return TextEpisode(self.seen[: turns + 1], self.said[:turns], self.world, self.first)


def text_episodes(traj: Trajectory, unfinished: bool = False) -> list[TextEpisode]:
    """The episodes that begin and end in a rollout, world by world.

    With `unfinished`, also those that have not ended, or that a fault ended.
    """
    over = np.asarray(traj.terminated | traj.truncated)
    heard = traj.next_obs["text"]
    steps, worlds = traj.shape
    out = []
    for n in range(worlds):
        first: int | None = None
        for t in range(steps):
            first = t if traj.is_first[t, n] else first
            if first is None:
                continue  # the world rests, or its episode began earlier
            if over[t, n] or (unfinished and t == steps - 1):
                if unfinished or traj.valid[t, n]:
                    out.append(_episode(traj, heard, n, first, t))
                first = None
    return out


def _episode(traj: Trajectory, heard: np.ndarray, n: int, first: int, last: int) -> TextEpisode:
    rows = slice(first, last + 1)
    seen: Sequence[str] = [traj.obs["text"][first, n], *heard[rows, n]]
    said = tuple(map(str, np.asarray(traj.action)[rows, n]))
    return TextEpisode(tuple(map(str, seen)), said, n, first)
