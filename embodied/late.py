"""Labels that come late: a judge that thinks while the run goes on.

What it says of step t is known at step t + D of the run, not earlier however fast it is and not
later however slow, so that a run can be repeated. Until then the step has no label (NaN), and an
agent with a replay does not draw it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.types import Array


@dataclass
class Verdict:
    """A channel's rewards of a rollout and how the model came by them, `(T, N)` each."""

    term: Array  # float32, shaped
    after: Array  # float32, the model's value of the state reached, held where it was not asked
    status: Array  # int8
    terms: dict[str, Array] = field(default_factory=dict)
    """The model's own terms, `(T, N)` each."""


SAVED = ("term", "after", "status")


@dataclass
class Late:
    """Labels of one channel, of the steps `step_id` `(K,)`."""

    channel: str
    step_id: Array  # (K,) int64
    term: Array  # (K,) float32
    status: Array  # (K,) int8


@dataclass
class _Chunk:
    channel: str
    delay: int
    step_id: Array  # (T, N)
    verdict: Future[Verdict]
    told: int = 0
    """Rows that are known already."""


class LateLabels:
    """Judges rollouts in the background, in the order in which they come."""

    def __init__(self, num_worlds: int) -> None:
        self.num_worlds = num_worlds
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[_Chunk] = deque()

    def submit(
        self, channel: str, delay: int, step_id: Array, judge: Callable[[], Verdict]
    ) -> None:
        """Have `judge` called, for the steps `(T, N)`; their labels are known `delay` later."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "late-labels")
        self._waiting.append(_Chunk(channel, delay, step_id, self._pool.submit(judge)))

    def arrived(self, row: int) -> Iterator[Late]:
        """What is known once every world has made `row` steps, and was not before.

        Waits for a judge that has not come so far. Raises what the judge raised.
        """
        for chunk in list(self._waiting):
            rows = chunk.step_id[:, 0] // self.num_worlds
            known = int(np.count_nonzero(rows + chunk.delay < row))
            if known > chunk.told:
                verdict, new = chunk.verdict.result(), slice(chunk.told, known)
                chunk.told = known
                parts = (chunk.step_id, verdict.term, verdict.status)
                yield Late(chunk.channel, *(np.asarray(part[new]).reshape(-1) for part in parts))
            if chunk.told == len(rows):
                self._waiting.remove(chunk)

    def state_dict(self) -> dict[str, Any]:
        """What is not known yet, all of it judged by now."""
        return {
            "waiting": [
                {
                    "channel": chunk.channel,
                    "delay": chunk.delay,
                    "step_id": chunk.step_id,
                    "told": chunk.told,
                    **{name: getattr(chunk.verdict.result(), name) for name in SAVED},
                }
                for chunk in self._waiting
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._waiting.clear()
        for row in state["waiting"]:
            future: Future[Verdict] = Future()
            parts: dict[str, Any] = {k: np.array(row[k]) for k in SAVED}
            future.set_result(Verdict(**parts))
            ids, told = np.array(row["step_id"]), int(row["told"])
            self._waiting.append(_Chunk(row["channel"], int(row["delay"]), ids, future, told))
