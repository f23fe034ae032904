"""Processes of our own that a deployment consists of: how they are started, and when they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any


def start(module: str, given: Mapping[str, Any], files: Iterable[int]) -> subprocess.Popen[bytes]:
    """Run a module of this package, which is `given` a line of JSON and some of our open files.

    It is in a session of its own: Ctrl-C is for this process to answer.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", f"embodied.deploy.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=tuple(files),
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given).encode() + b"\n")
    process.stdin.close()
    return process


def end(process: subprocess.Popen[bytes], timeout_s: float = 5.0) -> None:
    """Wait until a process ends that was told to, and kill it if it does not."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def lifeline() -> tuple[int, int]:
    """A pipe on which nothing is ever said: its end for another process, and ours to close."""
    theirs, ours = os.pipe()
    os.set_blocking(theirs, False)
    return theirs, ours


def closed(theirs: int) -> bool:
    """Whether the other end of a lifeline is closed, by its process or with it."""
    try:
        return os.read(theirs, 1) == b""
    except BlockingIOError:
        return False
