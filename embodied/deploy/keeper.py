"""The policy's side of the guard: starts it, asks it for things, hears what happens."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embodied.deploy.mailbox import Mailbox
from embodied.deploy.process import end, lifeline, start
from embodied.deploy.requests import Mode, Request, State, Wish, read_state, request_row, slots
from embodied.errors import UserError

POLL_S = 0.002
START_S = 30.0
"""How long a guard may take to start: it imports a simulator for the robot's shape."""


class Tripped(Exception):
    """The guard has stopped the robot, and somebody must arm it again; says why."""


class Keeper:
    """A guard in a process of its own, and what this process asks of it.

    `settings` are the guard's (see `guard_process`). Raises `UserError` where it does not start.
    """

    def __init__(
        self, settings: Mapping[str, Any], joints: int, recorder: int | None = None
    ) -> None:
        sizes = settings["observation"], settings["action"]
        self.mailbox = Mailbox(slots(joints, *sizes))
        self.observation, self.action = np.zeros(sizes[0]), np.zeros(sizes[1])
        self.seen_ns = 0
        """When the state came from which the next action is made."""
        self.events: list[dict[str, Any]] = []
        self._told = 0
        self._number, self._joints = 0, joints
        self._rest = b""
        theirs_life, self._life = lifeline()
        self._events, theirs_events = os.pipe()
        os.set_blocking(self._events, False)
        files = {"mailbox": self.mailbox.file, "lifeline": theirs_life, "events": theirs_events}
        if recorder is not None:
            files["recorder"] = recorder
        self.process = start("guard_process", {**settings, "files": files}, files.values())
        os.close(theirs_life)
        os.close(theirs_events)
        self.wait(lambda state: True, START_S, "the guard does not start")

    @property
    def state(self) -> State:
        """What the guard last said. Raises `UserError` if it is not there any more."""
        state = read_state(self.mailbox)
        if state is None or self.process.poll() is not None:
            self._check()
            raise UserError("the guard has not said anything yet")
        return state

    def ask(self, wish: Wish, target: Sequence[float] | np.ndarray | None = None) -> int:
        """Ask for something; the number of the request."""
        self._number += 1
        where = np.zeros(self._joints) if target is None else np.asarray(target, float)
        request = Request(self._number, wish, self.seen_ns, where, self.observation, self.action)
        self.mailbox.write("request", request_row(request))
        return self._number

    def wait(self, condition: Callable[[State], bool], timeout_s: float, otherwise: str) -> State:
        """Wait until the guard's state is as wanted. Raises `UserError` after `timeout_s`."""
        end = time.monotonic() + timeout_s
        while True:
            state = read_state(self.mailbox)
            if state is not None and condition(state):
                return state
            self._check()
            if time.monotonic() > end:
                said = self.hear()
                raise UserError(f"{otherwise}{f' ({said[-1]})' if said else ''}")
            time.sleep(POLL_S)

    def wait_for(
        self,
        number: int,
        modes: Sequence[Mode],
        timeout_s: float,
        what: str,
        also: Callable[[State], bool] = lambda state: True,
    ) -> State:
        """Wait until a request was read, the guard is in one of `modes`, and `also` something else.

        Raises `Tripped` if it has tripped, and that is not waited for.
        """

        def reached(state: State) -> bool:
            if state.number < number:
                return False
            if state.mode == Mode.TRIPPED and Mode.TRIPPED not in modes:
                raise Tripped(self.why())
            return state.mode in modes and also(state)

        return self.wait(reached, timeout_s, what)

    def hear(self) -> list[str]:
        """What happened since the last call, as "kind: what"."""
        self._listen()
        fresh, self._told = self.events[self._told :], len(self.events)
        return [f"{event['kind']}: {event['what']}" for event in fresh]

    def _listen(self) -> None:
        try:
            while data := os.read(self._events, 65536):
                self._rest += data
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        self.events += [json.loads(line) for line in lines]

    def why(self) -> str:
        """Why the guard last tripped or held."""
        self._listen()
        for event in reversed(self.events):
            if event["kind"] in ("trip", "hold"):
                return str(event["what"])
        return "no reason was heard"

    def close(self, timeout_s: float = 5.0) -> None:
        """Let go of the guard, which then stops the robot and ends."""
        os.close(self._life)
        end(self.process, timeout_s)
        os.close(self._events)
        self.mailbox.close()

    def _check(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise UserError(f"the guard has ended with exit code {code}: see above")
