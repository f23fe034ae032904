"""Judges of progress in NumPy alone, and episodes to audit them on.

A hand at `x` in [0, 1] pushes a bar to the right: the bar's length is the true progress, and 1 is
success. The state is (hand, bar); images show the bar in red inside a white frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.reward_model import Needs
from embodied.types import ABSTAINED, SCORED, ActionSpec, Array, Carry, Moment, Score, Trajectory

TASK = "push the bar to the right"
OTHER = "pull the bar to the left"
SIZE = 32


def path_of(source: str, rng: np.random.Generator) -> np.ndarray:
    """True progress `(T,)` of an episode by `source`."""
    steps = int(rng.integers(20, 30))

    def way(start: float, end: float, count: int) -> np.ndarray:
        return np.linspace(start, end, count)

    match source:
        case "expert":
            parts = [way(0, 1, steps), np.ones(3)]
        case "expert:slow":
            parts = [way(0, 1, 2 * steps), np.ones(3)]
        case "expert:hesitates":
            parts = [way(0, 0.5, steps // 2), np.full(steps, 0.5), way(0.5, 1, steps // 2)]
        case "expert:retries":
            parts = [way(0, 0.7, steps // 2), way(0.7, 0.1, 6), way(0.1, 1, steps), np.ones(2)]
        case "expert:stops_short":
            parts = [way(0, 0.5, steps // 2), np.full(steps, 0.5)]
        case "expert:near_miss":
            parts = [way(0, 0.93, steps), np.full(steps, 0.93)]
        case "expert:undoes":
            parts = [way(0, 0.9, steps), way(0.9, 0, steps)]
        case "random":
            parts = [np.abs(np.cumsum(rng.normal(0, 0.004, steps)))]
        case _:
            parts = [np.zeros(steps)]
    return np.concatenate(parts)


def draw(progress: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Frames `(T, size, size, 3)` uint8 with a red bar as long as `progress` in a white frame."""
    out = np.full((len(progress), size, size, 3), 30, np.uint8)
    out[:, 0], out[:, -1], out[:, :, 0], out[:, :, -1] = 255, 255, 255, 255
    inside = np.arange(size - 2) < np.round(progress * (size - 2))[:, None]
    for row in range(size // 3, 2 * size // 3):
        out[:, row, 1:-1][inside] = (230, 40, 40)
    return out


def play(source: str, seed: int, images: bool = False, instruction: str = TASK) -> Episode:
    rng = np.random.default_rng(seed)
    progress = path_of(source, rng)
    count = len(progress)
    state = np.stack([np.minimum(1.0, progress + 0.05), progress], 1).astype(np.float32)
    return Episode(
        instruction, source, seed, state,
        action=np.zeros((count, 1), np.float32),
        reward=np.zeros(count, np.float32),
        success=progress >= 0.999,
        stage=np.zeros(count, np.int64),
        progress=progress.astype(np.float32),
        images={"front": draw(progress)} if images else {},
    )  # fmt: skip


SOURCES = (
    "expert", "expert:slow", "expert:hesitates", "expert:retries", "expert:stops_short",
    "expert:near_miss", "expert:undoes", "random",
)  # fmt: skip


def episodes(
    each: int = 3, images: bool = False, sources: tuple[str, ...] = SOURCES, task: str = TASK
) -> Dataset:
    """`each` episodes of every source."""
    spec = ActionSpec(("push",), ("",), np.zeros(1), np.ones(1), "delta", 10.0)
    played = [
        play(source, 100 * k + i, images, task)
        for k, source in enumerate(sources)
        for i in range(each)
    ]
    cameras = ("front",) if images else ()
    return Dataset(DatasetInfo("reach_point", 10.0, spec, 1, ("push",), cameras), played)


class Honest:
    """Says how long the bar is, and nothing where it is told to do something else."""

    kind, scope, causal, learned = "potential", "step", True, True
    value_range = (0.0, 1.0)
    needs = Needs()

    def __init__(self, path: str | None = None, gain: float = 1.0) -> None:
        self.path, self.gain = path, gain
        if path is not None:
            self.load_state_dict(load_checkpoint(Path(path)).state)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        new, value, _ = self.read(carry, np.asarray(moment.obs["state"]), None, 0)
        return new, value * self._ours(moment.instructions, len(mask))

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        values, statuses = [], []
        ours = self._ours(traj.instructions, traj.shape[1])
        for t, state in enumerate(traj.next_obs["state"]):
            carry, value, status = self.read(carry, state, traj, t)
            values.append(value * ours)
            statuses.append(status)
        return carry, Score(np.stack(values).astype(np.float32), np.stack(statuses))

    def read(
        self, carry: Carry, state: Array, traj: Trajectory | None, t: int
    ) -> tuple[Carry, Array, Array]:
        value = np.clip(self.gain * state[:, 1], 0.0, 1.0).astype(np.float32)
        return carry, value, np.full(len(state), SCORED, np.int8)

    def _ours(self, instructions: tuple[str, ...], count: int) -> Array:
        return np.array([text == TASK for text in instructions or (TASK,) * count], np.float32)

    def save(self, path: Path) -> Path:
        return save_checkpoint(path, self.state_dict(), step=0)

    def state_dict(self) -> dict[str, Any]:
        return {"gain": np.float32(self.gain)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gain = float(state["gain"])


class Clock(Honest):
    """Counts steps: right about every expert, for the wrong reason."""

    def read(
        self, carry: Carry, state: Array, traj: Trajectory | None, t: int
    ) -> tuple[Carry, Array, Array]:
        count = np.zeros(len(state)) if traj is None else carry["count"] + 1
        value = np.minimum(1.0, count / 25).astype(np.float32)
        return {"count": count}, value, np.full(len(state), SCORED, np.int8)


class AlwaysYes(Honest):
    """Everything is a success."""

    def read(
        self, carry: Carry, state: Array, traj: Trajectory | None, t: int
    ) -> tuple[Carry, Array, Array]:
        return carry, np.ones(len(state), np.float32), np.full(len(state), SCORED, np.int8)

    def _ours(self, instructions: tuple[str, ...], count: int) -> Array:
        return np.ones(count, np.float32)


class Deaf(Honest):
    """Sees the bar, but does not listen."""

    def _ours(self, instructions: tuple[str, ...], count: int) -> Array:
        return np.ones(count, np.float32)


class Ratchet(Honest):
    """The longest that the bar has been."""

    def read(
        self, carry: Carry, state: Array, traj: Trajectory | None, t: int
    ) -> tuple[Carry, Array, Array]:
        _, value, status = super().read(carry, state, traj, t)
        value = value if traj is None else np.maximum(value, carry["best"])
        return {"best": value}, value, status


class Eye(Honest):
    """Measures the bar in the image; abstains where there is no frame around it."""

    needs = Needs(cameras=("front",), image_size=SIZE)
    careful = True

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        value, _ = self.look(np.asarray(moment.images["front"]))
        return carry, value * self._ours(moment.instructions, len(mask))

    def read(
        self, carry: Carry, state: Array, traj: Trajectory | None, t: int
    ) -> tuple[Carry, Array, Array]:
        assert traj is not None
        seen = traj.frames["front"]
        return carry, *self.look(seen.image[seen.index[t]])

    def look(self, image: Array) -> tuple[Array, Array]:
        red = (image[..., 0] > 100) & (image[..., 1] < 90)
        length = red[:, SIZE // 2].sum(-1) / (SIZE - 2)
        plain = (image[:, 0].mean((1, 2)) > 150) & (image[:, 2:5, 2:-2].mean((1, 2, 3)) < 60)
        status = np.where(plain | (not self.careful), SCORED, ABSTAINED).astype(np.int8)
        return np.where(status == SCORED, length, 0.0).astype(np.float32), status


class Glare(Eye):
    """Takes whatever is bright for the bar."""

    careful = False

    def look(self, image: Array) -> tuple[Array, Array]:
        bright = image[..., 0] > 100
        length = bright[:, SIZE // 2].sum(-1) / SIZE
        return length.astype(np.float32), np.full(len(image), SCORED, np.int8)
