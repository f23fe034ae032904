"""The inside of the sandbox: a process that forks locked workers, and what a worker does.

Started by `embodied.sandbox` and trusted until `lock`; what runs after that is as if the reward
code had written it. Nothing that comes out of here is believed.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.jail import JailError, lock
from embodied.reward_graph import MOST_TERMS, is_term
from embodied.tracing import Trace

REQUEST, REPLY = struct.Struct("<QBI"), struct.Struct("<QBII")
"""Sequence number, what to do, a size. And: number, what came of it, terms, bytes of text."""
LOAD, CALL, TRACE = range(3)
DONE, ERROR, NO_JAIL = range(3)
MOST_TEXT, MOST_SAID = 1 << 20, 2000
"""Bytes of any text, and of an error's."""
HERE = "<reward>"
"""The file name of reward code."""


class Part:
    """Some readouts by name, which knows what there is instead of what there is not."""

    def __init__(self, name: str, parts: Mapping[str, Any]) -> None:
        self.__dict__.update(parts)
        self._name, self._has = name, ", ".join(parts)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self._name} has no {name!r}: it has {self._has}")


def world_of(values: Mapping[str, Any]) -> Part:
    """Values by dotted names as attributes: `cube.position` as world.cube.position."""

    def part(name: str, values: Mapping[str, Any]) -> Part:
        found: dict[str, Any] = {}
        for key, value in values.items():
            first, _, rest = key.partition(".")
            if rest:
                found.setdefault(first, {})[rest] = value
            else:
                found[first] = value
        nested = {k: part(f"{name}.{k}", v) if isinstance(v, dict) else v for k, v in found.items()}
        return Part(name, nested)

    return part("world", values)


def run(control: int) -> None:
    """Fork workers and end them, as told over the socket `control`, until it is closed."""
    talk = socket.socket(fileno=control)
    _warm()
    children: set[int] = set()
    talk.send(b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(talk, 65536, 3)
        if not message:
            os._exit(0)
        told = json.loads(message)
        if "end" in told:
            talk.send(str(_end(told["end"], children)).encode())
            continue
        child = os.fork()
        if child == 0:
            try:
                _work(*fds, **told)
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)
        children.add(child)
        talk.send(str(child).encode())


def _end(child: int, children: set[int]) -> int:
    """End a worker; how it ended, as `subprocess` says it."""
    children.remove(child)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _warm() -> None:
    """Use once what makes buffers or loads files when it is first used."""
    x = np.ones((300, 300), np.float32)
    np.linalg.norm(x @ x, axis=-1)
    np.linalg.inv(np.eye(3))
    np.einsum("ij,ij->i", x, x)
    np.random.default_rng(0).normal(size=3)
    np.seterr(all="ignore")
    trace = Trace({"x": [3]})
    trace.graph({"x": np.linalg.norm(trace.inputs()["x"], axis=-1)})
    try:
        raise ValueError("warm")
    except ValueError as error:
        _said(error)


def sizes(inputs: Mapping[str, list[int]], most: int) -> tuple[int, int]:
    """Bytes of what a worker sees, and of what it tells, for `most` worlds."""
    numbers = sum(math.prod(shape) for shape in inputs.values())
    return max(4 * most * numbers, MOST_TEXT), 4 * most * MOST_TERMS + MOST_TEXT


def views(memory: Any, inputs: Mapping[str, list[int]], most: int) -> dict[str, np.ndarray]:
    """The inputs of `most` worlds, one after the other in shared memory."""
    out, at = {}, 0
    for name, shape in inputs.items():
        count = most * math.prod(shape)
        flat = np.frombuffer(memory, np.float32, count, at)
        out[name] = flat.reshape(most, *shape)
        at += 4 * count
    return out


def _work(seen: int, told: int, talk: int, **task: Any) -> None:
    """Map the memory, lock this process, answer."""
    inputs, most = task["inputs"], task["most"]
    large, small = sizes(inputs, most)
    given = mmap.mmap(seen, large, prot=mmap.PROT_READ)
    answers = mmap.mmap(told, small)
    link = socket.socket(fileno=talk)
    sys.stdin = sys.stdout = sys.stderr = None
    try:
        lock([talk], task["memory_bytes"], task["layers"])
    except JailError as error:
        text = str(error).encode()[:MOST_SAID]
        answers[: len(text)] = text
        link.send(REPLY.pack(0, NO_JAIL, 0, len(text)))
        return
    link.send(REPLY.pack(0, DONE, 0, 0))  # before a line of foreign code: later nobody believes it
    _serve(link, answers, Worker(given, answers, inputs, most, task["dt"]))


def _serve(link: socket.socket, answers: Any, worker: Worker) -> None:
    """Answer for as long as there is somebody who asks."""
    while request := link.recv(REQUEST.size):
        number, what, size = REQUEST.unpack(request)
        try:
            status, (terms, text) = DONE, worker.do(what, size)
        except BaseException as error:
            status, terms, text = ERROR, 0, _said(error)
        encoded = text.encode("utf-8", "replace")[:MOST_TEXT]
        answers[worker.text_at : worker.text_at + len(encoded)] = encoded
        link.send(REPLY.pack(number, status, terms, len(encoded)))


class Worker:
    """Reward code and the arrays that it is run on."""

    def __init__(self, given: Any, answers: Any, inputs: Any, most: int, dt: float) -> None:
        self.given, self.inputs, self.dt, self.most = given, inputs, dt, most
        self.values = views(given, inputs, most)
        self.text_at = 4 * most * MOST_TERMS
        self.told = np.frombuffer(answers, np.float32, most * MOST_TERMS)
        self.reward: Any = None
        self.count = -1
        self.world: Any = None
        self.action: Any = None
        self.names: tuple[str, ...] = ()

    def do(self, what: int, size: int) -> tuple[int, str]:
        if what == LOAD:
            self.reward, self.names = load(self.given[:size].decode()), ()
            return 0, ""
        if what == TRACE:
            trace = Trace(self.inputs)
            traced = trace.inputs()
            action = traced.pop("action")
            graph = trace.graph(named(self.reward(world_of(traced), action, self.dt)))
            return 0, json.dumps(graph)
        return self.call(size)

    def call(self, count: int) -> tuple[int, str]:
        """The terms of the first `count` worlds, into shared memory; and their names, if new."""
        if count != self.count:
            part = {name: value[:count] for name, value in self.values.items()}
            self.action = part.pop("action")
            self.count, self.world = count, world_of(part)
        terms = named(self.reward(self.world, self.action, self.dt))
        for k, (name, term) in enumerate(terms.items()):
            term = np.asarray(term)
            if term.shape != (count,):
                shape = ", ".join(["N" if n == count else str(n) for n in term.shape])
                raise ValueError(f"term {name!r} is ({shape}), not one number a world, (N,)")
            if term.dtype.kind not in "fiu":
                raise ValueError(f"term {name!r} is of {term.dtype}, not of numbers")
            self.told[k * count : (k + 1) * count] = term
        names = tuple(terms)
        fresh, self.names = names != self.names, names
        return len(terms), json.dumps(names) if fresh else ""


def load(source: str) -> Any:
    """The function `reward` of some code."""
    space: dict[str, Any] = {"np": np, "__name__": "reward"}
    exec(compile(source, HERE, "exec"), space)  # noqa: S102  the one place: the process is locked
    if not callable(space.get("reward")):
        raise NameError("define reward(world, action, dt)")
    return space["reward"]


def named(terms: Any) -> dict[str, Any]:
    """The terms that code returned; raises what tells its author what they should be."""
    if not isinstance(terms, dict) or not terms:
        raise TypeError('return a dict of named terms, as {"reach": ..., "lift": ...}')
    if len(terms) > MOST_TERMS:
        raise ValueError(f"{len(terms)} terms: at most {MOST_TERMS}")
    for name in terms:
        if not is_term(name):
            raise ValueError("a term's name is a short word of letters, digits and _")
    return terms


def _said(error: BaseException) -> str:
    """What went wrong, and in which line of the code."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == HERE]
    if isinstance(error, SyntaxError) and error.filename == HERE:
        lines.append(error.lineno)
    where = f"line {lines[-1]}: " if lines else ""
    try:
        text = str(error)[:MOST_SAID]
    except BaseException:
        text = "(it cannot say what)"
    return f"{where}{type(error).__name__}: {text}"[:MOST_SAID]
