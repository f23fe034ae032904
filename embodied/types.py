"""The data that flows through the house: observations, steps, trajectories, scores.

Shapes: T time, N worlds, A action, K frames. Arrays are NumPy on the CPU and torch on a GPU;
observations are always dicts inside (a plain `Box` becomes `{"state": ...}`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from array_api_compat import array_namespace

Array = Any
Obs = dict[str, Array]
Carry = dict[str, Array]
"""What lives between steps: a dict of arrays with leading N, so the core can mask and save it."""

FAULTS = ("none", "action is not finite", "physics diverged", "world failed")
"""What `fault` codes mean: 0 is no fault; any other ends the episode and is never learned from."""
ACTION_FAULT, PHYSICS_FAULT, WORLD_FAULT = 1, 2, 3


@dataclass(frozen=True)
class ActionSpec:
    """What an action means, saved beside a policy so that a deployed one carries everything.

    `low` and `high` are `(A,)` in `units`; `kind` says how a robot applies it
    ("torque", "joint_delta", "ee_delta", ...); `rate_hz` is how often.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    kind: str
    rate_hz: float

    @property
    def size(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "units": list(self.units),
            "low": [float(x) for x in self.low],
            "high": [float(x) for x in self.high],
            "kind": self.kind,
            "rate_hz": float(self.rate_hz),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ActionSpec:
        return cls(
            tuple(row["names"]),
            tuple(row["units"]),
            np.asarray(row["low"], np.float32),
            np.asarray(row["high"], np.float32),
            row["kind"],
            row["rate_hz"],
        )


@dataclass
class Step:
    """One step of N worlds, before any reset: `obs` is the true successor of every world."""

    obs: Obs
    reward: Array  # (N,) the env's own reward, the sum of its weighted terms
    reward_terms: dict[str, Array]  # each (N,)
    terminated: Array  # (N,) bool
    truncated: Array  # (N,) bool
    success: Array  # (N,) bool
    fault: Array  # (N,) int8, see FAULTS
    action_executed: Array  # (N, A) after clamping and delay
    info: dict[str, Array] = field(default_factory=dict)

    @property
    def done(self) -> Array:
        return self.terminated | self.truncated


@dataclass
class Moment:
    """What a reward model sees of all N worlds at one instant, and the images of some of them."""

    obs: Obs  # (N, ...)
    images: dict[str, Array] = field(default_factory=dict)  # camera: (n, H, W, 3) uint8
    instructions: tuple[str, ...] = ()  # N of them, or none


@dataclass
class Frames:
    """One camera's images, stored once; -1 where nothing was rendered.

    `image[index[t, n]]` shows the successor of step t, `image[first[t, n]]` the state that an
    episode beginning at row t starts from.
    """

    image: Array  # (K, H, W, 3) uint8
    index: Array  # (T, N) int64
    first: Array  # (T, N) int64


@dataclass
class Trajectory:
    """T steps of N worlds. `obs[t]` is what the policy saw, `action[t]` what it chose.

    `valid` is False where a step must not be learned from (a fault, a failed label).
    `final_obs` holds, for the episodes that ended inside, the true last observation:
    `final_obs[key][final_index[t, n]]`, and `final_index` is -1 elsewhere.
    """

    obs: Obs  # (T, N, ...), of the kind of arrays that the worlds have
    last_obs: Obs  # (N, ...) what follows the last row, unless it ended an episode
    action: Array  # (T, N, A) as the policy chose it
    action_executed: Array  # (T, N, A) after clamping and delay
    reward: Array  # (T, N) what the agent learns from
    reward_terms: dict[str, Array]  # one channel a reward model, (T, N); `weights` are theirs
    terminated: Array  # (T, N) bool
    truncated: Array  # (T, N) bool
    is_first: Array  # (T, N) bool
    valid: Array  # (T, N) bool
    step_id: Array  # (T, N) int64, unique over a run
    final_index: Array  # (T, N) int64
    final_obs: Obs  # (K, ...)
    due: Array | None = None  # (T, N) bool: where a reward model may be asked; None: everywhere
    instructions: tuple[str, ...] = ()  # of each world, where the env gives any
    group: Array | None = None  # (N,) int64: worlds that share a task seed
    readouts: dict[str, Array] = field(default_factory=dict)  # (T, N, ...)
    frames: dict[str, Frames] = field(default_factory=dict)
    extras: dict[str, Array] = field(default_factory=dict)  # (T, N), what a policy tells of it
    weights: dict[str, float] = field(default_factory=dict)  # what a channel counts in the reward
    told: dict[str, Array] = field(default_factory=dict)  # (T, N), MODEL/TERM: a `Score`'s terms

    @property
    def shape(self) -> tuple[int, int]:
        return cast(tuple[int, int], tuple(self.reward.shape))

    @property
    def next_obs(self) -> Obs:
        """The true successor of every step, `(T, N, ...)`: `obs[t + 1]`, or the final one."""
        steps, worlds = np.nonzero(self.final_index >= 0)
        rows = self.final_index[steps, worlds]
        out = {}
        for key, value in self.obs.items():
            xp = array_namespace(value)
            following = xp.concat([value[1:], self.last_obs[key][None]])
            following[steps, worlds] = self.final_obs[key][rows]
            out[key] = following
        return out

    def slice(self, start: int, stop: int) -> Trajectory:
        """Rows `start:stop` as a trajectory of their own (shares memory)."""
        length = self.shape[0]
        last = self.last_obs
        if stop < length:
            last = {key: value[stop] for key, value in self.obs.items()}

        def cut(value: Array) -> Array:
            return value[start:stop]

        rows = {name: cut(getattr(self, name)) for name in _ROWS}
        return Trajectory(
            obs=_each(cut, self.obs),
            last_obs=last,
            reward_terms=_each(cut, self.reward_terms),
            final_obs=self.final_obs,
            due=None if self.due is None else cut(self.due),
            instructions=self.instructions,
            group=self.group,
            readouts=_each(cut, self.readouts),
            frames={k: Frames(f.image, cut(f.index), cut(f.first)) for k, f in self.frames.items()},
            extras=_each(cut, self.extras),
            weights=self.weights,
            told=_each(cut, self.told),
            **rows,
        )


_ROWS = (
    "action action_executed reward terminated truncated is_first valid step_id final_index"
).split()


def _each(fn: Callable[[Array], Array], values: Mapping[str, Array]) -> dict[str, Array]:
    return {key: fn(value) for key, value in values.items()}


SCORED, SILENT, ABSTAINED, FAILED = 0, 1, 2, 3
"""Statuses of a score: judged; nothing due; cannot be judged; the judge itself broke."""


@dataclass
class Score:
    """A reward model's verdict on a trajectory."""

    value: Array  # (T, N) float32
    status: Array  # (T, N) int8: SCORED, SILENT, ABSTAINED or FAILED
    terms: dict[str, Array] = field(default_factory=dict)  # (T, N) each, for plots; NaN: unknown
