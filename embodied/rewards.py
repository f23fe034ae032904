"""How several reward models become one learning signal.

`Rewards` asks each model for its value of every step, applies the statuses and the shaping in one
place, and adds the weighted channels up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.late import Late, LateLabels, Verdict
from embodied.reward_model import Channel, RewardModel, due, start
from embodied.shaping import shape
from embodied.types import ABSTAINED, FAILED, SCORED, SILENT, Array, Moment, Score, Trajectory


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
        self._check_combiners()
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
        self.parts: dict[str, float] = {}
        """Of the last rollout: the mean of every term of models that have some, as MODEL/TERM."""
        self.late = LateLabels(num_worlds)

    def _check_combiners(self) -> None:
        """What combiners combine has to be there, and cannot be another combiner."""
        self.combined: set[str] = set()
        """Channels that count through a combiner alone."""
        for name, channel in self.channels.items():
            over = tuple(getattr(channel.model, "over", ()))
            if over and channel.every > 1:
                raise UserError(
                    f"reward_model.{name}.every={channel.every}: what it combines is "
                    "paid at every step, so give 1"
                )
            for other in over:
                there = self.channels.get(other)
                if there is None or hasattr(there.model, "over"):
                    known = ", ".join(n for n, c in self.channels.items() if c is not channel)
                    raise UserError(
                        f"reward_model.{name} combines {other!r}: name other reward models of this "
                        f"run, as reward_model=[{name},outcome,...]; there are: {known or 'none'}"
                    )
                if there.late:
                    raise UserError(
                        f"reward_model.{name} combines {other!r}, whose labels are late"
                    )
            self.combined |= set(over)

    @property
    def lag(self) -> int:
        """The most steps that some channel's labels are late."""
        return max(channel.late for channel in self.channels.values())

    @property
    def learned(self) -> dict[str, RewardModel]:
        """The models that learned what to pay, and may have learned it wrong."""
        models = {name: channel.model for name, channel in self.channels.items()}
        return {name: model for name, model in models.items() if getattr(model, "learned", False)}

    @property
    def learning(self) -> list[str]:
        """The models that learn while a policy is trained."""
        return [name for name, c in self.channels.items() if hasattr(c.model, "learn")]

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

        `episode_step` (T, N) is each step's number in its episode, from 0. The term of a channel
        that is late is NaN until it has `arrived`, and is no part of the reward.
        """
        total = np.zeros(traj.shape, np.float32)
        traj.weights = {
            name: 0.0 if name in self.combined else channel.weight
            for name, channel in self.channels.items()
        }
        self.judged, self.verdict = np.zeros(traj.shape, bool), np.zeros(traj.shape, np.float32)
        done = traj.terminated | traj.truncated
        combiners = [name for name, c in self.channels.items() if hasattr(c.model, "over")]
        for name in sorted(self.channels, key=lambda name: name in combiners):
            channel = self.channels[name]
            asked = due(channel.every, episode_step, done)
            if traj.due is not None:  # elsewhere a world rests
                asked &= traj.due
            judge = partial(verdict_on, channel, replace(traj, due=asked), asked, self.gamma)
            if channel.late:
                traj.reward_terms[name] = np.full(traj.shape, np.nan, np.float32)
                self.late.submit(name, channel.late, traj.step_id, judge)
                continue
            verdict = judge()
            self._count(verdict.status)
            told = {f"{name}/{part}": values for part, values in verdict.terms.items()}
            known = {part: values[np.isfinite(values)] for part, values in told.items()}
            self.parts |= {part: float(v.mean()) for part, v in known.items() if v.size}
            traj.told |= told
            term, after = verdict.term, verdict.after
            if channel.threshold is not None:
                self.judged |= after >= channel.threshold
            states = channel.model.kind in ("potential", "success")
            self.verdict += np.float32(channel.weight) * (after if states else term)
            if channel.shaping == "none":  # the others hold the last value through a failure
                traj.valid &= verdict.status != FAILED
            traj.valid &= np.isfinite(term)
            traj.reward_terms[name] = term
            total += np.float32(traj.weights[name]) * term
        traj.reward = np.where(traj.valid, total, np.float32(0.0))

    def learn(self, traj: Trajectory) -> dict[str, float]:
        """Let the models that learn while a policy is trained learn from a rollout; their figures,
        as MODEL/NAME."""
        out: dict[str, float] = {}
        for name, channel in self.channels.items():
            if (learn := getattr(channel.model, "learn", None)) is not None:
                out |= {f"{name}/{figure}": value for figure, value in learn(traj).items()}
        return out

    def arrived(self, row: int) -> list[Late]:
        """The late labels that are known once every world has made `row` steps.

        One that failed stays NaN, unless the channel holds the last value through a failure.
        """
        found = list(self.late.arrived(row))
        for late in found:
            self._count(late.status)
            if self.channels[late.channel].shaping == "none":
                late.term = np.where(late.status == FAILED, np.float32(np.nan), late.term)
        return found

    def _count(self, status: Array) -> None:
        for name, code in zip(self.counts, (SCORED, SILENT, ABSTAINED, FAILED), strict=True):
            self.counts[name] += int(np.count_nonzero(status == code))

    def state_dict(self) -> dict[str, Any]:
        late = self.late.state_dict()  # first: what it judges changes the carries
        channels = {
            name: {"model": c.model.state_dict(), "carry": dict(c.carry), "last": c.last}
            for name, c in self.channels.items()
        }
        return {"channels": channels, "counts": dict(self.counts), "late": late}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = dict(state["counts"])
        self.late.load_state_dict(state.get("late", {"waiting": []}))
        for name, channel in self.channels.items():
            if name not in state["channels"]:
                raise UserError(f"the checkpoint has no reward model {name!r}")
            saved = state["channels"][name]
            channel.model.load_state_dict(saved["model"])
            channel.carry = {k: np.array(v) for k, v in saved["carry"].items()}
            channel.last = None if saved["last"] is None else np.array(saved["last"])


def verdict_on(channel: Channel, traj: Trajectory, asked: Array, gamma: float) -> Verdict:
    """A channel's verdict on a rollout: the model's values, held where none is due, as rewards."""
    firsts, score = ask(channel, traj)
    status = np.where(asked, score.status, SILENT).astype(np.int8)
    value = np.where(status == ABSTAINED, channel.model.value_range[0], score.value)
    value = value.astype(np.float32)
    judged = (status == SCORED) | (status == ABSTAINED)
    status[judged & ~np.isfinite(value)] = FAILED  # no verdict, whatever the model says
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
    ends = traj.terminated | traj.truncated if channel.whole else traj.terminated
    term = shape(channel, before, after, status, ends, gamma)
    return Verdict(term, after, status, score.terms)


def ask(channel: Channel, traj: Trajectory) -> tuple[Array, Score]:
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
