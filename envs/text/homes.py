"""Homes for household tasks, drawn by a task's number: their places, their things, and a goal."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

THINGS = (
    ("food", "apple egg potato tomato", "heatable coolable cleanable"),
    ("food", "bread", "heatable coolable"),
    ("food", "lettuce", "coolable cleanable"),
    ("dish", "cup mug plate", "heatable coolable cleanable"),
    ("dish", "bowl", "coolable cleanable"),
    ("pot", "pan pot", "coolable cleanable"),
    ("tool", "butterknife dishsponge fork knife ladle spatula spoon", "cleanable"),
    ("jar", "peppershaker saltshaker soapbottle vase", ""),
    ("small", "cd cellphone creditcard keychain pencil remotecontrol watch", ""),
    ("paper", "book newspaper tissuebox", ""),
    ("soft", "pillow", ""),
    ("lamp", "desklamp", "toggleable"),
)
GROUP = {kind: group for group, kinds, _ in THINGS for kind in kinds.split()}
CAN = {kind: can.split() for _, kinds, can in THINGS for kind in kinds.split()}
PLACES = {
    "armchair": "paper small soft", "bed": "paper small soft", "cabinet": "dish jar pot",
    "coffeetable": "dish jar paper small", "countertop": "dish food jar pot tool",
    "desk": "dish jar lamp paper small", "diningtable": "dish food jar paper pot small tool",
    "drawer": "paper small tool", "dresser": "dish jar lamp paper small",
    "fridge": "dish food pot", "garbagecan": "food jar paper", "microwave": "dish food",
    "safe": "small", "shelf": "dish jar paper small", "sidetable": "dish jar lamp paper small",
    "sinkbasin": "dish food pot tool", "sofa": "paper small soft", "stoveburner": "pot",
    "tvstand": "paper small",
}  # fmt: skip
"""The groups of things that each kind of place can hold."""
OPENABLE = ("cabinet", "drawer", "fridge", "microwave", "safe")
ROOMS = {
    "kitchen": ("dish food jar pot tool", "countertop fridge microwave sinkbasin",
        "cabinet cabinet cabinet cabinet countertop diningtable drawer drawer drawer garbagecan "
        "shelf stoveburner"),
    "living room": ("jar paper small soft", "coffeetable garbagecan sidetable sofa",
        "armchair armchair cabinet cabinet diningtable drawer drawer drawer safe shelf sidetable "
        "tvstand"),
    "bedroom": ("jar paper small soft", "bed desk drawer garbagecan",
        "armchair cabinet cabinet desk drawer drawer drawer dresser safe shelf shelf sidetable"),
}  # fmt: skip
"""The groups of things in each room, the places it always has, and those it may have."""
TASKS = {
    "place": ("put a {} in {}", "put some {} on {}"),
    "light": ("look at {} under the desklamp", "examine the {} with the desklamp"),
    "clean": ("put a clean {} in {}", "clean some {} and put it in {}"),
    "heat": ("put a hot {} in {}", "heat some {} and put it in {}"),
    "cool": ("put a cool {} in {}", "cool some {} and put it in {}"),
    "two": ("put two {} in {}", "find two {} and put them in {}"),
}
"""As ALFWorld words them. Of all kinds, task number n is the (n modulo 6)th of them."""
TREATED = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}
APPLIANCE = {"clean": "sinkbasin_1", "heat": "microwave_1", "cool": "fridge_1"}
Fact = tuple[str, ...]


@dataclass(frozen=True)
class Home:
    """A room and what is to be done in it. Names are as in "mug_1"."""

    task: str
    goal: str  # in words
    wanted: tuple[str, ...]  # any of these things will do
    targets: tuple[str, ...]  # any of these places too; of "light" the lamp's
    lies: Mapping[str, str]  # in which place each thing is
    facts: tuple[Fact, ...]
    problem: str  # in PDDL


def draw(seed: int, places: int, objects: int, kinds: Sequence[str] = tuple(TASKS)) -> Home:
    """The home of a task, which is of each of the `kinds` in turn."""
    rng = random.Random(seed)
    task = kinds[seed % len(kinds)]
    needs, appliance = f"{task}able", kind_of(APPLIANCE.get(task, ""))
    rooms = ["kitchen"] * (task != "light") + ["living room", "bedroom"] * (task not in TREATED)
    groups, always, may = map(str.split, ROOMS[rng.choice(rooms)])
    spots = _numbered(always + rng.sample(may, places - len(always)))
    kinds = [kind for kind, group in GROUP.items() if group in groups]

    def holders(kind: str) -> list[str]:
        return [spot for spot in spots if GROUP[kind] in PLACES[kind_of(spot)].split()]

    aims = {k: sorted({kind_of(spot) for spot in holders(k)} - {appliance}) for k in kinds}
    fit = [k for k in kinds if len(aims[k]) > 1 and (task not in TREATED or needs in CAN[k])]
    wanted = rng.choice(fit)
    aim = "" if task == "light" else rng.choice(aims[wanted])
    many = rng.randint(1, 2) + (task == "two")
    others = rng.choices([kind for kind in kinds if kind != wanted], k=objects - many)
    lies = {}
    for thing in _numbered([wanted] * many + others + ["desklamp"] * ("soft" in groups)):
        free = [spot for spot in holders(kind_of(thing)) if aim != kind_of(spot)]
        lies[thing] = rng.choice(free if kind_of(thing) == wanted else holders(kind_of(thing)))
    targets = [spot for spot in spots if kind_of(spot) == aim] if aim else [lies["desklamp_1"]]
    names = tuple(thing for thing in lies if kind_of(thing) == wanted)
    facts = _facts(spots, lies)
    problem = _problem(facts, _goal(task, wanted, aim))
    goal = rng.choice(TASKS[task]).format(wanted, aim)
    return Home(task, goal, names, tuple(targets), lies, facts, problem)


def _facts(spots: list[str], lies: Mapping[str, str]) -> tuple[Fact, ...]:
    """All that is so at the start."""
    facts: list[Fact] = [("atlocation", "you", "middle")]
    for spot in spots:
        facts += [("receptacletype", spot, f"{kind_of(spot)}type")]
        facts += [("receptacleatlocation", spot, f"at_{spot}")]
        facts += [("openable", spot)] * (kind_of(spot) in OPENABLE)
    for thing, spot in lies.items():
        kind = kind_of(thing)
        facts += [("objecttype", thing, f"{kind}type"), ("inreceptacle", thing, spot)]
        facts += [("objectatlocation", thing, f"at_{spot}")]
        facts += [(can, thing) for can in (*CAN[kind], *["pickupable"] * (kind != "desklamp"))]
    for place in sorted({kind_of(spot) for spot in spots}):
        held = {kind_of(thing) for thing in lies if GROUP[kind_of(thing)] in PLACES[place].split()}
        facts += [("cancontain", f"{place}type", f"{kind}type") for kind in sorted(held)]
    return tuple(facts)


def _goal(task: str, wanted: str, aim: str) -> str:
    if task == "light":
        return f"""(exists (?o ?t - object ?r - receptacle ?l - location) (and
            (objecttype ?o {wanted}type) (holds you ?o) (toggleable ?t) (istoggled ?t)
            (inreceptacle ?t ?r) (receptacleatlocation ?r ?l) (atlocation you ?l)))"""
    more = f"({TREATED[task]} ?o)" if task in TREATED else ""
    if task == "two":
        more = f"(not (= ?o ?p)) (objecttype ?p {wanted}type) (inreceptacle ?p ?r)"
    return f"""(exists (?o {"?p " * (task == "two")}- object ?r - receptacle) (and
        (objecttype ?o {wanted}type) (inreceptacle ?o ?r) (receptacletype ?r {aim}type) {more}))"""


def _problem(facts: Iterable[Fact], goal: str) -> str:
    types = {"you": "agent", "middle": "location"}
    # the domain names these, whatever is in the room
    types |= dict.fromkeys(("sinkbasintype", "microwavetype", "fridgetype"), "rtype")
    types |= dict.fromkeys(("knifetype", "butterknifetype"), "otype")
    for name, one, other in (fact for fact in facts if len(fact) == 3):
        if name == "receptacletype":
            types |= {one: "receptacle", f"at_{one}": "location", other: "rtype"}
        elif name == "objecttype":
            types |= {one: "object", other: "otype"}
    objects = "\n".join(f"{name} - {kind}" for name, kind in types.items())
    init = "\n".join(f"({' '.join(fact)})" for fact in facts)
    return f"""(define (problem home) (:domain alfred) (:objects {objects})
        (:init {init} (= (total-cost) 0)) (:goal {goal}) (:metric minimize (total-cost)))"""


def shortest_plan(home: Home) -> list[str]:
    """The shortest of the plans that fetch one thing after the other."""
    orders = permutations(home.wanted, 2 if home.task == "two" else 1)
    return min((_plan(home, order, to) for order in orders for to in home.targets), key=len)


def searching_plan(home: Home) -> list[str]:
    """A plan of one who does not know where things are.

    It looks into the places in the order in which they are listed, until it has seen a thing that
    will do, and fetches it; then it goes on with the next thing, or with the lamp.
    """
    left = sorted(fact[1] for fact in home.facts if fact[0] == "receptacletype")
    steps, here = _Steps(), set(home.wanted)

    def found(names: set[str]) -> str:
        while not (seen := sorted(n for n in names if home.lies[n] in steps.looked)):
            steps.go(next(place for place in left if place not in steps.looked), True)
        return seen[0]

    for _ in range(2 if home.task == "two" else 1):
        here.discard(thing := found(here))
        steps.take(home, thing)
        if home.task == "light":
            found({"desklamp_1"})
        steps.bring(home, thing, home.targets[0])
    return steps.commands()


def _plan(home: Home, things: Iterable[str], target: str) -> list[str]:
    """Commands that take these things, one after the other, to where they belong."""
    steps = _Steps()
    for thing in things:
        steps.take(home, thing)
        steps.bring(home, thing, target)
    return steps.commands()


class _Steps:
    """Commands of one who walks from place to place, and has `looked` into some."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.looked: set[str] = set()
        self._at = ""

    def go(self, place: str, look: bool) -> None:
        """Go there if it is elsewhere; to look into it, or to put something in, it is opened."""
        self.said += [f"go to {place}"] * (self._at != place)
        self._at = place
        shut = kind_of(place) in OPENABLE and f"open {place}" not in self.said
        self.said += [f"open {place}"] * (look and shut)
        self.looked |= {place} if look or not shut else set()

    def take(self, home: Home, thing: str) -> None:
        self.go(home.lies[thing], True)
        self.said.append(f"take {thing} from {home.lies[thing]}")

    def bring(self, home: Home, thing: str, target: str) -> None:
        """What is held, as it is to be, to where it belongs."""
        if home.task in TREATED:
            self.go(APPLIANCE[home.task], False)
            self.said.append(f"{home.task} {thing} with {APPLIANCE[home.task]}")
        self.go(target, True)
        last = "use desklamp_1" if home.task == "light" else f"move {thing} to {target}"
        self.said.append(last)

    def commands(self) -> list[str]:
        return [command.replace("_", " ") for command in self.said]


def kind_of(name: str) -> str:
    return name.partition("_")[0]


def _numbered(kinds: Iterable[str]) -> list[str]:
    return [f"{kind}_{k + 1}" for kind, n in sorted(Counter(kinds).items()) for k in range(n)]
