"""TextWorldExpress (Jansen & Côté 2022, arXiv 2208.01174): small games, made as they are needed.

The package's own Java does the work; we talk to it without its Python wrapper, which would start
a machine for every world. Neither its list of valid actions nor the room and the inventory, which
it offers at every step, are shown: who wants to know looks.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from embodied.errors import UserError, unknown
from embodied.text_world import Turn

from .java import borrow, java_path, sendable

REFUSALS = (
    "Unknown action",
    "That is not a command",
    "That is already",
    "You can't",
    "You are unable",
    "Can only prepare meal",
    "Your inventory currently has",
)
"""How the games begin to say that nothing was done."""
BY_CLOCK = {"coin": "CoinGoldAgent", "twc": "TWCGoldAgent"}
"""Games whose gold path the package seeds by the clock, and what walks it."""
TRIES = 10
"""Such paths that are drawn, to take the shortest."""
MOST_KNOWN = 10_000
"""Gold paths that are kept: to find one takes twenty times as long as to make its game."""
SAME = 1e-6
"""Scores that differ by less are the same."""


class ExpressGame:
    """One of the package's games, made with its `params` ("numLocations=3,includeDoors=0").

    The task is the game's seed, and says the fold as the package does: from 10000 on "dev", from
    20000 on "test" (to 29999), else "train". The world pays what its normalised score gains, so
    undoing costs what doing has paid. A subgoal is a score that the package's gold path passes
    through; it is reached once the game's own score has been as high. The gold path explores and
    reads as a player has to, it is cut where the game is won. Letters may be large or small.

    Raises `UserError` for games and parameters that do not exist.
    """

    max_turns = 100  # as in the package
    tells = ()
    _walked: ClassVar[dict[tuple[str, str, int], tuple[list[str], list[float]]]] = {}

    def __init__(self, game: str = "twc", params: str = "") -> None:
        try:
            from textworld_express.constants import GAME_NAMES, JAR_PATH
        except ImportError:
            raise UserError("textworld_express: pip install 'embodied-rl[text]'") from None
        if game not in GAME_NAMES:
            raise unknown("game", game, GAME_NAMES)
        java_path()
        self.game, self.params, self._jar = game, params, JAR_PATH
        self._java: Any = None  # the machine, while it is borrowed
        self._server: Any = None
        self._gold: list[str] = []
        self._levels: list[float] = []  # scores on the gold path, rising
        self._known: dict[str, str] = {}  # in small letters, what the game understands now
        self._score = self._best = 0.0

    def reset(self, seed: int) -> Turn:
        if self._server is None:
            self._start()
        key = (self.game, self.params, seed)
        if key not in self._walked:
            if len(self._walked) == MOST_KNOWN:
                self._walked.clear()
            self._walked[key] = self._walk(seed, self._path(seed))
        self._gold, self._levels = self._walked[key]
        said = self._make(seed)
        self._score = self._best = 0.0
        return self._turn(f"{self._server.getTaskDescription()}\n{said['observation']}", said)

    def step(self, action: str) -> Turn:
        said = self._say(action)
        return self._turn(said["observation"], said)

    def gold(self) -> list[str]:
        return list(self._gold)

    def close(self) -> None:
        if self._java is not None:
            self._java.leave()
        self._java = self._server = None

    def _start(self) -> None:
        self._java = borrow(self._jar)
        self._server = self._java.jvm.textworldexpress.runtime.PythonInterface()
        wrong = self._server.load(self.game, self.params)
        if wrong:
            self.close()
            raise UserError(f"env.params={self.params}: {' '.join(wrong.split())}")

    def _make(self, seed: int) -> dict[str, Any]:
        """The game of a task at its start."""
        return self._heard(self._server.generateNewGameJSON(*_seed_and_fold(seed), True))

    def _path(self, seed: int) -> list[str]:
        """The package's gold path. Where it would draw one by the clock, the task's seed draws."""
        if self.game not in BY_CLOCK:
            self._make(seed)
            return list(self._server.getGoldActionSequence())
        number, fold = _seed_and_fold(seed)
        paths: list[list[str]] = []
        for draw in range(TRIES):
            game = self._server.gameGenerator().mkGame(number, fold)
            walker = getattr(self._java.jvm.textworldexpress.goldagent, BY_CLOCK[self.game])(game)
            found = walker.mkGoldPath(self._java.jvm.scala.util.Random(TRIES * number + draw))
            if found._1():
                paths.append(list(found._2()))
        return min(paths, key=len, default=[])

    def _say(self, action: str) -> dict[str, Any]:
        line = sendable(action)
        return self._heard(self._server.stepJSON(self._known.get(line.lower(), line)))

    def _heard(self, reply: str) -> dict[str, Any]:
        said = json.loads(reply)
        self._known = {action.lower(): action for action in said["validActions"]}
        return said

    def _walk(self, seed: int, path: list[str]) -> tuple[list[str], list[float]]:
        """The gold path up to where the game is won, and the scores that it passes through."""
        levels: list[float] = []
        self._make(seed)
        for number, action in enumerate(path, 1):
            said = self._say(action)
            if said["score"] > (levels[-1] if levels else 0.0) + SAME:
                levels.append(said["score"])
            if _won(said):
                return path[:number], levels
        raise RuntimeError(f"task {seed} of {self.game} has no gold path")

    def _turn(self, text: str, said: dict[str, Any]) -> Turn:
        gain, self._score = said["score"] - self._score, said["score"]
        self._best = max(self._best, self._score)
        reached = sum(level <= self._best + SAME for level in self._levels)
        won = _won(said)
        over = won or said["taskfailure"]
        valid = not text.startswith(REFUSALS)
        lines = [line.strip() for line in text.splitlines()]
        text = "\n".join(line for line in lines if line)
        return Turn(text, over, won, valid, gain, reached, len(self._levels))


def _seed_and_fold(task: int) -> tuple[int, str]:
    return task & 0x7FFFFFFF, {1: "dev", 2: "test"}.get(task // 10000, "train")


def _won(said: dict[str, Any]) -> bool:
    return said["tasksuccess"] or said["score"] > 1.0 - SAME
