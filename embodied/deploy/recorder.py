"""The flight recorder: what was seen, asked, clamped and sent, as a rosbag2 bag.

A process of its own writes the bag (`embodied.deploy.recorder_writer`), fed through a socket, so
whoever records never waits for a disk. What does not fit is dropped and counted, and the count is
in the bag's last event. Where whoever made the recorder is killed, the bag is finished all the
same; where the writer is, what is older than about a second can be read (`embodied.deploy.bag`).

Beside every topic that is seen and every command that is sent, under their own names, a record has
these. They use our joints' names, units and directions (`embodied.deploy.robot_map`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from embodied.deploy.messages import Message
from embodied.deploy.recorder_sender import LAST, NOW, SENDER, Sender
from embodied.errors import UserError, unknown

ABOUT = "/embodied/about"
"""Text, once, first: JSON that says what is recorded. `embodied replay` reads
checkpoint    who acts, as `embodied.actor.Actor.name` has it
robot_map     the contents of robot.yaml: which topics are the robot's, and its limits
and shows all else that is there (live, transport, when it started, versions)."""
OBSERVATION = "/embodied/observation"
"""Floats: what the policy saw, in the order of `embodied.spaces.vector_keys`."""
ACTION = "/embodied/action"
"""Floats: what it answered, in its own units, at the time of the observation or the first after
it."""
ASKED = "/embodied/asked"
"""JointState: joint targets that were asked of the guard, at the time of the action; its stamp is
when what the policy saw had come, from which delays are counted."""
CLAMPED = "/embodied/clamped"
"""JointState: what the guard made of them."""
EVENT = "/embodied/event"
"""Text: JSON {"t_ns": int, "kind": str, "what": str}."""
START, END = "start", "end"
"""Kinds of events: an episode starts with the next observation, where the policy forgets; the
record ends. Others are the guard's: clamp, trip, rearm, stale, late, estop, ..."""

STORAGES = ("mcap", "sqlite3")
START_S = 30.0


class Recorder:
    """Writes a bag of messages into a new `folder`, from this process and from others.

    Linux only. Raises `UserError` where the folder cannot be made or a library is missing; nothing
    after that.
    """

    def __init__(self, folder: Path | str, storage: str = "mcap") -> None:
        if storage not in STORAGES:
            raise unknown("storage of a record", storage, STORAGES)
        if find_spec("rosbags") is None:
            raise UserError("the recorder needs rosbags: pip install 'embodied-rl[ros]'")
        if not hasattr(os, "memfd_create"):
            raise UserError("the recorder needs Linux")
        self.folder = Path(folder)
        self._end, theirs = _pair()
        with theirs:
            module = "embodied.deploy.recorder_writer"
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(self.folder), storage, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._wait_for_start()
        self._sender, self._written_down = Sender(self._end), (0, 0)

    def _wait_for_start(self) -> None:
        self._end.settimeout(START_S)
        try:
            said = self._end.recv(4096)
        except OSError:
            said = b""
        self._end.settimeout(None)
        if said != b"ready":
            self._process.kill()
            self._process.wait()
            self._end.close()
            raise UserError(said.decode() or f"the recorder of {self.folder} does not start")

    @property
    def lost(self) -> int:
        """Messages that did not get into the bag: those this process could not send; after `close`
        those of all, also where the disk was full."""
        return self._sender.lost + self._written_down[1]

    def record(self, topic: str, message: Message, stamp_ns: int | None = None) -> bool:
        """Send a message, without waiting and without raising: see `Sender.record`."""
        return self._sender.record(topic, message, stamp_ns)

    def sender(self) -> Sender:
        """A sender for another process."""
        ours, theirs = _pair()
        with theirs, suppress(OSError):  # nobody there: all that it sends is lost, and counted
            socket.send_fds(self._end, [SENDER], [theirs.fileno()], NOW)
        return Sender(ours)

    def close(self, timeout_s: float = 10.0) -> None:
        """End the record, of all senders, and wait for the bag to be finished, but no longer."""
        if self._end.fileno() < 0:
            return
        self._end.settimeout(timeout_s)
        try:
            self._written_down = self._part()
            self._process.wait(timeout_s)
        except (TimeoutError, subprocess.TimeoutExpired):
            print(f"{self.folder}: the record is still being finished", file=sys.stderr)
        except (OSError, ValueError):  # ValueError: nothing was said
            lost = f"the recorder died, {self.lost} messages are lost since"
            print(f"{self.folder}: {lost}; what was written can be read", file=sys.stderr)
        finally:
            self._end.close()

    def _part(self) -> tuple[int, int]:
        """Say that this is the end; messages written, and lost by others than this process."""
        self._end.send(LAST + b"%d" % self.lost)
        while b" " not in (told := self._end.recv(64)):
            int(told)  # how much memory was taken
        messages, lost = map(int, told.split())
        return messages, lost - self._sender.lost

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
