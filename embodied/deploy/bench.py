"""The bench of a simulated robot: starts it, puts its world at the start of an episode, and knows
what no robot can tell."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from embodied.deploy.process import end, start
from embodied.errors import UserError

START_S = 60.0


class Bench:
    """A simulated robot (`embodied.deploy.plant`) in a process of its own, with `settings`."""

    def __init__(self, settings: Mapping[str, Any], files: tuple[int, ...] = ()) -> None:
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            given = {**settings, "bench": theirs.fileno()}
            self.process = start("plant", given, (theirs.fileno(), *files))
        self._end.settimeout(START_S)
        self.look()

    def reset(self, seed: int) -> dict[str, Any]:
        """Put the world at the start of the episode with that seed."""
        return self._ask({"seed": seed})

    def look(self) -> dict[str, Any]:
        """Whether the task is done (`succeeded`), and how many steps of physics that took."""
        return self._ask({})

    def delays_ns(self) -> list[int]:
        """How long the newest commands that bear a stamp were on their way."""
        delays: list[int] = self._ask({"delays": True})["delays_ns"]
        return delays

    def close(self) -> None:
        self._end.close()
        end(self.process)

    def _ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._end.send(json.dumps(what).encode())
            data = self._end.recv(262144)
        except OSError:
            data = b""
        if not data:
            raise UserError("the simulated robot has ended: see above")
        answer = json.loads(data)
        assert isinstance(answer, dict)
        return answer
