"""The contract of a reward model, and how several of them become one learning signal.

A model judges; the core shapes. `Rewards` asks each model for its value of every step, applies
the statuses and the shaping in one place, and adds the weighted channels up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from embodied.errors import UserError, check_range
from embodied.shaping import SHAPINGS, shape
from embodied.types import (
    ABSTAINED,
    FAILED,
    SCORED,
    SILENT,
    Array,
    Carry,
    Moment,
    Score,
    Trajectory,
)

KINDS = ("potential", "delta", "success", "reward", "preference")


@dataclass(frozen=True)
class Needs:
    """What a model must be given. A privileged need is declared, never silent.

    `readouts` are names a stepper supplies ("reward", "success", "term/NAME", or a task's own);
    `cameras` are rendered at `image_size` square when the model is due; `privileged` names the
    readouts among them that a real robot has not got. A model that remembers states remembers
    those `stride` steps apart, so it must be asked at least then (0: it remembers none).
    """

    readouts: frozenset[str] = frozenset()
    cameras: tuple[str, ...] = ()
    image_size: int = 64
    stride: int = 0
    privileged: frozenset[str] = frozenset()


class RewardModel(Protocol):
    """Scores steps. `score(...).value[t]` judges the *true successor* of step t.

    `kind` says what a value means: "potential" (how far, higher is better), "delta" (signed
    progress of the step), "success" (probability that it is done), "reward" (learn from it as it
    is), "preference". `value_range` bounds it: an abstaining judge scores the lowest, so that
    breaking the judge never pays. A causal model looks at no later step. Where `traj.due` is
    given, only the steps it marks are asked about. Scoring a trajectory in chunks, the carry
    handed on, equals scoring it whole, bit for bit.

    A model that looks at readouts alone, never at observations, says `blind = True`: a rollout on a
    GPU then leaves those where they are.

    A model that learns has `fit(dataset, others)`, `save(path)` and a `path` it was loaded from;
    one that must not be trained on before it is audited says so by `learned = True`.
    """

    kind: str
    scope: str  # "step" or "episode"
    causal: bool
    needs: Needs
    value_range: tuple[float, float]

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        """Episodes start in the worlds of `mask` (N,): new carry, and values of `moment` (N,).

        `moment.images` show the worlds of `mask` alone, in order.
        """

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def due(every: int, episode_step: Array, done: Array) -> Array:
    """Whether a model is asked about a step: every k-th of its episode, and always the last.

    `episode_step` counts from 0 and `done` says that the step ended its episode; same shapes.
    """
    return ((episode_step + 1) % every == 0) | done


def start(traj: Trajectory, t: int) -> Moment:
    """What `begin` is given of the episodes that start at row t of a trajectory."""
    mask = traj.is_first[t]
    return Moment(
        {key: value[t] for key, value in traj.obs.items()},
        {name: frames.image[frames.first[t, mask]] for name, frames in traj.frames.items()},
        traj.instructions,
    )


@dataclass
class Channel:
    """A model and how its values are used.

    `shaping` is one of `embodied.shaping.SHAPINGS`. With `threshold`, the model's own
    `1[value >= threshold]` is added as a base reward, scaled by `bonus`.
    """

    name: str
    model: RewardModel
    weight: float = 1.0
    shaping: str = "none"
    every: int = 1
    threshold: float | None = None
    bonus: float = 1.0
    clip: float = 1.0
    carry: Carry = field(default_factory=dict)
    last: Array | None = None  # (N,) the value held from the last query

    def __post_init__(self) -> None:
        key, model = f"reward_model.{self.name}", self.model
        if self.shaping not in SHAPINGS:
            raise UserError(f"{key}.shaping={self.shaping!r}: one of {', '.join(SHAPINGS)}")
        check_range(key, weight=self.weight, bonus=self.bonus)
        check_range(key, 1, every=self.every)
        check_range(key, 0, clip=self.clip)
        if model.kind not in KINDS:
            raise UserError(f"{key}: kind {model.kind!r} is none of {', '.join(KINDS)}")
        if not model.causal or model.scope != "step":
            raise UserError(f"{key}: only a causal, step-wise model can be learned from online")
        if model.needs.stride % self.every:
            raise UserError(
                f"{key}.every={self.every}: it remembers states {model.needs.stride} steps apart, "
                "so give a divisor of that"
            )
        if self.shaping != "none":
            if model.kind not in ("potential", "success"):
                raise UserError(f"{key}: a model of kind {model.kind!r} gives no potential")
            if self.shaping == "override" and self.threshold is None:
                raise UserError(f"{key}.shaping=override: give the threshold of a success too")
        elif model.kind == "potential" and self.threshold is None:
            raise UserError(f"{key}: a potential needs shaping=potential, delta, held or override")

    @property
    def gives_base(self) -> bool:
        """Whether it rewards anything by itself; a potential alone teaches nothing."""
        pays_bonus = self.threshold is not None and self.bonus != 0
        return self.weight != 0 and (pays_bonus or self.shaping != "potential")


class Rewards:
    """All reward models of a run: asked together, shaped in the core, summed.

    Raises `UserError` for a composition that cannot teach: potential shaping alone leaves every
    policy with the same shaped return, minus the potential of its first state.
    """

    def __init__(self, channels: Mapping[str, Channel], num_worlds: int, gamma: float) -> None:
        if not channels:
            raise UserError("no reward model: give at least one, as reward_model=env")
        if not any(channel.gives_base for channel in channels.values()):
            raise UserError(
                "potential shaping alone teaches nothing: add a base reward "
                "(reward_model=[env,...]) or its own success (reward_model.NAME.threshold=0.5)"
            )
        self.channels = dict(channels)
        self.gamma, self.num_worlds = gamma, num_worlds
        needs = [channel.model.needs for channel in channels.values()]
        sizes = {(camera, need.image_size) for need in needs for camera in need.cameras}
        self.cameras = dict(sorted(sizes))
        """Cameras that some model sees, and their image size in pixels."""
        if len(self.cameras) < len(sizes):
            raise UserError("reward models that share a camera must take it at one image size")
        self.judged: Array | None = None
        """Of the last rollout (T, N): where some model with a threshold saw a success."""
        self.verdict: Array | None = None
        """And what the models say of every state reached, whatever the shaping makes of it."""
        self.counts = dict.fromkeys(("scored", "silent", "abstained", "failed"), 0)

    @property
    def learned(self) -> dict[str, RewardModel]:
        """The models that learned what to pay, and may have learned it wrong."""
        models = {name: channel.model for name, channel in self.channels.items()}
        return {name: model for name, model in models.items() if getattr(model, "learned", False)}

    @property
    def blind(self) -> bool:
        """Whether no model looks at observations."""
        return all(getattr(c.model, "blind", False) for c in self.channels.values())

    @property
    def readouts(self) -> frozenset[str]:
        return frozenset().union(*(c.model.needs.readouts for c in self.channels.values()))

    def shown(self, camera: str, episode_step: Array, done: Array) -> Array:
        """Worlds `(N,)` bool whose state after this step some model looks at through `camera`."""
        asked = [
            due(channel.every, episode_step, done)
            for channel in self.channels.values()
            if camera in channel.model.needs.cameras
        ]
        return np.logical_or.reduce(asked)

    def begin(self, moment: Moment) -> None:
        """All worlds start."""
        mask = np.ones(self.num_worlds, bool)
        for channel in self.channels.values():
            channel.carry, first = channel.model.begin({}, mask, moment)
            channel.last = np.asarray(first, np.float32)

    def label(self, traj: Trajectory, episode_step: Array) -> None:
        """Write `traj.reward`, `traj.reward_terms`, `traj.weights` and `traj.valid`.

        `episode_step` (T, N) is each step's number in its episode, from 0.
        """
        total = np.zeros(traj.shape, np.float32)
        traj.weights = {name: channel.weight for name, channel in self.channels.items()}
        self.judged, self.verdict = np.zeros(traj.shape, bool), np.zeros(traj.shape, np.float32)
        done = traj.terminated | traj.truncated
        for name, channel in self.channels.items():
            asked = due(channel.every, episode_step, done)
            before, after, status = self._values(channel, replace(traj, due=asked), asked)
            term = shape(channel, before, after, status, traj.terminated, self.gamma)
            if channel.threshold is not None:
                self.judged |= after >= channel.threshold
            states = channel.model.kind in ("potential", "success")
            self.verdict += np.float32(channel.weight) * (after if states else term)
            if channel.shaping == "none":  # the others hold the last value through a failure
                traj.valid &= status != FAILED
            traj.valid &= np.isfinite(term)
            traj.reward_terms[name] = term
            total += np.float32(channel.weight) * term
        traj.reward = np.where(traj.valid, total, np.float32(0.0))

    def _values(
        self, channel: Channel, traj: Trajectory, asked: Array
    ) -> tuple[Array, Array, Array]:
        """Values before and after every step (T, N), held where none is due, and statuses."""
        firsts, score = self._score(channel, traj)
        status = np.where(asked, score.status, SILENT).astype(np.int8)
        value = np.where(status == ABSTAINED, channel.model.value_range[0], score.value)
        value = value.astype(np.float32)
        judged = (status == SCORED) | (status == ABSTAINED)
        status[judged & ~np.isfinite(value)] = FAILED  # no verdict, whatever the model says
        for name, code in zip(self.counts, (SCORED, SILENT, ABSTAINED, FAILED), strict=True):
            self.counts[name] += int(np.count_nonzero(status == code))
        before, after = np.empty_like(value), np.empty_like(value)
        assert channel.last is not None
        last = channel.last
        for t in range(traj.shape[0]):
            last = np.where(traj.is_first[t], firsts[t], last)
            before[t] = last
            told = (status[t] == SCORED) | (status[t] == ABSTAINED)
            last = np.where(told, value[t], last)
            after[t] = last
        channel.last = last
        return before, after, status

    def _score(self, channel: Channel, traj: Trajectory) -> tuple[Array, Score]:
        """The model's scores, and its value of the first observation where an episode starts.

        A model without a carry is asked once; one with a carry episode start by episode start.
        """
        model = channel.model
        firsts = np.zeros(traj.shape, np.float32)
        starts = np.flatnonzero(traj.is_first.any(axis=1))
        if not channel.carry:
            for t in starts:
                _, firsts[t] = model.begin({}, traj.is_first[t], start(traj, int(t)))
            return firsts, model.score({}, traj)[1]
        edges = [0, *(int(t) for t in starts if t > 0), traj.shape[0]]
        parts = []
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            mask = traj.is_first[begin]
            if mask.any():
                channel.carry, firsts[begin] = model.begin(channel.carry, mask, start(traj, begin))
            channel.carry, score = model.score(channel.carry, traj.slice(begin, end))
            parts.append(score)
        value = np.concatenate([part.value for part in parts])
        status = np.concatenate([part.status for part in parts])
        return firsts, Score(value, status)

    def state_dict(self) -> dict[str, Any]:
        channels = {
            name: {"model": c.model.state_dict(), "carry": dict(c.carry), "last": c.last}
            for name, c in self.channels.items()
        }
        return {"channels": channels, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = dict(state["counts"])
        for name, channel in self.channels.items():
            if name not in state["channels"]:
                raise UserError(f"the checkpoint has no reward model {name!r}")
            saved = state["channels"][name]
            channel.model.load_state_dict(saved["model"])
            channel.carry = {k: np.array(v) for k, v in saved["carry"].items()}
            channel.last = None if saved["last"] is None else np.array(saved["last"])
