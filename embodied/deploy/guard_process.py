"""The guard's own process: `python -m embodied.deploy.guard_process`, started by `Keeper`.

It is given all it needs as JSON on its standard input and as open files: the mailbox it shares
with the policy, a pipe whose end tells it that the policy is gone, one it tells what happens on,
and the recorder's. Nothing of the policy's is in here, so nothing of the policy's can stop it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

import numpy as np

from embodied.build import make
from embodied.deploy.body import Body
from embodied.deploy.guard import Guard
from embodied.deploy.limits import Limiter
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import Text
from embodied.deploy.process import closed
from embodied.deploy.recorder import EVENT
from embodied.deploy.recorder_sender import Sender
from embodied.deploy.requests import Mode, slots
from embodied.deploy.robot_map import robot_map
from embodied.errors import UserError

PRIORITY = 10
LINGER_S = 0.2
"""How long a guard without a policy goes on holding, after it has come to rest."""


def main() -> int:
    """Guard the robot until the policy's process ends, and then until the robot rests."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the policy's to answer
    given = json.loads(sys.stdin.buffer.readline())
    files = given["files"]
    os.set_blocking(files["events"], False)
    robot = robot_map(given["robot"], given["where"])
    try:
        transport = make(given["transport"])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sizes = given["observation"], given["action"]
    mailbox = Mailbox(slots(len(robot.joints), *sizes), files["mailbox"])
    body = Body(**given["body"]) if given["body"] else None
    limiter = Limiter(robot.joints, robot.safety, body, 1.0 / robot.guard_hz)
    offset_ns = time.time_ns() - time.monotonic_ns()  # once: the record's time never jumps
    sender = Sender(files["recorder"]) if "recorder" in files else None

    def record(topic: str, message: Any, stamp_ns: int) -> None:
        if sender is not None:
            sender.record(topic, message, stamp_ns + offset_ns)

    def tell(now_ns: int, kind: str, what: str) -> None:
        line = json.dumps({"t_ns": now_ns + offset_ns, "kind": kind, "what": what})
        record(EVENT, Text(line), now_ns)
        transport.publish(robot.status_topic, Text(line))
        with suppress(BlockingIOError, BrokenPipeError):  # nobody may make the guard wait
            os.write(files["events"], line.encode() + b"\n")

    home = np.array(given["home"], float)
    guard = Guard(robot, limiter, transport, mailbox, sizes, home, record, tell, given["shadow"])
    _hurry()
    try:
        _run(guard, files["lifeline"], round(1e9 / robot.guard_hz))
    finally:
        transport.close()
    return 0


def _run(guard: Guard, lifeline: int, period_ns: int) -> None:
    due = time.monotonic_ns()
    rested_ns: int | None = None
    while True:
        now = time.monotonic_ns()
        if closed(lifeline):
            guard.abandon(now)
            if guard.mode in (Mode.DONE, Mode.WAITING):
                return
            if guard.at_rest:
                rested_ns = rested_ns or now
                if now - rested_ns > LINGER_S * 1e9:
                    return
        guard.tick(now)
        due += period_ns
        late = time.monotonic_ns() - due
        if late > 0:  # a tick that took too long: the next ones are not hurried to make up for it
            due += period_ns * (late // period_ns)
        time.sleep(max(0.0, (due - time.monotonic_ns()) * 1e-9))


def _hurry() -> None:
    """Come before all others, where that is allowed."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return
    with suppress(OSError):
        os.nice(-10)


if __name__ == "__main__":
    sys.exit(main())
