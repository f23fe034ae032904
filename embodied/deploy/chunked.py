"""A policy that plans many actions at once and takes its time over it, as one that acts in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from embodied.agent import Policy
from embodied.deploy.chunks import ChunkPlayer
from embodied.types import Carry, Obs

MOST_BLEND = 4
"""Control steps over which one chunk takes over from another, at most."""


def plans_ahead(policy: Any) -> Any | None:
    """The policy itself, or the one inside of it, if it has a `horizon` and `chunk`s."""
    inner = getattr(policy, "policy", policy)
    return inner if getattr(inner, "horizon", 1) > 1 and hasattr(inner, "chunk") else None


class Chunked:
    """Acts from the chunks of `policy`, which are made on a thread of their own while it acts.

    `policy.chunk(carry, obs, greedy) -> (carry, actions (N, horizon, A))` in one world. Where no
    chunk is there in time, the action is no motion at all (of delta actions: zeros), and the robot
    stays where it is. Late chunks are discarded: see `ChunkPlayer`.
    """

    def __init__(
        self,
        policy: Any,
        rate_hz: float,
        blend: int | None = None,
        deadline_s: float | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.policy, self.action_spec = policy, policy.action_spec
        horizon, size = int(policy.horizon), policy.action_spec.size
        blend = min(MOST_BLEND, max(1, horizon // 2)) if blend is None else blend
        deadline_s = 0.5 * horizon / rate_hz if deadline_s is None else deadline_s
        self.player = ChunkPlayer(horizon, size, rate_hz, blend, deadline_s, delta=True)
        self._clock, self._pool = clock, ThreadPoolExecutor(1, "chunks")
        self._open: tuple[int, Future[tuple[Carry, np.ndarray]]] | None = None
        self._carry: Carry = {}

    @property
    def counts(self) -> dict[str, int]:
        """What became of the chunks that were asked for: see `ChunkPlayer`."""
        return self.player.counts

    def carry(self, num_worlds: int) -> Carry:
        """An episode starts: nothing is planned any more."""
        self.player.reset()
        self._open = None  # what comes of it is of another episode
        self._carry = self.policy.carry(num_worlds)
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        if self._open is not None and self._open[1].done():
            id, future = self._open
            self._open = None
            self._carry, actions = future.result()
            self.player.reply(id, actions[0], self._clock())
        if self._open is None and (number := self.player.request(self._clock())) is not None:
            seen = {key: np.array(value) for key, value in obs.items()}
            self._open = number, self._pool.submit(self.policy.chunk, self._carry, seen, greedy)
        action = self.player.action(self._clock())
        still = np.zeros(self.action_spec.size)
        return carry, np.asarray(still if action is None else action, np.float32)[None]


def in_time(policy: Policy, rate_hz: float) -> Policy:
    """A policy as a robot can use it: one that plans ahead is `Chunked`, others are as they are."""
    ahead = plans_ahead(policy)
    return policy if ahead is None else Chunked(ahead, rate_hz)
