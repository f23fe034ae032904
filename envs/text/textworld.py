"""TextWorld (Côté et al. 2018, arXiv 1806.11532): houses with a quest, made as they are needed.

The task is a number: it seeds the house, its objects, the quest and the words. A game is compiled
once (half a second) and kept in a folder. Nothing the game's author knows is shown: no list of
commands, no hint of the plan but what the objective says.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range, unknown
from embodied.text_world import Turn

from .textworld_events import watch

META = frozenset(
    "save restore restart quit q undo script noscript transcript verify version oops again g "
    "notify superbrief superbrev brief verbose normal nouns pronouns places objects score".split()
)
"""What is said to the interpreter rather than in the game: it would write files, or ask back."""
VERB = re.compile(r"(?:^|[^\w\s'-]|\bthen\b|\band\b)[\W_]*([\w'-]+)")
"""The first word of every command in what is said; a "type Q safe" may be named in one."""
THEMES = ("house", "basic")
INSTRUCTIONS = ("all", "last")
MOST_KEPT = 10_000
"""Games in a folder, of 400 kB each: beyond that the oldest are made anew when they are needed."""
TRIES = 100
"""Seeds that are tried for one task until the quest has its length."""
MOST_LETTERS = 100
"""Of a command: the interpreter is C and crashes on longer ones, and on what is not ASCII."""


class TextWorldGame:
    """A house of `rooms` rooms with `objects` things, and a quest of `quest_length` commands.

    With `theme` "house" rooms and things have names and stories, with "basic" they are numbered and
    told of in plain sentences, a third as many words. The objective tells `instructions` "all", one
    for each command of the quest, or only the "last", and how to get there is to be found out. A
    subgoal is what each command of the quest changes (a thing is held, a chest is open, the player
    is in a room), verified in the game's own facts; one that holds from the start counts once those
    before it are reached. Games are kept in the folder `games` (by default in the user's cache). To
    reward models it tells as "answer" the command that ends the quest. Raises `UserError` for what
    it does not know, or where no quest exists.
    """

    max_turns = 20
    tells = ("answer",)

    def __init__(
        self,
        rooms: int = 2,
        objects: int = 3,
        quest_length: int = 4,
        theme: str = "house",
        instructions: str = "all",
        games: str | None = None,
    ) -> None:
        check_range("env", 1, rooms=rooms, objects=objects, quest_length=quest_length)
        if theme not in THEMES:
            raise unknown("env.theme", theme, THEMES)
        if instructions not in INSTRUCTIONS:
            raise unknown("env.instructions", instructions, INSTRUCTIONS)
        self.size = (rooms, objects, quest_length)
        self.theme, self.instructions = theme, instructions
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(games) if games else cache / "embodied" / "textworld"
        kind = theme if instructions == "all" else f"{theme}-{instructions}"
        self.folder = folder / f"w{rooms}-o{objects}-q{quest_length}-{kind}"
        self._env: Any = None
        self._walkthrough: list[str] = []
        self._goals: list[frozenset] = []
        self._reached: set[int] = set()
        self._held: set[int] = set()  # subgoals that are facts from the start
        self._last: Any = None  # what changed the game last

    def reset(self, seed: int) -> Turn:
        import textworld

        file = self.folder / f"{seed}.z8"
        if not file.exists():
            self._make(seed, file)
        self.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its interpreter's, about games that are not its own
            self._env = textworld.start(str(file), textworld.EnvInfos(last_action=True))
            state = self._env.reset()
        watch(self._env)
        game = state["game"]
        self._walkthrough = list(game.metadata["walkthrough"])
        actions = [action for quest in game.quests for action in quest.win_events[0].actions]
        self._goals = [frozenset(action.added) for action in actions]
        self._reached, facts = set(), set(state["_facts"])
        self._last = object()  # so that the first facts are looked at
        self._held = {k for k, goal in enumerate(self._goals) if goal <= facts}
        text = _plain(state.feedback)
        return self._turn(text[max(0, text.find(game.objective[:40])) :], state, True)

    def step(self, action: str) -> Turn:
        plain = "".join(letter for letter in action if letter.isascii() and letter.isprintable())
        plain = plain.replace("\\", " ")  # with it the interpreter is set up, and may never return
        if any(word in META or word.startswith("tw-") for word in VERB.findall(plain.lower())):
            plain = "?"
        state, _, _ = self._env.step(" ".join(plain.split())[:MOST_LETTERS] or "?")
        return self._turn(_plain(state.feedback), state, "- succeeded]" in state.raw)

    def gold(self) -> list[str]:
        return list(self._walkthrough)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _turn(self, text: str, state: Any, valid: bool) -> Turn:
        changed, self._last = state["_last_action"] is not self._last, state["_last_action"]
        facts = set(state["_facts"]) if changed else set()  # nothing new holds
        for k, goal in enumerate(self._goals):
            if goal <= facts and (k not in self._held or len(self._reached) >= k):
                self._reached.add(k)
        won, lost = bool(state["won"]), bool(state["lost"])
        if won:  # the last change ends the game before its facts are told
            self._reached = set(range(len(self._goals)))
        reached, subgoals = len(self._reached), len(self._goals)
        told = {"answer": self._walkthrough[-1]}
        return Turn(text, won or lost, won, valid, float(won), reached, subgoals, told)

    def _make(self, seed: int, file: Path) -> None:
        """Generate and compile a game, whole or not at all."""
        import textworld
        from textworld.generator import compile_game, make_game
        from textworld.generator.chaining import QuestGenerationError

        rooms, objects, length = self.size
        for attempt in range(TRIES):
            options = textworld.GameOptions()
            options.nb_rooms, options.nb_objects, options.quest_length = rooms, objects, length
            options.grammar.theme = self.theme
            options.grammar.only_last_action = self.instructions == "last"
            options.seeds = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0] >> 1)
            try:
                game = make_game(options)
            except QuestGenerationError:
                continue
            if len(game.metadata["walkthrough"]) == length:
                break
        else:
            raise UserError(
                f"env: no quest of {length} commands in {rooms} rooms, {objects} things"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = list(self.folder.glob("*.z8"))
        if len(kept) >= MOST_KEPT:
            oldest = min(kept, key=lambda one: one.stat().st_mtime)
            for kind in ("z8", "json", "ni"):
                oldest.with_suffix(f".{kind}").unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            options.path = f"{folder}/game.z8"
            compile_game(game, options)
            for kind in ("ni", "json", "z8"):  # the last says that all are there
                part = Path(folder) / f"game.{kind}"
                if part.exists():
                    part.replace(file.with_suffix(f".{kind}"))


def _plain(feedback: str) -> str:
    """What the game says, without its status line, its prompt and its empty lines."""
    text = feedback.split("\n>")[0].split("Would you like to RESTART")[0]
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)
