"""What every client of `embodied serve` needs: requests with a deadline, whatever the server does.

A request says by when it wants its answer, and carries all that it depends on, so that it may be
sent again. An answer that comes too late is known by its number and thrown away. A connection that
broke is made anew by the next request, after pauses that grow while that fails.
"""

from __future__ import annotations

import os
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import gymnasium as gym
import numpy as np

from embodied.errors import UserError, check_range
from embodied.packets import BadPacket, decode, encode, take
from embodied.types import Carry
from embodied.websocket import Overdue, RemoteFault, Websocket, is_loopback, read_url

__all__ = [
    "PROTOCOL", "TOKEN_ENV", "Carried", "Link", "Overdue", "RemoteFault", "describe_space",
    "differences", "printable", "taken",
]  # fmt: skip

PROTOCOL = 1
"""Version of the messages; both sides have the same."""
TOKEN_ENV = "EMBODIED_TOKEN"
PAUSE_S, LONGEST_PAUSE_S = 0.02, 5.0
"""Pauses between attempts are drawn from 0 to the one, then from twice as wide a range each time,
up to the other."""
OPEN_S = 10.0
"""Until a connection is given up that is not there yet; a request does not wait so long."""
LOST = 3
"""Answers in a row that did not come, after which the connection is given up."""
PASSING = ("too_fast", "busy")
"""What a server says that an attempt a little later may not meet."""


class Link:
    """A connection to the server at `url` that serves a `kind` ("policy", "reward").

    `hello` is what the server said of itself. A token, which the environment variable `token_env`
    holds where there is one, is sent along; `ca` is a file with the certificates to trust, by
    default the system's. Raises `UserError` where it cannot be reached, or serves something else.
    """

    _socket: Websocket | None = None

    def __init__(
        self,
        url: str,
        kind: str,
        deadline_s: float,
        token_env: str = TOKEN_ENV,
        ca: str | None = None,
    ) -> None:
        check_range(f"remote {kind}", 0.001, deadline_s=deadline_s)
        self.url, self.kind, self.deadline_s = url, kind, deadline_s
        self._url = read_url(url)
        self._token = os.environ.get(token_env, "").strip()
        if not (self._token.isascii() and self._token.isprintable()):
            raise UserError(f"token_env={token_env}: a token is of plain characters")
        if self._token and not self._url.secure and not is_loopback(self._url.host):
            raise UserError(f"{url}: the token of {token_env} would be there to read: use wss://")
        self._tls = _context(ca) if self._url.secure else None
        self.counts: Counter[str] = Counter()
        """Answers, connections, late answers, and faults by name."""
        self._opening: Future[Websocket] | None = None
        self._lock = threading.Lock()
        self._number, self._missed, self._failures, self._not_before = 0, 0, 0, 0.0
        self.hello: dict[str, Any] = {}
        self._open(time.monotonic() + max(deadline_s, OPEN_S))

    def ask(self, message: Mapping[str, Any], until: float | None = None) -> dict[str, Any]:
        """The answer to a request, by `until` (of `time.monotonic`; after `deadline_s` otherwise).

        Raises `Overdue` where it has not come by then, `RemoteFault` where it will not come.
        """
        until = time.monotonic() + self.deadline_s if until is None else until
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Overdue("others are asking")
        try:
            while True:
                try:
                    answer = self._attempt(message, until)
                    self.counts["answers"] += 1
                    return answer
                except RemoteFault as fault:
                    self.counts[fault.name] += 1
                    if not fault.passing:
                        raise
                    self._pause(fault, until)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Leave the server; the next request would connect anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        self.close()

    def _attempt(self, message: Mapping[str, Any], until: float) -> dict[str, Any]:
        if self._socket is None:
            self._open(until)
        assert self._socket is not None
        self._number += 1
        left_ms = max(0.0, 1000.0 * (until - time.monotonic()))
        try:
            packet = encode({**message, "id": self._number, "deadline_ms": left_ms})
        except BadPacket as error:
            raise RemoteFault("bad_packet", str(error)) from error
        try:
            self._socket.send(packet, until)
        except BaseException:
            self.close()
            raise
        return self._answer(until)

    def _answer(self, until: float) -> dict[str, Any]:
        """The answer to the last request; those to earlier ones are thrown away."""
        assert self._socket is not None
        try:
            while True:
                answer = _read(self._socket.receive(until))
                number = answer.get("id")
                if number is None or (type(number) is int and number == self._number):
                    break
                self.counts["late answers"] += 1
        except Overdue:
            self._missed += 1
            if self._missed >= LOST:
                self.close()
            raise
        except BaseException:
            self.close()
            raise
        self._missed = self._failures = 0
        if "error" in answer:
            name, why = printable(answer["error"], 40), printable(answer.get("why", ""), 200)
            if name == "late":
                raise Overdue("its turn came too late")
            raise RemoteFault(name, why, passing=name in PASSING)
        return answer

    def _open(self, until: float) -> None:
        """Have a connection by then. One that takes longer is there for a later request."""
        if self._opening is None:
            if self._not_before >= until:
                raise RemoteFault("unreachable", f"{self.url} is left alone for a moment")
            time.sleep(max(0.0, self._not_before - time.monotonic()))
            self.counts["connections"] += 1
            self._opening = Future()
            threading.Thread(target=self._connect, args=(self._opening,), daemon=True).start()
        try:
            self._socket = self._opening.result(max(0.0, until - time.monotonic()))
        except TimeoutError as error:
            raise Overdue(f"no connection to {self.url} yet") from error
        except RemoteFault:
            self._failures += 1
            widest = min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** min(self._failures, 20))
            self._not_before = time.monotonic() + random.uniform(0.0, widest)
            self._opening = None
            raise
        self._opening, self._missed = None, 0

    def _connect(self, opening: Future[Websocket]) -> None:
        """Connect, in a thread of its own: looking up a name knows no deadline."""
        until = time.monotonic() + OPEN_S
        try:
            opened = Websocket(self._url, self._token, self._tls, until)
            try:
                self._greet(_read(opened.receive(until)))
            except BaseException:
                opened.close()
                raise
            opening.set_result(opened)
        except Overdue as late:
            opening.set_exception(RemoteFault("unreachable", f"{self.url}: {late}", passing=True))
        except RemoteFault as fault:
            opening.set_exception(fault)
        except Exception as error:  # what no server should be able to cause
            opening.set_exception(RemoteFault("malformed", type(error).__name__))

    def _greet(self, hello: dict[str, Any]) -> None:
        """Take what the server says of itself. Raises `RemoteFault`."""
        if _has_array(hello):
            raise RemoteFault("malformed", "its first message has arrays")
        if "error" in hello:
            name = printable(hello["error"], 40)
            raise RemoteFault(name, "refused", passing=name in PASSING)
        if self.hello and hello != self.hello:
            raise RemoteFault("another", f"{self.url} serves something else by now")
        if hello.get("protocol") != PROTOCOL:
            theirs = printable(hello.get("protocol"), 20)
            raise RemoteFault("malformed", f"{self.url} speaks version {theirs}, not {PROTOCOL}")
        if hello.get("kind") != self.kind:
            theirs = printable(hello.get("kind"), 20)
            raise RemoteFault("another", f"{self.url} serves a {theirs}, not a {self.kind}")
        self.hello = hello

    def _pause(self, fault: RemoteFault, until: float) -> None:
        """Wait for a while before the next attempt; raises the fault where there is no time."""
        if fault.name in PASSING:
            self._failures += 1
        pause = random.uniform(0.0, PAUSE_S * 2.0 ** min(self._failures, 8))
        if time.monotonic() + pause >= until:
            raise fault
        time.sleep(pause)


def taken(
    answer: Mapping[str, Any], key: str, shape: Sequence[int | None], kinds: str
) -> np.ndarray:
    """`take` of an answer. Raises `RemoteFault`."""
    try:
        return take(answer, key, shape, kinds)
    except BadPacket as error:
        raise RemoteFault("malformed", str(error)) from error


class Carried:
    """What a server declares that policy or model carries of each world: names, shapes, dtypes."""

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self.parts = {
            str(name): (np.dtype(row["dtype"]), tuple(map(int, row["shape"])))
            for name, row in declared.items()
        }

    def __bool__(self) -> bool:
        return bool(self.parts)

    def read(self, answer: Mapping[str, Any], worlds: int) -> Carry:
        """The carry in an answer, a copy. Raises `RemoteFault` where it is not as declared."""
        row = answer.get("carry")
        if not isinstance(row, dict) or row.keys() != self.parts.keys():
            raise RemoteFault("malformed", "carry: of other parts than declared")
        return {
            name: np.array(taken(row, name, (worlds, *shape), dtype.kind), dtype)
            for name, (dtype, shape) in self.parts.items()
        }


def differences(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions, one line a key: `wanted` here, `found` there."""
    return [
        f"{name} {key}: {_said(wanted, key)} here, {_said(found, key)} there"
        for key in sorted({*wanted, *found})
        if wanted.get(key) != found.get(key)
    ]


def describe_space(space: gym.spaces.Dict) -> dict[str, dict[str, Any]]:
    """What observations are: shape and dtype of one world's, by key."""
    return {
        key: {"shape": list(box.shape or ()), "dtype": np.dtype(box.dtype).name}
        for key, box in space.spaces.items()
    }


def printable(value: Any, most: int) -> str:
    """What somebody else says, as text that a terminal takes."""
    return "".join(c for c in str(value)[:most] if c.isprintable())


def _said(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key, "none")
    return printable(" ".join(map(str, value.values())) if isinstance(value, dict) else value, 100)


def _has_array(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(_has_array(part) for part in value)
    return isinstance(value, np.ndarray)


def _read(packet: bytes) -> dict[str, Any]:
    try:
        return decode(packet)
    except BadPacket as error:
        raise RemoteFault("malformed", str(error)) from error


def _context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UserError(f"ca={ca}: give a file with certificates ({error})") from error
