"""Reward code that somebody else wrote, in a process that can do nothing but compute.

The trainer writes readouts into memory that the worker can only read, asks over a socket, and
copies rewards out of memory that the worker can write: nothing is parsed but fixed-size replies,
names and bounded text. What comes back is checked here, and what goes wrong is a `CodeFault` with a
name; the next call has a fresh worker, see `embodied.forker`.

Linux only, and fails closed: without Landlock and seccomp no code is run (`JailError`).
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range
from embodied.forker import START_S, Forker, receive
from embodied.jail import LAYERS, JailError
from embodied.reward_graph import MOST_TERMS, is_term
from embodied.sandbox_worker import (
    CALL,
    DONE,
    ERROR,
    LOAD,
    MOST_SAID,
    MOST_TEXT,
    REPLY,
    REQUEST,
    TRACE,
    sizes,
    views,
)

MOST_SOURCE = 64_000
"""Bytes of reward code."""
LOAD_S = 2.0
"""To load code or trace it."""
SEALS = 0x0002 | 0x0004 | 0x0001  # no shrinking, no growing, no further seals
FUTURE_WRITE = 0x0010
ADD_SEALS = 1033
BUBBLE = ("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/",
          "--dev", "/dev", "--proc", "/proc", "--")  # fmt: skip


class CodeFault(Exception):
    """What reward code did wrong. `name` is one of

    error (it raised, or gave back what is no reward), deadline, killed (a forbidden system call, a
    crash), not_finite, too_large, impure, forged (it wrote to the socket itself), too_long.

    The text is the code's own where it raised: printable, on one line, at most 2,000 characters,
    and not to be believed.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


class Sandbox:
    """Runs one piece of reward code at a time, on up to `most` worlds.

    `inputs` are the shapes of readouts by dotted name, and of "action", without the worlds' axis;
    `dt` is the seconds of a step. A call is to be over within `deadline_s`; no reward may be larger
    than `bound`. `bubblewrap` puts the whole into namespaces of its own (needs `bwrap`).

    Raises `UserError` for bad settings, and `JailError` where the kernel cannot lock a process.
    """

    def __init__(
        self,
        inputs: Mapping[str, Sequence[int]],
        most: int,
        dt: float,
        deadline_s: float = 0.5,
        bound: float = 1e4,
        memory_bytes: int = 1 << 30,
        bubblewrap: bool = False,
        layers: Sequence[str] = LAYERS,
    ) -> None:
        check_range("sandbox", 1, most=most)
        check_range("sandbox", 0.001, deadline_s=deadline_s, bound=bound)
        if bubblewrap and shutil.which("bwrap") is None:
            raise UserError("sandbox.bubblewrap: no bwrap (on Debian: apt install bubblewrap)")
        self.inputs = {name: list(shape) for name, shape in inputs.items()}
        if "action" not in self.inputs:
            raise UserError("sandbox: among the inputs there must be 'action'")
        self.most, self.deadline_s, self.bound = most, deadline_s, bound
        self.counts: Counter[str] = Counter()
        """Calls, workers started, and faults by name."""
        self._task = {"inputs": self.inputs, "most": most, "dt": float(dt),
                      "memory_bytes": memory_bytes, "layers": list(layers)}  # fmt: skip
        self.forker = Forker(BUBBLE if bubblewrap else ())
        self._source = b"def reward(world, action, dt): return {}"
        self._number = 0
        self._names: tuple[str, ...] = ()
        self._link: socket.socket | None = None
        self._worker = 0

    # --- what it is for

    def load(self, source: str) -> None:
        """Take other code. Raises `CodeFault` where it cannot even be loaded."""
        encoded = source.encode("utf-8", "replace")
        if len(encoded) > MOST_SOURCE:
            raise CodeFault("too_long", f"{len(encoded)} bytes of code: at most {MOST_SOURCE}")
        self._end()
        self._source = encoded
        self._begin()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named terms `(N,)` float32 of inputs `(N, *shape)`. Raises `CodeFault`."""
        count = len(inputs["action"])
        if self._link is None:
            self._begin()
        for name, view in self._views.items():
            np.copyto(view[:count], inputs[name], casting="same_kind")
        self.counts["calls"] += 1
        terms, text = self._request(CALL, count, self.deadline_s)
        if text:
            self._names = self._checked_names(text)
        if not terms or terms != len(self._names):
            raise self._fault("forged", "another number of terms than of names")
        # A copy first, then the checks: the worker could change what it has told.
        told = np.frombuffer(self._told, np.float32, terms * count).copy()
        if not np.isfinite(told).all():
            raise self._fault("not_finite", "a reward that is NaN or infinite")
        if np.abs(told).max(initial=0.0) > self.bound:
            raise self._fault("too_large", f"a reward beyond {self.bound:g}")
        return dict(zip(self._names, told.reshape(terms, count), strict=True))

    def trace(self) -> dict[str, Any]:
        """What the code does as a list of operations, for `RewardGraph` to check."""
        if self._link is None:
            self._begin()
        _, text = self._request(TRACE, 0, LOAD_S)
        try:
            graph = json.loads(text)
            if not isinstance(graph, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise self._fault("forged", "no graph") from error
        return graph

    def check_purity(self, inputs: Mapping[str, np.ndarray], order: np.ndarray) -> None:
        """Raise `CodeFault` where a reward follows from anything but a world's own readouts.

        The same worlds are asked about once more by a fresh worker, which must say the same to the
        bit, and then both halves of them, in another `order` `(N,)`.
        """
        before = self(inputs)
        self._end()
        again = self(inputs)
        for name, value in before.items():
            if name not in again or not np.array_equal(again[name], value):
                raise self._fault("impure", f"term {name!r} is not the same when asked again")
        for half in np.array_split(order, min(2, len(order))):
            moved = self({name: value[half] for name, value in inputs.items()})
            for name, value in before.items():
                if name not in moved or not np.allclose(moved[name], value[half], 1e-4, 1e-5):
                    raise self._fault("impure", f"term {name!r} depends on other worlds, or order")

    def close(self) -> None:
        """End all processes."""
        self._end()
        self.forker.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *why: Any) -> None:
        self.close()

    # --- workers

    def _begin(self) -> None:
        """Start a worker, and give it the code."""
        large, small = sizes(self.inputs, self.most)
        seen, told = _memory(large), _memory(small)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._seen = mmap.mmap(seen, large)
            fcntl.fcntl(seen, ADD_SEALS, SEALS | FUTURE_WRITE)
            fcntl.fcntl(told, ADD_SEALS, SEALS)
            self._told = mmap.mmap(told, small, prot=mmap.PROT_READ)
            worker = self.forker.begin(self._task, [seen, told, theirs.fileno()])
        finally:
            theirs.close()
            os.close(seen)
            os.close(told)
        self._worker, self._link = worker, ours
        self._views = views(self._seen, self.inputs, self.most)
        self._number, self._names = 0, ()
        self.counts["workers"] += 1
        self._check_locked()
        self._seen[: len(self._source)] = self._source
        self._request(LOAD, len(self._source), LOAD_S)

    def _check_locked(self) -> None:
        """The worker's first word, which comes before it reads any code: whether it is locked."""
        assert self._link is not None
        reply = receive(self._link, REPLY.size, START_S)
        if reply and len(reply) == REPLY.size:
            _, status, _, length = REPLY.unpack(reply)
            if status == DONE:
                return
            why = _line(self._told[: min(length, MOST_SAID)])
        else:
            why = "a worker does not start"
        self._end()
        raise JailError(why)

    def _end(self) -> int:
        """End the worker; how it had ended before, if it had."""
        if self._link is None:
            return 0
        self._link.close()
        self._link = None
        return self.forker.end(self._worker)

    def _request(self, what: int, size: int, within_s: float) -> tuple[int, str]:
        """How many terms, and the text of the reply. Raises `CodeFault`."""
        assert self._link is not None
        until = time.monotonic() + within_s
        if receive(self._link, REPLY.size, 0.0):
            raise self._fault("forged", "a reply that nobody has asked for")
        self._number += 1
        request = REQUEST.pack(self._number, what, size)
        try:
            self._link.send(request, socket.MSG_DONTWAIT)
            reply = receive(self._link, REPLY.size, until - time.monotonic())
        except BlockingIOError:
            raise self._fault("forged", "it answers without having read the question") from None
        except OSError:
            reply = b""
        if reply is None:
            raise self._fault("deadline", f"no reward within {within_s:g} s")
        if not reply:
            raise self._fault("killed", "")
        number, status, terms, length = REPLY.unpack(reply.ljust(REPLY.size, b"\0"))
        if terms > MOST_TERMS or length > MOST_TEXT or status not in (DONE, ERROR):
            raise self._fault("forged", "a reply that is no reply")
        at = 4 * self.most * MOST_TERMS
        if number != self._number:
            raise self._fault("forged", "a reply to another question")
        text = self._told[at : at + length]
        if status != DONE:
            raise self._fault("error", _line(text))
        return terms, text.decode("utf-8", "replace")

    def _fault(self, name: str, text: str) -> CodeFault:
        """End the worker and count."""
        code = self._end()
        if name == "killed":
            text = f"it made a forbidden system call ({code})" if code == -signal.SIGSYS else (
                f"it ended itself or crashed ({code})"
            )  # fmt: skip
        self.counts[name] += 1
        return CodeFault(name, text)

    def _checked_names(self, text: str) -> tuple[str, ...]:
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = None
        good = isinstance(names, list) and 1 <= len(set(map(str, names))) == len(names)
        if not good or not all(map(is_term, names)):
            raise self._fault("forged", "no names of terms")
        return tuple(names)


def _memory(size: int) -> int:
    fd = os.memfd_create("reward", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def _line(text: bytes) -> str:
    """Text of foreign code that can be shown: one printable line, not long."""
    said = " ".join(text[:MOST_SAID].decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in said)
