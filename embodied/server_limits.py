"""What one client may ask of a server, how often, and how many of them there may be."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds that a server keeps to; times are in seconds."""

    rate: float = 1000.0
    """Requests a second, of one connection."""
    connections: int = 8
    in_flight: int = 2
    """Requests of one connection that wait for an answer."""
    idle_s: float = 300.0
    """A connection on which nothing is asked for so long is closed."""
    handshake_s: float = 10.0
    send_s: float = 10.0
    """Until a client has taken an answer."""


class Pace:
    """A bucket that lets `rate` requests a second pass, and as many at once."""

    def __init__(self, rate: float) -> None:
        self.rate, self.full = rate, max(1.0, rate)
        self.left, self.then = self.full, time.monotonic()

    def allows(self) -> bool:
        now = time.monotonic()
        self.left = min(self.full, self.left + (now - self.then) * self.rate)
        self.then = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
