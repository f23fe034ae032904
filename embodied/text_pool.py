"""Text worlds by number: in this process, or spread over processes that may hang or die.

A world's episode is its seed and its actions, so one whose process is lost is played again in
another. Only the world that was being asked when its process was lost has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from embodied.errors import UserError, check_range
from embodied.text_worker import Worlds

START_S = 120.0
"""To start a process and its first world: some bring a Java machine."""
REPLAY = 50
"""How many times a step's deadline the start of an episode may take, and playing one again."""
Question = Mapping[str, Any]
"""{"world": i, "do": "reset", "seed": s, "actions": [...]}, or "do": "step" with an "action", or
"do": "gold"."""
Answer = dict[str, Any]
"""{"said": ...} (and of a reset "begun"), or {"error": why} where the world failed: reset it."""


Queue = deque[tuple[int | None, Question]]
"""What a process is to be asked, in order: the place of the answer (None: for nobody), and what."""
AHEAD, AHEAD_BYTES = 4, 32_768
"""How many questions a process has at a time, and of what size: less than a socket holds, so that
neither side ever waits to be read."""


class Pool(Protocol):
    max_turns: int
    tells: tuple[str, ...]
    counts: Counter[str]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions, at most one for each world."""

    def close(self) -> None: ...


class HerePool:
    """Worlds in this process, without deadlines."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self._worlds = Worlds(node)
        self.max_turns, self.tells = self._worlds.max_turns, self._worlds.tells
        self.counts: Counter[str] = Counter()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        answers = [self._worlds.answer(question) for question in questions]
        self.counts["failed"] += sum("error" in answer for answer in answers)
        return answers

    def close(self) -> None:
        self._worlds.close()


class ProcessPool:
    """Worlds in `workers` processes; world i is in process i modulo their number.

    A world that does not answer within `deadline_s` (`REPLAY` times that for a reset) has failed,
    and its process is replaced. `counts` has failures ("failed"), and how many of them were
    deadlines ("late") and deaths ("died"). Raises `UserError` where the worlds cannot be made.
    """

    def __init__(self, node: Mapping[str, Any], workers: int, deadline_s: float) -> None:
        check_range("env", 1, workers=workers)
        check_range("env", 0.01, deadline_s=deadline_s)
        self.deadline_s = deadline_s
        self.counts: Counter[str] = Counter()
        self._processes = [_Process(node) for _ in range(workers)]
        try:
            told = [process.hello() for process in self._processes][0]
        except UserError:
            self.close()
            raise
        self.max_turns, self.tells = int(told["max_turns"]), tuple(told["tells"])
        self._played: dict[int, tuple[int, list[str]]] = {}
        self._lost: set[int] = set()  # worlds whose process is a new one

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        out: list[Answer] = [{} for _ in questions]
        queues: dict[_Process, Queue] = {}
        for slot, question in enumerate(questions):
            queues.setdefault(self._of(question["world"]), deque()).append((slot, question))
        for process, queue in queues.items():
            self._send(process, queue)
        while queues:
            now = time.monotonic()
            wait = max(0.0, min(process.until for process in queues) - now)
            readable, _, _ = select.select(list(queues), [], [], wait)
            for process in [*queues]:
                if process in readable:
                    self._take(process, queues[process], out)
                elif time.monotonic() >= process.until:
                    if select.select([process], [], [], 0.0)[0]:  # while another was replaced
                        self._take(process, queues[process], out)
                    else:
                        self._fail(process, queues[process], out, "late")
                if not queues[process]:
                    del queues[process]
        return out

    def close(self) -> None:
        for process in self._processes:
            process.end()

    def _of(self, world: int) -> _Process:
        return self._processes[world % len(self._processes)]

    def _send(self, process: _Process, queue: Queue) -> None:
        """Ask some of what waits ahead of their turn, so that the process need not wait for us.

        A world that was lost is played again first.
        """
        while process.can_take and len(process.asked) < len(queue):
            place = len(process.asked)
            question = queue[place][1]
            world = question["world"]
            if world in self._lost:
                self._lost.discard(world)
                if question["do"] != "reset":
                    seed, actions = self._played[world]
                    question = {"world": world, "do": "reset", "seed": seed, "actions": actions}
                    queue.insert(place, (None, question))
            process.ask(question)
        if queue:
            starts = queue[0][1]["do"] == "reset"
            process.until = time.monotonic() + self.deadline_s * (REPLAY if starts else 1)

    def _take(self, process: _Process, queue: Queue, out: list[Answer]) -> None:
        try:
            answers = process.receive()
        except ConnectionError:
            return self._fail(process, queue, out, "died")
        for answer in answers:
            slot, question = queue.popleft()
            if "error" in answer:
                self.counts["failed"] += slot is not None
            elif question["do"] == "reset":
                self._played[question["world"]] = (question["seed"], list(question["actions"]))
            elif question["do"] == "step":
                self._played[question["world"]][1].append(question["action"])
            if slot is not None:
                out[slot] = answer
        if answers:
            self._send(process, queue)

    def _fail(self, process: _Process, queue: Queue, out: list[Answer], how: str) -> None:
        """The world that was being asked has failed; the others of its process go on in another."""
        slot, question = queue.popleft()
        if slot is None:  # it could not be played again
            slot, question = queue.popleft()
        assert slot is not None
        late = f"no answer within {self.deadline_s:g} s"
        asked = f" to {question['action'][:60]!r}" if question["do"] == "step" else " to its start"
        out[slot] = {"error": f"{late if how == 'late' else 'its process died'}{asked}"}
        self.counts[how] += 1
        self.counts["failed"] += 1
        process.restart()
        self._lost |= {world for world in self._played if self._of(world) is process}
        left = [waiting for waiting in queue if waiting[0] is not None]
        queue.clear()
        queue.extend(left)
        self._send(process, queue)


class _Process:
    """One process of worlds and the socket to it."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self.node, self.until = node, 0.0
        self._start()

    def _start(self) -> None:
        self._link, theirs = socket.socketpair()
        self._heard = b""
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "embodied.text_worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], env={**os.environ, **one}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self.asked: deque[int] = deque()  # bytes of what is not answered yet
        self.ask(self.node)
        self.until = time.monotonic() + START_S

    def fileno(self) -> int:
        return self._link.fileno()

    @property
    def can_take(self) -> bool:
        """Whether it may be asked more."""
        return not self.asked or len(self.asked) < AHEAD and sum(self.asked) < AHEAD_BYTES

    def hello(self) -> Answer:
        """What it says when its worlds are made."""
        told: list[Answer] = []
        while not told:
            readable, _, _ = select.select([self], [], [], max(0.0, self.until - time.monotonic()))
            try:
                told = self.receive() if readable else [{"error": "nothing within two minutes"}]
            except ConnectionError:
                told = [{"error": "its process died"}]
        if "error" in told[0]:
            raise UserError(f"cannot make {self.node.get('_target_')}: {told[0]['error']}")
        return told[0]

    def ask(self, what: Question) -> None:
        line = json.dumps(what).encode() + b"\n"
        self.asked.append(len(line))
        with contextlib.suppress(OSError):  # it is dead, as reading from it will show
            self._link.sendall(line)

    def receive(self) -> list[Answer]:
        """Its next answers that are whole. Raises `ConnectionError` where it has died."""
        part = self._link.recv(1 << 16)
        if not part:
            raise ConnectionResetError
        *lines, self._heard = (self._heard + part).split(b"\n")
        for _ in lines:
            self.asked.popleft()
        return [json.loads(line) for line in lines]

    def restart(self) -> None:
        """Another in its place. Raises `UserError` where that cannot make its worlds."""
        self.end()
        self._start()
        self.hello()

    def end(self) -> None:
        """It and all that it has started."""
        self._link.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
