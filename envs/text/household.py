"""Household tasks after ALFWorld (Shridhar et al. 2021, arXiv 2010.03768), made as they are needed.

What can be done and what comes of it is ALFWorld's: the planner plays the domain that the installed
`alfworld` brings, and our answers are worded as its grammar words them. The homes are ours:
ALFWorld's are scenes of AI2-THOR with the tasks of ALFRED, ours are drawn by the task's number, so
there are as many as are asked for and nothing is downloaded. Apart from that we differ so: there
are three kinds of rooms, every place stands by itself and is shut at the start, nothing can be
sliced, every lamp is a desk lamp, and "look" in the middle of the room tells what is in it, where
ALFWorld sees nothing.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embodied.errors import UserError, check_range, unknown
from embodied.text_world import Turn

from .homes import TASKS, TREATED, draw, searching_plan, shortest_plan

COMMANDS = {
    "look": ("look", ""), "inventory": ("inventory", ""), "help": ("help", ""),
    "gotolocation": ("go to {3}", "You arrive at {3}. "),
    "openobject": ("open {2}", "You open the {2}. "),
    "closeobject": ("close {2}", "You close the {2}."),
    "pickupobject": ("take {2} from {3}", "You pick up the {2} from the {3}."),
    "putobject": ("move {2} to {3}", "You move the {2} to the {3}."),
    "cleanobject": ("clean {3} with {2}", "You clean the {3} using the {2}."),
    "heatobject": ("heat {3} with {2}", "You heat the {3} using the {2}."),
    "coolobject": ("cool {3} with {2}", "You cool the {3} using the {2}."),
    "toggleobject": ("use {2}", "You turn on the {2}."),
    "examinereceptacle": ("examine {1}", ""), "examineobject": ("examine {1}", ""),
}  # fmt: skip
"""The domain's actions: what is said, and answered, with its arguments in its order."""
HELP = """Commands: look, inventory, go to PLACE, open PLACE, close PLACE, take THING from PLACE, \
move THING to PLACE, examine PLACE or THING, use THING, clean, heat or cool THING with PLACE."""


class Household:
    """A room with `places` places and `objects` things, and a task of one of the `kinds` (null: all
    six of ALFWorld's: place, light, clean, heat, cool, two).

    Subgoals are facts of the game: a right thing is held; it is clean, hot or cool; it lies where
    it belongs. Of "put two" holding and placing count for each; of "look at" they are that it is
    held, held where the lamp is, and that the lamp there is on. "help" tells how commands are
    worded, never which are possible. The gold actions know where things are; with `search` they
    look for them as an agent has to, place by place. Raises `UserError` for a kind that there
    isn't, and where `alfworld` is not installed.
    """

    max_turns = 50
    tells = ()

    def __init__(
        self,
        places: int = 12,
        objects: int = 12,
        search: bool = False,
        kinds: Sequence[str] | None = None,
    ) -> None:
        check_range("env", 6, 16, places=places)
        check_range("env", 4, 40, objects=objects)
        for kind in kinds or ():
            if kind not in TASKS:
                raise unknown("env.kinds", kind, TASKS)
        self.size, self.search = (places, objects), search
        self.kinds = tuple(kinds or TASKS)
        _domain()

    def reset(self, seed: int) -> Turn:
        self._home = draw(seed, *self.size, self.kinds)
        self._facts = set(self._home.facts)
        self._done: list[tuple[int, int]] = []  # operators and how many effects they have
        self._reached: set[int] = set()
        return self._turn(f"{self._room()}\n\nYour task is to: {self._home.goal}.")

    def step(self, action: str) -> Turn:
        import fast_downward

        engine, said = self._playing(), " ".join(action.lower().split())
        possible = (fast_downward.Operator * engine.get_applicable_operators_count())()
        engine.get_applicable_operators(possible)
        for operator in possible:
            name, *arguments = operator.name.split()
            if COMMANDS[name][0].format(*arguments).replace("_", " ") == said:
                break
        else:
            return self._turn("Nothing happens.", valid=False)
        effects = (fast_downward.Atom * operator.nb_effect_atoms)()
        engine.apply_operator(operator.id, effects)
        self._done.append((operator.id, len(effects)))
        for effect in effects:  # "Atom holds(you, mug_1)" or "NegatedAtom ..."
            sign, *fact = re.findall(r"[\w@-]+", effect.name)
            (self._facts.add if sign == "Atom" else self._facts.discard)(tuple(fact))
        return self._turn(self._answer(name, arguments))

    def gold(self) -> list[str]:
        return searching_plan(self._home) if self.search else shortest_plan(self._home)

    def close(self) -> None:
        pass

    def _turn(self, text: str, valid: bool = True) -> Turn:
        holds = self._subgoals()
        self._reached |= {k for k, it in enumerate(holds) if it}
        won, reached = bool(self._playing().check_goal()), len(self._reached)
        return Turn(text.replace("_", " "), won, won, valid, float(won), reached, len(holds))

    def _subgoals(self) -> list[bool]:
        """Which hold now; the last is the goal."""
        home, facts = self._home, self._facts
        held = any(("holds", "you", thing) in facts for thing in home.wanted)
        if home.task == "light":
            here = held and ("atlocation", "you", f"at_{home.targets[0]}") in facts
            return [held, here, here and ("istoggled", "desklamp_1") in facts]
        placed = [
            {thing for thing in home.wanted if ("inreceptacle", thing, place) in facts}
            for place in home.targets
        ]
        if home.task == "two":
            one = any(placed)
            return [held, one, one and held, any(len(things) > 1 for things in placed)]
        if home.task == "place":
            return [held, any(placed)]
        done = {thing for thing in home.wanted if (TREATED[home.task], thing) in facts}
        return [held, bool(done), any(done & things for things in placed)]

    def _answer(self, name: str, arguments: list[str]) -> str:
        said = COMMANDS[name][1].format(*arguments)
        if name in ("gotolocation", "openobject", "examinereceptacle"):
            return said + self._place(arguments[-1])
        if name == "examineobject":
            return self._thing(arguments[-1])
        if name == "inventory":
            held = [fact[2] for fact in self._facts if fact[0] == "holds"]
            return f"You are carrying: {_list(held)}." if held else "You are not carrying anything."
        return self._room() if name == "look" else said or HELP

    def _room(self) -> str:
        at = next(fact[2] for fact in self._facts if fact[0] == "atlocation")
        if at != "middle":
            return f"You are facing the {at[3:]}. Next to it, you see nothing."
        there = _list([fact[1] for fact in self._facts if fact[0] == "receptacletype"])
        return f"You are in the middle of a room. Looking quickly around you, you see {there}."

    def _place(self, place: str) -> str:
        inside = _list([fact[1] for fact in self._facts if fact[::2] == ("inreceptacle", place)])
        if ("openable", place) not in self._facts:
            return f"On the {place}, you see {inside}."
        if ("opened", place) not in self._facts:
            return f"The {place} is closed."
        return f"The {place} is open. In it, you see {inside}."

    def _thing(self, thing: str) -> str:
        if ("toggleable", thing) in self._facts:
            return f"This {thing} is {'on' if ('istoggled', thing) in self._facts else 'off'}."
        states = {"ishot": "hot", "iscool": "cool", "isclean": "clean"}
        words = " and ".join(word for fact, word in states.items() if (fact, thing) in self._facts)
        words = "cold" if words == "cool" else words
        return f"This is a {words} {thing}." if words else f"There's nothing special about {thing}."

    def _playing(self) -> Any:
        """The library that knows what is possible. It plays one game; be that this one, as it is.

        All worlds of a process share it: every copy of it is a file of 32 MiB.
        """
        import fast_downward

        library, playing = _library()
        if playing[0] is not self._done:
            library.load_sas(zlib.decompress(_translated(self._home.problem)))
            for operator, effects in self._done:
                library.apply_operator(operator, (fast_downward.Atom * effects)())
            playing[0] = self._done
        return library


def _list(names: Iterable[str]) -> str:
    *first, last = [f"a {name}" for name in sorted(names)] or ["nothing"]
    return f"{', '.join(first)}, and {last}" if first else last


@cache
def _domain() -> str:
    """Of the installed package, which need not be imported for that (it makes folders)."""
    spec = find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("env=household takes its rules from alfworld: install embodied-rl[text]")
    return (Path(spec.submodule_search_locations[0]) / "data" / "alfred.pddl").read_text()


@cache
def _library() -> tuple[Any, list[Any]]:
    """Fast Downward's library, and the game that it is playing."""
    import fast_downward

    return fast_downward.load_lib(), [None]


@lru_cache(1000)
def _translated(problem: str) -> bytes:
    """A problem as the library reads it, compressed: about 20 kB."""
    import fast_downward

    given = sys.argv  # the translator overwrites it
    try:
        return zlib.compress(fast_downward.pddl2sas(_domain(), problem)[1].encode())
    finally:
        sys.argv = given
