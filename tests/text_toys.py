"""A text world to test on: a row of doors, each of which opens to its own word."""

from __future__ import annotations

import json
import os
import random
import time

from embodied.text_world import Turn

WORDS = ("ash", "birch", "cedar", "elm", "fir", "oak")


class Doors:
    """Say the words on `doors` doors, one after another: "say oak".

    "crash" raises, "hang" sleeps, "die" ends the process: what a library may do.
    """

    max_turns = 8
    tells = ("word",)

    def __init__(self, doors: int = 3) -> None:
        self.doors = doors
        self._words: list[str] = []
        self._open = 0

    def reset(self, seed: int) -> Turn:
        drawn = random.Random(seed)
        self._words, self._open = [drawn.choice(WORDS) for _ in range(self.doors)], 0
        return self._turn(f"Open {self.doors} doors.", True, 0.0)

    def step(self, action: str) -> Turn:
        if action == "crash":
            raise RuntimeError("the library failed")
        if action == "hang":
            time.sleep(60.0)
        if action == "die":
            os._exit(1)
        if action == "nap":
            time.sleep(0.8)
        if action == "half":
            return Turn("\ud800", told={"word": '""'})
        fits = action == f"say {self._words[self._open]}"
        self._open += fits
        said = "It opens." if fits else "Nothing happens." if action[:4] == "say " else "What?"
        return self._turn(said, said != "What?", float(fits) / self.doors)

    def gold(self) -> list[str]:
        return [f"say {word}" for word in self._words]

    def close(self) -> None:
        pass

    def _turn(self, said: str, valid: bool, score: float) -> Turn:
        over = self._open == self.doors
        word = "" if over else self._words[self._open]
        text = f"{said} The door says {word}." if word else f"{said} You are out."
        told = {"word": json.dumps(word)}
        return Turn(text, over, over, valid, score, self._open, self.doors, told)
