"""Reward code as others run it, by `exec` in the trainer's process: here one that is thrown away.

The process has a parent of its own, so that an attack on that one hits nobody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.attacks_processes import descendants, differences, end, is_ending, look
from benchmarks.attacks_row import Attack
from benchmarks.attacks_watch import MOST_TEXT, Watch, changed, settings
from embodied.sandbox_worker import named, world_of

DEADLINE_S = 0.5
TELL, START = 900, 901
"""Descriptors of the process that is thrown away, beyond those that attacks try."""


def attempt(attack: Attack, watch: Watch, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Run a program without a sandbox: what came of it, and what it brought about."""
    before = descendants(os.getpid())
    told, tell = os.pipe()
    start, begin = os.pipe()
    places = watch.places
    parent = os.fork()
    if parent == 0:
        _parent(attack, places, inputs, watch.secret, tell, start)
    os.close(tell)
    os.close(start)
    child, link = int(_line(told, 10.0)), os.fdopen(begin, "wb", buffering=0)
    usual, began = look(child), time.monotonic()
    link.write(b"x")
    said = _line(told, DEADLINE_S)
    took = time.monotonic() - began
    effects = differences(usual, look(child)) | _outcome(said, took) | watch.effects()
    row = json.loads(said or "{}")
    effects |= set(row.get("effects", ())) | watch.leaked(row.get("terms", ()), row.get("text", ""))
    if is_ending(parent):
        effects.add("parent")
    if descendants(os.getpid()) - before - {parent, child}:
        effects.add("process")
    for _ in range(3):  # those whose parent has ended become ours
        end(sorted(descendants(os.getpid()) - before))
    watch.put_right()
    link.close()
    os.close(told)
    verdict = row.get("verdict") or ("hang" if "hang" in effects else "crash")
    row = {"verdict": verdict, "effects": effects, "s": took, "text": row.get("text", "")[:100]}
    return {**row, "seen_into": usual is not None}


def _outcome(said: str, took: float) -> set[str]:
    if said:
        return set()
    return {"hang"} if took >= DEADLINE_S else {"crash"}


def _line(fd: int, within_s: float) -> str:
    """A line of a pipe; empty where there is none in time, or no more."""
    until, said = time.monotonic() + within_s, b""
    while not said.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
            return ""
        if not (more := os.read(fd, 1 << 16)):
            return ""
        said += more
    return said.decode()


def _parent(
    attack: Attack, places: Mapping[str, Any], inputs: Any, secret: str, tell: int, start: int
) -> None:
    """The parent of the process that is thrown away: it waits to be ended."""
    with contextlib.suppress(BaseException):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        os.dup2(tell, TELL)
        os.dup2(start, START)
        os.closerange(3, TELL)
        if os.fork() == 0:
            _trainer(attack, places, inputs, secret)
        os.close(TELL)
        os.close(START)
        while True:
            signal.pause()
    os._exit(1)


def _trainer(attack: Attack, places: Mapping[str, Any], inputs: Any, secret: str) -> None:
    """A trainer, with files that it has open, and what it knows."""
    with contextlib.suppress(BaseException):
        os.open(places["secret"], os.O_RDONLY)
        os.open(str(places["folder"]) + "/log", os.O_WRONLY | os.O_APPEND)
        os.write(TELL, f"{os.getpid()}\n".encode())
        os.read(START, 1)
        row = _train(attack.source(places), attack.calls, inputs, secret)
        sys.stdout.flush()
        os.write(TELL, json.dumps(row).encode() + b"\n")
        while True:
            signal.pause()
    os._exit(1)


def _train(source: str, calls: int, inputs: Any, api_key: str) -> dict[str, Any]:
    """Ask for rewards as if nothing could happen."""
    before, handed_out = settings(), {name: value.copy() for name, value in inputs.items()}
    known = {"api_key": api_key, "rewards": []}
    terms: list[Any] = []
    verdict, text = "fine", ""
    try:
        space: dict[str, Any] = {"np": np, "__name__": "reward"}
        exec(compile(source, "<reward>", "exec"), space)  # noqa: S102  as others do it
        world = world_of({name: value for name, value in inputs.items() if name != "action"})
        for _ in range(min(calls, 2)):
            found = named(space["reward"](world, inputs["action"], 0.05))
            terms = [np.asarray(term).astype(np.float64)[:64].tolist() for _, term in found.items()]
    except Exception as error:
        verdict, text = "error", str(error)[: MOST_TEXT + 1]
    del known
    same = all(np.array_equal(inputs[name], value) for name, value in handed_out.items())
    effects = ([] if same else ["observations"]) + (["trainer"] if changed(before) else [])
    return {"verdict": verdict, "text": text, "terms": terms, "effects": effects}
