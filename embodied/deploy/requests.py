"""What the guard and the policy's process tell each other, as rows of a `Mailbox`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from embodied.deploy.mailbox import Mailbox


class Mode(IntEnum):
    """What the guard is doing. Only an arming ends `TRIPPED`."""

    WAITING = 0
    IDLE = 1
    MOVING = 2
    RUNNING = 3
    HOLDING = 4
    TRIPPED = 5
    DONE = 6


class Wish(IntEnum):
    """What the policy's process asks for."""

    NOTHING = 0
    MOVE = 1
    RUN = 2
    ARM = 3
    HOME = 4
    FORGET = 5
    """The robot is being put somewhere else: believe where it says it is."""


HEAD = ("received_ns", "stamp_ns", "mode", "number", "trips", "holds", "refused", "armed")
"""Numbers of the slot "state", before positions, speeds and commands of all joints."""
REQUEST = ("number", "wish", "seen_ns")
"""Numbers of the slot "request", before the target of all joints, the observation, the action."""


def slots(joints: int, observation: int, action: int) -> dict[str, int]:
    """Sizes of the slots that the guard and the policy share."""
    return {
        "state": len(HEAD) + 3 * joints,
        "request": len(REQUEST) + joints + observation + action,
    }


@dataclass(frozen=True)
class State:
    """What the guard last said: when it heard the robot, what it is doing, and of the joints `q`,
    `v` and the `command` `(A,)`. `number` is the last request that it has read."""

    received_ns: int
    stamp_ns: int
    mode: Mode
    number: int
    trips: int
    holds: int
    refused: int
    armed: int
    q: np.ndarray
    v: np.ndarray
    command: np.ndarray


@dataclass(frozen=True)
class Request:
    """What the policy's process last asked for; `seen_ns` is when the state that it saw came."""

    number: int
    wish: Wish
    seen_ns: int
    target: np.ndarray
    observation: np.ndarray
    action: np.ndarray


def state_row(head: Sequence[int], q: np.ndarray, v: np.ndarray, command: np.ndarray) -> np.ndarray:
    return np.concatenate([np.array(head, np.float64), q, v, command])


def read_state(mailbox: Mailbox) -> State | None:
    """What the guard last said; None before it said anything."""
    read = mailbox.read("state")
    if read is None:
        return None
    head, rest = np.split(read[1], [len(HEAD)])
    whole = dict(zip(HEAD, map(int, head), strict=True))
    q, v, command = np.split(rest, 3)
    return State(mode=Mode(whole.pop("mode")), **whole, q=q, v=v, command=command)


def request_row(request: Request) -> np.ndarray:
    head = np.array([request.number, request.wish, request.seen_ns], np.float64)
    return np.concatenate([head, request.target, request.observation, request.action])


def read_request(mailbox: Mailbox, joints: int, observation: int, action: int) -> Request | None:
    """What the policy last asked for; None where it asked for nothing, or for nothing there is."""
    read = mailbox.read("request")
    if read is None:
        return None
    start = len(REQUEST)
    ends = np.cumsum([start, joints, observation])
    head, target, seen, did = np.split(read[1], ends)
    if not np.isfinite(head).all() or head[1] not in list(Wish):
        return None
    return Request(int(head[0]), Wish(int(head[1])), int(head[2]), target, seen, did)
