"""The contract of a transport: how messages get from one process to another by topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from embodied.deploy.messages import Message


@dataclass(frozen=True)
class Received:
    """A message with its topic, and when it came: nanoseconds of `time.monotonic_ns`."""

    topic: str
    message: Message
    received_ns: int


class Transport(Protocol):
    """One end of a transport, used from one thread. The robot's end and ours are alike.

    Nothing here blocks for longer than it takes to hand a message over. A transport that loses its
    peer (a master, a router, a server) goes on trying to reach it again by itself, and says so in
    `connected`. What arrives and cannot be read, or is of another kind than was subscribed, is
    counted in `rejected` and left out: it never raises. Making one raises `UserError` where its
    library or its peer is missing.
    """

    name: str

    @property
    def rejected(self) -> int:
        """Messages that came and could not be read."""

    @property
    def lost(self) -> int:
        """Messages that came faster than they were taken, and were dropped, the oldest first."""

    @property
    def connected(self) -> bool:
        """Whether, as far as one can tell, what is published now gets through."""

    def advertise(self, topic: str, kind: type[Message]) -> None:
        """Say that messages of a kind will be published on a topic, once, before the first."""

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        """Take what is published on a topic from now on."""

    def publish(self, topic: str, message: Message) -> bool:
        """Send, at most once and without waiting; False where that could not be done."""

    def take(self) -> list[Received]:
        """All that came since the last call, the oldest first; at most `DEPTH` of a topic."""

    def close(self) -> None:
        """Leave: no thread, process or socket remains."""


DEPTH = 64
"""Messages of one topic that are kept until they are taken."""
