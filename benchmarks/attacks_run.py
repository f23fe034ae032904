"""Runs hostile programs, in the sandbox or without, and prints what came of each as JSON.

    python -m benchmarks.attacks_run [--plain] [--layers LAYER ...] [--bubblewrap] [--user ID]

`attempts` starts this as a process of its own, which plays the trainer: all that an attack could
reach is that process, and what `Watch` keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import attacks_plain
from benchmarks.attacks import ATTACKS, Attack
from benchmarks.attacks_processes import (
    descendants,
    differences,
    end,
    is_ending,
    look,
    number_within,
)
from benchmarks.attacks_row import CANARY, FINE, does
from benchmarks.attacks_user import become
from benchmarks.attacks_watch import Watch
from embodied.jail import LAYERS
from embodied.sandbox import LOAD_S, CodeFault, Sandbox
from embodied.sandbox_worker import views

INPUTS = {"hand.position": [3], "cube.position": [3], "cube.height": [], "action": [2]}
WORLDS = 64
PRELOAD = (
    "import sys, threading, multiprocessing.shared_memory, numpy.ctypeslib, numpy.f2py; "
    "import urllib.request; exec(sys.argv[-1])"
)
"""So that a program has what it needs, and meets each layer, not a module that cannot be read."""
LATE_S = 1.0
"""How much longer than it said the sandbox may take on a busy machine."""
CHECKS = 3
"""Of purity: one of them may miss what only one world has."""
CANNOT = "cannot become user"
BENIGN = does("pass", end=FINE)


class Stuck(BaseException):
    """The trainer waits for longer than it said."""


def rows() -> dict[str, np.ndarray]:
    """Inputs, one beside the other in memory."""
    numbers = WORLDS * sum(math.prod(shape) for shape in INPUTS.values())
    memory = np.random.default_rng(0).normal(size=numbers).astype(np.float32).tobytes()
    return views(bytearray(memory), INPUTS, WORLDS)


class Caged:
    """A sandbox whose workers are looked at from outside."""

    def __init__(self, layers: Sequence[str], deadline_s: float, bubblewrap: bool) -> None:
        self.layers, self.deadline_s, self.bubblewrap = layers, deadline_s, bubblewrap
        self.inputs = rows()
        self.start()

    def start(self) -> None:
        self.box = Sandbox(
            INPUTS, most=WORLDS, dt=0.05, deadline_s=self.deadline_s, layers=self.layers,
            bubblewrap=self.bubblewrap,
        )  # fmt: skip
        self.box.forker.before = (*self.box.forker.before, sys.executable, "-I", "-c", PRELOAD)
        self.box.load(BENIGN)
        self.box(self.inputs)
        self.forker, worker = self.box.forker.process, self.worker()
        self.usual = look(worker)
        self.known = descendants(os.getpid()) - {worker}

    def worker(self) -> int:
        """The worker, as it is called here; 0 where there is none."""
        if self.box._link is None or self.box.forker.process is None:
            return 0
        ours = descendants(self.box.forker.process.pid)
        return next((pid for pid in ours if number_within(pid) == self.box._worker), 0)

    def attempt(self, attack: Attack, watch: Watch) -> dict[str, Any]:
        """Run a program: the sandbox's verdict, and what was brought about."""
        began = time.monotonic()
        effects, verdict, text, terms = self.ask(attack, watch)
        effects |= watch.leaked(terms, text)
        worker = self.worker()
        effects |= differences(self.usual, look(worker))
        if descendants(os.getpid()) - self.known - {worker, watch.victim.pid}:
            effects.add("process")
        effects |= watch.effects()
        effects |= self.clean(watch)
        took = time.monotonic() - began
        row = {"verdict": verdict, "effects": effects, "s": took, "text": text[:100]}
        return {**row, "seen_into": self.usual is not None}

    def ask(self, attack: Attack, watch: Watch) -> tuple[set[str], str, str, list[Any]]:
        """Effects on the trainer, the verdict, its text, and rewards."""
        asked, found, terms = False, set(), {}
        try:
            with within(LOAD_S + LATE_S):
                self.box.load(attack.source(watch.places))
            for call in range(attack.calls):
                self.inputs["action"][0, 0] = call
                asked = True
                with within(self.deadline_s + LATE_S):
                    terms = self.box(self.inputs)
                if attack.calls > 2:
                    time.sleep(1e-3)
            found, asked = self.touched(), False
            rng = np.random.default_rng(0)
            for _ in range(CHECKS):
                with within(2 * LOAD_S):
                    self.box.check_purity(self.inputs, rng.permutation(WORLDS))
            return found, "fine", "", list(terms.values())
        except CodeFault as fault:
            found |= self.touched() if asked else set()
            return found, fault.name, fault.text, list(terms.values())
        except Stuck:
            return {"hang"}, "stuck", "", []
        except Exception as error:
            return {"crash"}, type(error).__name__, " ".join(str(error).split()), []

    def touched(self) -> set[str]:
        """Whether what was handed out is no longer what it was."""
        views = self.box._views
        same = all(np.array_equal(views[name], value) for name, value in self.inputs.items())
        return set() if same else {"observations"}

    def clean(self, watch: Watch) -> set[str]:
        """End what is left of a program; start anew where more than a worker has ended."""
        forker = self.box.forker.process
        broken = forker is None or forker is not self.forker or is_ending(forker.pid)
        if not broken:
            with within(LATE_S), contextlib.suppress(Stuck):
                self.box._end()
        else:
            self.box.close()
        for _ in range(3):  # those whose parent has ended become ours
            end(sorted(descendants(os.getpid()) - self.known - {watch.victim.pid}))
        watch.put_right()
        if broken:
            self.start()
        return {"parent"} if broken else set()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Stuck` where something takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stuck(*given: Any) -> None:
    raise Stuck


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All programs, or those that are named, one after the other."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # processes whose parent has ended become ours
    signal.signal(signal.SIGALRM, _stuck)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    found: dict[str, Any] = {}
    with contextlib.closing(Watch()) as watch, tempfile.TemporaryFile() as output:
        caged = None if args.plain else Caged(args.layers, args.deadline_s, args.bubblewrap)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        for attack in ATTACKS:
            if args.names and attack.name not in args.names:
                continue
            if caged is None:
                row = attacks_plain.attempt(attack, watch, rows())
            else:
                row = caged.attempt(attack, watch)
            if os.fstat(output.fileno()).st_size:
                row["effects"].add("output")
                os.ftruncate(output.fileno(), 0)
                os.lseek(output.fileno(), 0, os.SEEK_SET)
            found[attack.name] = {**row, "effects": sorted(row["effects"])}
        if caged is not None:
            caged.box.close()
    return found


def attempts(*arguments: str, names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """What came of each program: `verdict`, `text`, `effects`, `s`, and `seen_into`, whether the
    process could be looked into. Raises `RuntimeError` if there is nothing.
    """
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.attacks_run", *arguments,
         *(["--names", *names] if names else [])],
        env={**os.environ, **one, CANARY: secrets.token_hex(16)}, cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if process.returncode:
        raise RuntimeError(process.stderr.strip()[-2000:] or f"ended with {process.returncode}")
    told: dict[str, dict[str, Any]] = json.loads(process.stdout)
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plain", action="store_true", help="without a sandbox")
    parser.add_argument("--layers", nargs="+", default=list(LAYERS))
    parser.add_argument("--bubblewrap", action="store_true")
    parser.add_argument("--user", type=int, help="become this one first")
    parser.add_argument("--deadline-s", type=float, default=0.3)
    parser.add_argument("--names", nargs="+", default=[])
    args = parser.parse_args()
    if args.user is not None:
        try:
            become(args.user, sees_into_all=not args.plain)
        except OSError as error:
            sys.exit(f"{CANNOT} {args.user}: {error}")
    told, errors = os.dup(1), os.dup(2)
    try:
        found = run(args)
    finally:
        os.dup2(errors, 2)
    with os.fdopen(told, "w") as out:
        json.dump(found, out)


if __name__ == "__main__":
    main()
