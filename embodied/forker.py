"""A process of its own that forks the sandbox's workers, within milliseconds, and ends them.

It has read NumPy and nothing of ours, has no environment and no open files but a socket, and
is started again when it dies.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.jail import JailError

START_S = 30.0
"""To start Python with NumPy."""


class Forker:
    """`before` is what it is started with: a command that puts it into namespaces of its own."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        self.before = tuple(before)
        self.process: subprocess.Popen | None = None
        self._control: socket.socket | None = None

    def begin(self, task: Mapping[str, Any], fds: list[int]) -> int:
        """Fork a worker for `task`, which gets these descriptors; its process number."""
        return int(self._command(task, fds))

    def end(self, worker: int) -> int:
        """End a worker; how it had ended before, as `subprocess` says it, if it had."""
        return int(self._command({"end": worker}, []))

    def close(self) -> None:
        """End it, and with it all workers."""
        if self._control is not None:
            self._control.close()
        if self.process is not None:
            try:
                self.process.wait(2.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = self._control = None

    def _command(self, what: Mapping[str, Any], fds: list[int]) -> bytes:
        """Tell it; a new one, where it died, knows of no workers."""
        for _ in range(2):
            if self.process is None:
                self._start()
            assert self._control is not None
            try:
                socket.send_fds(self._control, [json.dumps(what).encode()], fds)
                if said := receive(self._control, 64, START_S):
                    return said
            except OSError:
                pass
            self._forget()
            if "end" in what:
                return b"0"
        raise JailError("the process that starts workers dies")

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(True)  # also where somebody has set a time limit for all sockets
        where = str(Path(__file__).resolve().parents[1])
        boot = (
            f"import sys; sys.path.insert(0, {where!r}); "
            f"from embodied.sandbox_worker import run; run({theirs.fileno()})"
        )
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(
            [*self.before, sys.executable, "-I", "-c", boot],
            pass_fds=[theirs.fileno()], env={**one, "PATH": os.defpath}, cwd="/",
            stdin=null, stdout=null, stderr=null, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self._control = ours
        if receive(ours, 16, START_S) != b"ready":
            self._forget()
            raise JailError("the sandbox does not start")

    def _forget(self) -> None:
        """It is dead, or to be."""
        assert self.process is not None and self._control is not None
        self._control.close()
        self.process.kill()
        self.process.wait()
        self.process = self._control = None


def receive(link: socket.socket, size: int, within_s: float) -> bytes | None:
    """A message, empty where the other side has gone, or None where there is none in time."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    if not poll.poll(max(0.0, 1e3 * within_s)):
        return None
    try:
        return link.recv(size)
    except ConnectionError:
        return b""
