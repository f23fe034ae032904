"""What came and was not taken yet, of every topic: what all transports receive into."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from embodied.deploy.messages import MOST_BYTES, Malformed, Message
from embodied.deploy.transport import DEPTH, Received
from embodied.errors import UserError

Decode = Callable[[type[Message], Any], Message]


def check_topic(topic: str) -> None:
    """Raise `UserError` unless ROS would take `topic` for a name."""
    if not re.fullmatch(r"(/[A-Za-z_]\w*)+", topic, re.ASCII):
        raise UserError(f"topic {topic!r}: give a name as /joint_states")


class Inbox:
    """Filled by a transport's own threads, emptied by the one that uses it.

    Of a topic it keeps the newest `DEPTH`, and of those no more than `MOST_BYTES` bytes. What came
    is only read once it is taken, so what is dropped costs nothing; `decode` raises `Malformed`
    for what is no message.
    """

    def __init__(self, decode: Decode) -> None:
        self.rejected = self.lost = 0
        self._decode = decode
        self._kinds: dict[str, type[Message]] = {}
        self._kept: dict[str, deque[tuple[int, int, Any]]] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def open(self, topic: str, kind: type[Message]) -> None:
        """Keep what comes on a topic from now on. Raises `UserError` for a bad name."""
        check_topic(topic)
        with self._lock:
            self._kinds[topic] = kind
            self._kept[topic] = deque()
            self._sizes[topic] = 0

    def put(self, topic: str, item: Any, size: int) -> None:
        """Keep what came now: `size` bytes, as `decode` wants them."""
        now = time.monotonic_ns()
        with self._lock:
            kept = self._kept.get(topic)
            if kept is None or size > 2 * MOST_BYTES:
                self.rejected += 1
                return
            kept.append((now, size, item))
            self._sizes[topic] += size
            while len(kept) > DEPTH or (self._sizes[topic] > MOST_BYTES and len(kept) > 1):
                self._sizes[topic] -= kept.popleft()[1]
                self.lost += 1

    def reject(self) -> None:
        """Count something that came and could not be told to be a message at all."""
        with self._lock:
            self.rejected += 1

    def take(self) -> list[Received]:
        """All that came since the last call, the oldest first."""
        with self._lock:
            came = [
                (now, topic, item) for topic, kept in self._kept.items() for now, _, item in kept
            ]
            for kept in self._kept.values():
                kept.clear()
            self._sizes = dict.fromkeys(self._sizes, 0)
        came.sort(key=lambda each: each[0])
        taken = []
        for now, topic, item in came:
            try:
                taken.append(Received(topic, self._decode(self._kinds[topic], item), now))
            except Malformed:
                self.reject()
        return taken
