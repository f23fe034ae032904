"""Action chunks: a policy that takes its time (a VLA on a server) replies with many actions, late.

Time is cut into steps of 1 / rate_hz. A chunk that was asked for in step s holds one action for
each of the steps s, s + 1, ...; when it comes, some of these are past, and are left out. So what is
executed in a step was meant for that step, however long the reply took. Until it comes, the chunk
before goes on; and the new one takes over little by little, over `blend` steps.

There is published work on the seam. ACT (Zhao et al. 2023, arXiv 2304.13705) asks in every step and
averages all actions meant for the present one, by weights exp(-m i) from the oldest on: that takes
a policy that is fast, and acts on observations of long ago. Real-time chunking (Black et al. 2025,
arXiv 2506.07339) has the policy fill in the rest of a chunk whose first actions, those that will be
executed before it arrives, are held fixed: that takes the inside of a flow or diffusion policy. We
too execute what was planned until the reply is there, but take the reply as it comes, from any
policy, and fade linearly from one chunk to the next, from two at a time and never more.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range
from embodied.types import Array

HIGH = 0.95
"""The share of past replies that came within the expected latency."""
REMEMBERED = 64
"""Of how many replies the latency is remembered."""


class ChunkPlayer:
    """Plays chunks `(horizon, size)` at `rate_hz`; says when to ask for the next, and what to do.

    Once in every step: hand over the replies that came, `request`, `action`. Time is what the
    caller says it is, in nanoseconds of one clock that never goes back; none is read here, and
    nothing waits. One request is open at a time. Without a reply within `deadline_s` it is given
    up, and what comes of it later changes nothing.

    Of absolute actions (where joints are to be) two chunks disagree about a place: the fade bounds
    the jump to the largest step of either, and 1 / `blend` of what they disagree by. Where the old
    chunk is at its end, its last action is held meanwhile, as a robot does that is told nothing
    more. Actions relative to the state that was observed are absolute as soon as that state is
    added: add it first.

    Of `delta` actions (how far to move in this step) no place can jump, only a speed: the fade is
    one of speeds, from standing still where the old chunk is at its end. What is past is not made
    up for, neither skipped steps nor those in which the old chunk went elsewhere: that is for the
    next observation to show. And none is given twice: a second call in a step gets zeros.

    `counts`: chunks `requested`; of these `used`, `late` (no reply in time) and `malformed`
    (another shape, or numbers that are not finite); replies that are `stray` (of no open request:
    too late, twice, out of order, unknown); and steps that were `dry`, once it had begun.
    """

    def __init__(
        self,
        horizon: int,
        size: int,
        rate_hz: float,
        blend: int,
        deadline_s: float,
        delta: bool = False,
    ) -> None:
        check_range("chunks", 1, horizon=horizon, size=size)
        check_range("chunks", 1e-3, 1e4, rate_hz=rate_hz)
        check_range("chunks", 1, horizon, blend=blend)
        if not 0.0 < deadline_s <= horizon / rate_hz:
            raise UserError(
                f"chunks.deadline_s={deadline_s}: give a number > 0 and <= {horizon / rate_hz:g}, "
                "after which a chunk is past"
            )
        self.horizon, self.size, self.rate_hz = horizon, size, rate_hz
        self.blend, self.deadline_s, self.delta = blend, deadline_s, delta
        self.counts = dict.fromkeys("requested used late malformed stray dry".split(), 0)
        self._latencies_s: deque[float] = deque(maxlen=REMEMBERED)
        self._next_id, self._newest = 0, 0
        self._origin_ns: int | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what is planned and asked for, as when an episode begins or a robot is armed
        again. What was counted stays, and how long replies take."""
        self._plan = np.zeros((0, self.size))
        self._first = 0  # the step of the plan's first action
        self._last = -1  # the last step for which an action was asked
        self._answer: Array | None = None  # what was said to that
        self._given: Array | None = None  # the last action that was given
        self._open: tuple[int, int, int] | None = None  # the open request: its id, time and step

    @property
    def latency_s(self) -> float:
        """How long a reply is expected to take: what most took; the deadline, before the first."""
        if not self._latencies_s:
            return self.deadline_s
        return float(np.quantile(self._latencies_s, HIGH, method="higher"))

    def request(self, now_ns: int) -> int | None:
        """The id of a request that is to be sent now, with what is observed now; None: not yet.

        That is as soon as what is planned lasts no longer than a reply is expected to take, and
        the fade after it.
        """
        if self._open is not None:
            if now_ns - self._open[1] <= 1e9 * self.deadline_s:
                return None
            self._close("late", self.deadline_s)
        step = self._step(now_ns)
        left = self._first + len(self._plan) - max(step, self._last + 1)
        if left > math.ceil(self.latency_s * self.rate_hz) + self.blend - 1:
            return None
        self._open = (self._next_id, now_ns, step)
        self._next_id += 1
        self.counts["requested"] += 1
        return self._open[0]

    def reply(self, id: int, actions: Any, now_ns: int) -> bool:
        """Take the reply to a request, `(horizon, size)`; whether it is used."""
        if self._open is None or self._open[0] != id:
            self.counts["stray"] += 1
            return False
        _, asked_ns, begin = self._open
        latency_s = max(0.0, (now_ns - asked_ns) / 1e9)
        start = max(self._step(now_ns), self._last + 1)
        if latency_s > self.deadline_s or start >= begin + self.horizon:
            self._close("late", self.deadline_s)
            return False
        chunk = self._sound(actions)
        if chunk is None:
            self._close("malformed")
            return False
        self._close("used", latency_s)
        self._plan, self._first = self._faded(chunk[start - begin :], start), start
        return True

    def action(self, now_ns: int) -> Array | None:
        """The action `(size,)` of this step, float64; None where there is none, and the robot is
        to hold."""
        step = self._step(now_ns)
        if step == self._last:  # asked again
            if self._answer is None:
                return None
            return np.zeros(self.size) if self.delta else self._answer.copy()
        index = step - self._first
        self._last, self._answer = step, None
        if index < len(self._plan):
            self._answer = self._given = self._plan[index]
            return self._answer.copy()
        self.counts["dry"] += self._given is not None
        return None

    def _faded(self, chunk: Array, start: int) -> Array:
        """Actions from step `start` on: the old plan turns into `chunk` over `blend` steps."""
        if self._given is None:
            return chunk  # nothing was done yet, so there is nothing to come from
        out, old = chunk.copy(), self._plan[start - self._first :]
        held = np.zeros(self.size) if self.delta else old[-1] if len(old) else self._given
        for k in range(min(self.blend - 1, len(out))):
            share = (k + 1) / self.blend
            before = old[k] if k < len(old) else held
            out[k] = (1.0 - share) * before + share * chunk[k]
        return out

    def _sound(self, actions: Any) -> Array | None:
        """A chunk as float64; None unless it is numbers of the right shape, all finite."""
        try:
            chunk = np.asarray(actions)
        except Exception:  # whatever a reply can be that is no array
            return None
        if chunk.shape != (self.horizon, self.size) or chunk.dtype.kind not in "fiu":
            return None
        return chunk.astype(np.float64) if np.isfinite(chunk).all() else None

    def _close(self, how: str, latency_s: float | None = None) -> None:
        """The open request came to an end, after a time that says how long the next may take."""
        self._open = None
        self.counts[how] += 1
        if latency_s is not None:
            self._latencies_s.append(latency_s)

    def _step(self, now_ns: int) -> int:
        """The number of the step nearest to a time: a loop may be early or late by half a step."""
        if self._origin_ns is None:
            self._origin_ns = now_ns
        step = math.floor((now_ns - self._origin_ns) * self.rate_hz / 1e9 + 0.5)
        self._newest = max(self._newest, step)
        return self._newest
