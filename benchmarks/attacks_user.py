"""To become an ordinary user, who can still read the interpreter and this repository."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534
READS_ALL, TRACES = 2, 19
"""Capabilities: of what is to see into processes that are locked."""
KEEP_CAPABILITIES, SET_DUMPABLE = 8, 4
NEW_MOUNTS, BIND, RECURSIVE, PRIVATE = 0x20000, 4096, 16384, 1 << 18


def become(user: int, sees_into_all: bool) -> None:
    """Give up being root for good, but, if so told, for seeing into locked processes.

    What this process starts by `exec` has nothing of that. Raises `OSError` where it cannot be.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _open_the_way([Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[1]], libc)
    libc.prctl(KEEP_CAPABILITIES, int(sees_into_all), 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    if sees_into_all:
        kept = 1 << READS_ALL | 1 << TRACES
        header, sets = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", kept, kept, 0, 0, 0, 0)
        _check(libc.capset(header, sets), "capset")
    libc.prctl(SET_DUMPABLE, 1, 0, 0, 0)


def _open_the_way(paths: Sequence[Path], libc: ctypes.CDLL) -> None:
    """Where a folder on the way is closed to others, cover it, for this process and its children.

    An empty file system is mounted over it, in namespace of our own, with nothing in it but what is
    named.
    """
    closed: dict[Path, Path] = {}
    for path in paths:
        shut = [p for p in (*reversed(path.parents), path) if not _is_open(p)]
        if shut:
            closed[path] = shut[0]
    if not closed:
        return
    _check(libc.unshare(NEW_MOUNTS), "unshare")
    _check(libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None), "mount")
    held = {path: os.open(path, os.O_PATH) for path in closed}
    for cover in sorted(set(closed.values())):
        _check(libc.mount(b"tmpfs", bytes(cover), b"tmpfs", 0, b"mode=755"), "mount")
    for path, fd in held.items():
        path.mkdir(parents=True, exist_ok=True)
        here = f"/proc/self/fd/{fd}".encode()
        _check(libc.mount(here, bytes(path), None, BIND | RECURSIVE, None), "mount")
        os.close(fd)


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)


def _check(status: int, what: str) -> None:
    if status:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
