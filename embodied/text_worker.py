"""A process of text worlds: `python -m embodied.text_worker DESCRIPTOR`, a line of JSON each way.

Started by `embodied.text_pool`. The first line says which worlds; after that each line asks one of
them for one thing, and is answered by one line, in order. It is started
without anywhere to print to.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from embodied.build import make
from embodied.text_world import TextWorld

WATCH_S = 2.0
"""How often a process looks whether the one that started it is still there."""


class Worlds:
    """Worlds by number, made as they are asked for; one that failed is made anew at its reset."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self.node = node
        self._spare: TextWorld | None = make(node)
        self.max_turns, self.tells = self._spare.max_turns, tuple(self._spare.tells)
        self._worlds: dict[int, TextWorld] = {}
        self._broken: set[int] = set()

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a world says to one question: {"said": ...}, or {"error": ...} where it failed.

        A reset also tells how many subgoals hold from the start ("begun").
        """
        number = asked["world"]
        try:
            return _answer(self._world(number, asked["do"] == "reset"), asked)
        except Exception as error:  # of a library that is not ours; the pool counts it
            self._broken.add(number)
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}

    def close(self) -> None:
        for world in (*self._worlds.values(), self._spare):
            if world is not None:
                with contextlib.suppress(Exception):  # it is of no more use, whatever it says
                    world.close()

    def _world(self, number: int, anew: bool) -> TextWorld:
        if number in self._broken:
            if not anew:
                raise RuntimeError("the world failed before: it is to be reset")
            with contextlib.suppress(Exception):
                self._worlds.pop(number).close()
            self._broken.discard(number)
        if number not in self._worlds:
            self._worlds[number], self._spare = self._spare or make(self.node), None
        return self._worlds[number]


def _answer(world: TextWorld, asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked["do"] == "gold":
        return {"said": world.gold()}
    if asked["do"] == "step":
        return {"said": world.step(asked["action"]).to_dict()}
    turn = first = world.reset(asked["seed"])
    for action in asked["actions"]:
        turn = world.step(action)
    return {"said": turn.to_dict(), "begun": first.reached}


def serve(descriptor: int) -> None:
    """Answer what is asked over a socket until it is closed, or whoever asks is gone."""
    threading.Thread(target=_leave_after, args=(os.getppid(),), daemon=True).start()
    with socket.socket(fileno=descriptor) as link, link.makefile("rwb") as wire:

        def say(line: Mapping[str, Any]) -> None:
            wire.write(json.dumps(line).encode() + b"\n")
            wire.flush()

        try:
            worlds = Worlds(json.loads(wire.readline()))
        except Exception as error:  # it says why, and is gone
            say({"error": f"{type(error).__name__}: {error}"})
            return
        say({"max_turns": worlds.max_turns, "tells": worlds.tells})
        for line in wire:
            say(worlds.answer(json.loads(line)))
        worlds.close()


def _leave_after(parent: int) -> None:
    """End with the parent, also where a world never returns: nobody is left to stop it."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
