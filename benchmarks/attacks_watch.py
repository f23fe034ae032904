"""What a hostile program brings about, seen from outside: by what it was to leave alone.

`Watch` keeps a file with a secret, a folder, sockets that listen and another process; afterwards it
looks whether they are as they were.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks_processes import is_ending, status_of
from benchmarks.attacks_row import CANARY

VICTIM = """
import ctypes, os, sys
kept = ctypes.create_string_buffer(sys.stdin.readline().strip().encode(), 32)
print(ctypes.addressof(kept), os.open(sys.argv[1], os.O_RDONLY), flush=True)
sys.stdin.read()
"""
MOST_TEXT = 2000
"""Of a fault's text."""


class Watch:
    """What nobody may touch. `places` has where it is; `effects` says what has been touched."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(16)
        self.root = Path(tempfile.mkdtemp(prefix="attacks-"))
        self.folder = self.root / "folder"
        self._keep()
        self.listeners = _listeners(self.root / "path")
        self.victim = Victim(self._files()["secret"], self.secret)
        name, key = f"attacks-{secrets.token_hex(4)}", 1 + secrets.randbelow(1 << 30)
        self.shared: dict[str, Any] = {"name": name, "key": key}
        self.settings = settings()

    @property
    def places(self) -> dict[str, Any]:
        sockets = {name: _address(listener) for name, listener in self.listeners.items()}
        process = {"victim": self.victim.pid, "trainer": os.getpid(), **self.victim.told}
        return {**self._files(), **sockets, **process, **self.shared}

    def effects(self) -> set[str]:
        """What has happened since all was put right."""
        found = {name for name, listener in self.listeners.items() if _reached(listener)}
        found = {"unix" if name == "path" else name for name in found}
        happened = {
            "folder": _tree(self.folder) != self.tree,
            "victim": self.victim.is_harmed(),
            "shared": bool(shared_memory(**self.shared)),
            "trainer": changed(self.settings),
        }
        return found | {name for name, is_so in happened.items() if is_so}

    def put_right(self) -> None:
        """Make anew what has changed, once who did it has ended."""
        if _tree(self.folder) != self.tree:
            self._keep()
        if self.victim.is_harmed():
            self.victim.end()
            self.victim = Victim(self._files()["secret"], self.secret)
        _remove(shared_memory(**self.shared))

    def leaked(self, terms: Iterable[Any], text: str) -> set[str]:
        """What rewards, each byte a world, and a fault's text give away; and whether it is fit."""
        told = [np.clip(np.nan_to_num(term), 0, 255).astype(np.uint8).tobytes() for term in terms]
        told.append(text.encode("utf-8", "replace"))
        kept = {"secret": self.secret, "environment": os.environ.get(CANARY, "")}
        found = {what for what, s in kept.items() if s and any(s.encode() in t for t in told)}
        fit = text.isprintable() and len(text) <= MOST_TEXT
        return found if fit else found | {"output"}

    def close(self) -> None:
        self.victim.end()
        for listener in self.listeners.values():
            listener.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _files(self) -> dict[str, str]:
        names = {"secret": "secret", "npy": "secret.npy", "listed": "listed", "link": "link",
                 "folder": "folder", "kept": "folder/kept"}  # fmt: skip
        return {name: str(self.root / file) for name, file in names.items()}

    def _keep(self) -> None:
        """Make the files anew."""
        for path in (self.folder, self.root / "listed"):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        (self.root / "secret").write_text(self.secret)
        np.save(self.root / "secret.npy", np.frombuffer(self.secret.encode(), np.uint8))
        (self.root / "listed" / self.secret).touch()
        (self.root / "link").unlink(missing_ok=True)
        (self.root / "link").symlink_to(self.secret)
        for name in ("kept", "log"):
            (self.folder / name).write_text("kept as it is\n")
        self.tree = _tree(self.folder)


def _listeners(path: Path) -> dict[str, socket.socket]:
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    found = {"tcp": tcp, "udp": udp}
    for name, address in (("unix", f"\0attacks-{secrets.token_hex(8)}"), ("path", str(path))):
        found[name] = socket.socket(socket.AF_UNIX)
        found[name].bind(address)
        found[name].listen()
    for listener in found.values():
        listener.setblocking(False)
    return found


def _address(listener: socket.socket) -> Any:
    address = listener.getsockname()
    return address[1] if isinstance(address, tuple) else address


def _reached(listener: socket.socket) -> bool:
    """Whether anybody has come; all that have are sent away."""
    found = False
    while True:
        try:
            if listener.type == socket.SOCK_DGRAM:
                listener.recv(100)
            else:
                listener.accept()[0].close()
        except BlockingIOError:
            return found
        found = True


def _tree(folder: Path) -> dict[str, Any]:
    """All that is in a folder, with contents, rights and times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        text = path.read_bytes() if path.is_file() and told.st_size < 10_000 else b""
        found[str(path)] = (told.st_mode, told.st_mtime_ns, told.st_nlink, told.st_size, text)
    return found


def shared_memory(name: str, key: int) -> set[str]:
    """What processes share beyond their lives and is called so: POSIX and System V."""
    found = {f"posix {name}"} if Path("/dev/shm", name).exists() else set()
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
            found |= {f"{kind} {row[1]}" for row in map(str.split, lines) if int(row[0]) == key}
    return found


def _remove(shared: set[str]) -> None:
    libc = ctypes.CDLL(None)
    for kind, which in map(str.split, shared):
        if kind == "posix":
            Path("/dev/shm", which).unlink(missing_ok=True)
        elif kind == "sem":
            libc.semctl(int(which), 0, 0)
        else:
            {"shm": libc.shmctl, "msg": libc.msgctl}[kind](int(which), 0, None)


class Victim:
    """A process with a secret, which nobody may touch."""

    def __init__(self, file: str, secret: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", VICTIM, file],
            stdin=pipe, stdout=pipe, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(secret + "\n")
        self.process.stdin.flush()
        address, handle = map(int, self.process.stdout.readline().split())
        self.pid, self.told = self.process.pid, {"address": address, "handle": handle}
        self.usual = self._state()

    def is_harmed(self) -> bool:
        """Whether it is not as it was."""
        try:
            return self._state() != self.usual
        except (OSError, KeyError):
            return True

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _state(self) -> tuple[Any, ...]:
        status = status_of(self.pid)
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(self.told["address"])
            kept = memory.read(32)
        tracer, going = status["TracerPid"], is_ending(self.pid) or status["State"][0] not in "RSD"
        how = os.sched_getscheduler(self.pid)
        nice = os.getpriority(os.PRIO_PROCESS, self.pid)
        limit = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        return (going, tracer, how, nice, limit, kept)


def settings() -> dict[str, Any]:
    """What code that runs in a process may change for all of the process."""
    spaces = {"np": vars(np), "linalg": vars(np.linalg), "": vars(builtins), "of": sys.modules}
    found: dict[str, Any] = {
        f"{space} {name}": id(value) for space, names in spaces.items()
        for name, value in list(names.items()) if name != "_"
    }  # fmt: skip
    state = np.random.get_state(legacy=False)["state"]
    found["random"] = (state["key"].tobytes(), state["pos"])
    os.umask(mask := os.umask(0))
    return found | {
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "environ": dict(os.environ), "directory": os.getcwd(), "umask": mask,
        "recursion": sys.getrecursionlimit(), "profile": sys.getprofile(), "trace": sys.gettrace(),
        "collects": gc.isenabled(), "errors": np.geterr(), "path": list(sys.path),
        "filters": list(warnings.filters),
    }  # fmt: skip


def changed(before: dict[str, Any]) -> bool:
    """Whether settings are no longer those; what has been added to them does not count."""
    now = settings()
    return any(now.get(name) != value for name, value in before.items())
