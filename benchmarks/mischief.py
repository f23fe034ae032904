"""A transport that misbehaves on demand: what a broken robot, driver or network sends."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import replace

from omegaconf import OmegaConf

from embodied.build import make
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import JointState, Message
from embodied.deploy.transport import Received, Transport

FAULTS = ("none", "stops", "late", "order", "nan", "missing", "swapped", "rate", "down")
SLOT = {"fault": 1}
LATE_MESSAGES = 16
"""80 ms at 200 Hz: by how much messages are late, and in what blocks their order is turned."""
EVERY = 5
"""At a wrong rate, one message of so many is sent."""


class Mischief:
    """A transport whose joint states suffer the fault that the slot of `file` says.

    `inner` is the configuration of the real one, as JSON, which Hydra then leaves alone.

    Without that file (in a process that was not handed it) it is the real one and nothing else.
    """

    def __init__(self, inner: str, file: int) -> None:
        self._settings = OmegaConf.create(json.loads(inner))
        self._inner: Transport | None = make(self._settings)
        self._calls: list[tuple[str, str, type[Message]]] = []
        self._waiting: deque[tuple[str, Message]] = deque()
        self._count = 0
        try:
            self._mailbox: Mailbox | None = Mailbox(SLOT, file)
        except OSError:
            self._mailbox = None

    name = "mischief"
    rejected = lost = 0

    @property
    def connected(self) -> bool:
        return self._inner is not None and self._inner.connected

    def advertise(self, topic: str, kind: type[Message]) -> None:
        assert self._inner is not None
        self._calls.append(("advertise", topic, kind))
        self._inner.advertise(topic, kind)

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        assert self._inner is not None
        self._calls.append(("subscribe", topic, kind))
        self._inner.subscribe(topic, kind)

    def publish(self, topic: str, message: Message) -> bool:
        fault = self._fault()
        self._live_or_die(fault)
        if self._inner is None:
            return False
        if not isinstance(message, JointState):
            return self._inner.publish(topic, message)
        for one in self._spoilt(fault, message):
            self._inner.publish(topic, one)
        return True

    def take(self) -> list[Received]:
        return [] if self._inner is None else self._inner.take()

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()

    def _fault(self) -> str:
        read = None if self._mailbox is None else self._mailbox.read("fault")
        return "none" if read is None else FAULTS[int(read[1][0])]

    def _live_or_die(self, fault: str) -> None:
        if fault == "down" and self._inner is not None:
            self._inner.close()
            self._inner = None
        elif fault != "down" and self._inner is None:
            self._inner = make(self._settings)
            for call, topic, kind in self._calls:
                getattr(self._inner, call)(topic, kind)

    def _spoilt(self, fault: str, state: JointState) -> list[JointState]:
        """What is sent in place of a state."""
        self._count += 1
        kept = self._waiting
        if fault in ("late", "order"):
            kept.append(("", state))
            if len(kept) < LATE_MESSAGES:
                return []
            if fault == "late":
                return [kept.popleft()[1]]  # type: ignore[list-item]
            block = [message for _, message in reversed(kept)]
            kept.clear()
            return block  # type: ignore[return-value]
        kept.clear()
        names, position = list(state.names), list(state.position)
        if fault == "stops" or (fault == "rate" and self._count % EVERY):
            return []
        if fault == "nan":
            position[2] = math.nan
        elif fault == "missing":
            keep = [i for i in range(len(names)) if i != 3]
            rows = (tuple(row[i] for i in keep) for row in (position, state.velocity))
            fewer = tuple(names[i] for i in keep)
            return [JointState(state.stamp_ns, fewer, *rows)]
        elif fault == "swapped":
            names[1], names[3] = names[3], names[1]
        return [replace(state, names=tuple(names), position=tuple(position))]
