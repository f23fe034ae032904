"""What the kernel tells of processes: what is in them, and which come from which."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.attacks_row import MOST_MEMORY


class Inside(NamedTuple):
    """What the kernel tells of a process."""

    handles: int
    code: int
    namespaces: tuple[str, ...]
    memory: int
    tasks: int


def look(pid: int) -> Inside | None:
    """See into a process; None where it has ended, or may not be seen into."""
    try:
        maps = [line.split(None, 5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        spaces = sorted(os.listdir(f"/proc/{pid}/ns"))
        return Inside(
            len(os.listdir(f"/proc/{pid}/fd")),
            sum("x" in row[1] and (len(row) < 6 or "[v" not in row[5]) and
                ("w" in row[1] or len(row) < 6 or "deleted" in row[5]) for row in maps),
            tuple(os.readlink(f"/proc/{pid}/ns/{name}") for name in spaces),
            1024 * int(status_of(pid)["VmPeak"].split()[0]),
            len(os.listdir(f"/proc/{pid}/task")),
        )  # fmt: skip
    except (OSError, KeyError):
        return None


def differences(usual: Inside | None, now: Inside | None) -> set[str]:
    """The effects that lie between two looks into a process, or one and another like it."""
    if usual is None or now is None:
        return set()
    found = {
        "handle": now.handles > usual.handles,
        "code": now.code > usual.code,
        "namespace": now.namespaces != usual.namespaces,
        "memory": now.memory > MOST_MEMORY,
        "process": now.tasks > usual.tasks,
    }
    return {name for name, is_so in found.items() if is_so}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_ending(pid: int) -> bool:
    """Whether a process has ended, or has a signal that it has not taken yet."""
    try:
        status = status_of(pid)
        return status["State"][0] in "ZX" or any(int(status[n], 16) for n in ("SigPnd", "ShdPnd"))
    except (OSError, KeyError):
        return True


def number_within(pid: int) -> int:
    """Of a process, as it is called in its own namespace; 0 where it has ended."""
    try:
        return int(status_of(pid)["NSpid"].split()[-1])
    except (OSError, KeyError):
        return 0


def descendants(pid: int) -> set[int]:
    """All processes that come from one."""
    found: set[int] = set()
    for task in _listed(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                found |= {child} | descendants(child)
    return found


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def end(pids: Iterable[int]) -> None:
    """Kill processes, and reap those that are ours."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(OSError):
            os.waitpid(pid, 0)
