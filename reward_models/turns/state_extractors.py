"""What a world's text says of things, as {object: {attribute: value}}: by rules, or by a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from embodied.endpoint import Prompt, ask_for
from embodied.judge_prompt import cut, question, strict
from embodied.model_source import unheard
from embodied.types import SCORED

State = dict[str, dict[str, str]]
Told = tuple[State | None, int]
"""A state and a status: none where it could not be told."""


class Extractor(Protocol):
    def goals(self, texts: Sequence[str]) -> list[Told]:
        """What is to be reached, from the first texts of episodes."""

    def updates(self, states: Sequence[State], texts: Sequence[str]) -> list[Told]:
        """What is so now, from what was so before and the newest texts."""


# --- by rules

Rule = tuple[re.Pattern[str], str, str, str]
"""Where it is said, and the object, attribute and value that follow; "{0}" is its first group."""


def _rules(*rows: tuple[str, str, str, str]) -> tuple[Rule, ...]:
    names = {
        "THING": r"([\w'-]+(?: [\w'-]+){0,5}?)",
        "END": r"(?= *[.,;:!?\n]| (?:and|then|inside|within|in the|on the)\b| *$)",
    }
    return tuple((re.compile(pattern.format(**names)), *rest) for pattern, *rest in rows)  # type: ignore[misc]


FACTS = _rules(
    (r"-= *{THING} *=-", "player", "location", "{0}"),
    (r"you arrive at {THING}{END}", "player", "location", "{0}"),
    (r"you (?:take|pick up|get|grab) {THING}(?: from [\w' -]{{1,60}}?)?{END}",
     "{0}", "location", "inventory"),
    (r"you (?:put|place|move|insert) {THING} (?:in/on|into|onto|in|on|to) {THING}{END}",
     "{0}", "location", "{1}"),
    (r"you drop {THING}(?: on [\w' -]{{1,60}}?)?{END}", "{0}", "location", "floor"),
    (r"you open {THING}{END}", "{0}", "state", "open"),
    (r"you close {THING}{END}", "{0}", "state", "closed"),
    (r"you unlock {THING}(?: with [\w' -]{{1,60}}?)?{END}", "{0}", "state", "unlocked"),
    (r"you lock {THING}(?: with [\w' -]{{1,60}}?)?{END}", "{0}", "state", "locked"),
    (r"you eat {THING}{END}", "{0}", "state", "eaten"),
    (r"you (?:turn|switch) (on|off) {THING}{END}", "{1}", "state", "{0}"),
    (r"you heat {THING} (?:using|with)\b", "{0}", "condition", "hot"),
    (r"you cool {THING} (?:using|with)\b", "{0}", "condition", "cold"),
    (r"you clean {THING} (?:using|with)\b", "{0}", "condition", "clean"),
    (r"\bthe {THING} is (open|closed|locked)\b", "{0}", "state", "{1}"),
    (r"\bthis {THING} is (on|off)\b", "{0}", "state", "{1}"),
    (r"\bthis is a (hot|cold|clean) {THING}{END}", "{1}", "condition", "{0}"),
)  # fmt: skip
LISTS = _rules(
    (r"you are carrying:? ([^.]+)", "", "location", "inventory"),
    (r"\bon the {THING},? you (?:can )?see ([^.]+)", "", "location", "{0}"),
    (r"\bthe {THING} is open\. in it, you see ([^.]+)", "", "location", "{0}"),
)
"""Where several things are told of at once; the last group lists them."""
GOALS = _rules(
    (r"\b(?:take|pick up|lift|grab|get|find|retrieve|recover) (?!a trip|your){THING}"
     r"(?: (?:from|off) [\w' -]{{1,60}}?)?{END}", "{0}", "location", "inventory"),
    (r"\b(?:put|place|insert|move|rest|set) {THING} (?:in/on|inside of|inside|into|onto|in|on|to) "
     r"{THING}{END}", "{0}", "location", "{1}"),
    (r"\bopen {THING}{END}", "{0}", "state", "open"),
    (r"\b(?:close|shut) {THING}{END}", "{0}", "state", "closed"),
    (r"\bunlock {THING}(?: with [\w' -]{{1,60}}?)?{END}", "{0}", "state", "unlocked"),
    (r"\block {THING}(?: with [\w' -]{{1,60}}?)?{END}", "{0}", "state", "locked"),
    (r"\bthat {THING} is (open|closed|locked|unlocked)\b", "{0}", "state", "{1}"),
    (r"\bdrop {THING}(?: on [\w' -]{{1,60}}?)?{END}", "{0}", "location", "floor"),
    (r"\beat {THING}{END}", "{0}", "state", "eaten"),
    (r"\bheat {THING}{END}", "{0}", "condition", "hot"),
    (r"(?<!a )(?<!some )\bcool {THING}{END}", "{0}", "condition", "cold"),
    (r"(?<!a )(?<!some )\bclean {THING}{END}", "{0}", "condition", "clean"),
    (r"\b(?:put|place|move) (?:an? |some )?(hot|cold|clean) {THING} (?:in/on|in|on|to) ",
     "{1}", "condition", "{0}"),
    (r"\b(?:put|place|move) (?:an? |some )?cool {THING} (?:in/on|in|on|to) ",
     "{0}", "condition", "cold"),
    (r"\b(?:look at|examine) {THING} (?:under|with) ", "{0}", "location", "inventory"),
    (r"\b(?:look at|examine) [\w' -]{{1,60}}? (?:under|with) {THING}{END}", "{0}", "state", "on"),
)  # fmt: skip
_ARTICLE = re.compile(r"^(?:(?:the|an?|some|your|two|hot|cold|cool|clean)\s+)+")


class Rules:
    """Sentences as TextWorld and ALFWorld write them; what is put differently is not understood.

    Only what the world says is read, so that no agent can say itself into a state.
    """

    def goals(self, texts: Sequence[str]) -> list[Told]:
        return [(self._goal(text.lower()), SCORED) for text in texts]

    def updates(self, states: Sequence[State], texts: Sequence[str]) -> list[Told]:
        out: list[Told] = []
        for state, text in zip(states, texts, strict=True):
            text = text.lower() if state else _parts(text.lower())[1]
            out.append((_applied(state, [*_found(FACTS, text), *_listed(text)]), SCORED))
        return out

    def _goal(self, text: str) -> State:
        return _applied({}, _found(GOALS, _parts(text)[0]))


def _parts(text: str) -> tuple[str, str]:
    """The task in an episode's first text, and the place that it describes; all of it for both
    where they are not told apart."""
    place, marked, task = text.partition("task is to")
    if marked:
        return task, place
    task, marked, place = text.partition("-=")
    return (task, marked + place) if marked and task.strip() else (text, text)


Found = tuple[int, str, str, str]
"""Where it was said, an object, an attribute and a value."""


def _applied(state: State, found: Sequence[Found]) -> State:
    """A state with what was found, the last said last; "it" is what was spoken of before."""
    out, last = {name: dict(had) for name, had in state.items()}, ""
    for _, name, attribute, value in sorted(found, key=lambda one: one[0]):
        last = last if name in ("it", "them") else name
        if last:
            out.setdefault(last, {})[attribute] = value
    return out


def _found(rules: Sequence[Rule], text: str) -> list[Found]:
    return [
        (m.start(), _thing(name.format(*m.groups())), attribute, _thing(value.format(*m.groups())))
        for pattern, name, attribute, value in rules
        for m in pattern.finditer(text)
    ]


def _listed(text: str) -> Iterator[Found]:
    for pattern, _, attribute, value in LISTS:
        for m in pattern.finditer(text):
            for item in re.split(r",\s*(?:and\s+)?|\s+and\s+", m[m.lastindex or 0]):
                if (name := _thing(item)) not in ("", "nothing"):
                    yield m.start(), name, attribute, _thing(value.format(*m.groups()))


def _thing(text: str) -> str:
    plain = re.split(r" (?:inside|within|in|on) ", text.strip())[0]
    return _ARTICLE.sub("", plain) if plain not in ("hot", "cold", "clean") else plain


# --- by a model

MOST_OBJECTS, MOST_ATTRIBUTES, LONGEST_NAME = 64, 16, 120
STATE = """\
You keep the state of a world that is told in text, object by object. "before" is the state before,
"text" what the world says now. Give the whole state after it: keep what still holds, change what
"text" says has changed, and invent nothing."""
GOAL = """\
"text" is what a world says first: it holds a task. Give the state in which that task is done: the
objects that it names alone, each with the attributes that it has then."""
STATE_FORM = """\
Answer with one JSON object and nothing else: {"object": {"attribute": "value"}}. Names and values
are short, as "chest": {"state": "open", "location": "kitchen"}; what is carried has the location
"inventory"."""


class Asking:
    """A language model, asked once for the goal and then recurrently: with the state that it told
    before, and the newest text, as quoted data."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def goals(self, texts: Sequence[str]) -> list[Told]:
        return self._told([self._prompt(GOAL, {"text": cut(text)}) for text in texts])

    def updates(self, states: Sequence[State], texts: Sequence[str]) -> list[Told]:
        return self._told(
            [
                self._prompt(STATE, {"before": state, "text": cut(text)})
                for state, text in zip(states, texts, strict=True)
            ]
        )

    def _prompt(self, asked: str, record: dict[str, Any]) -> Prompt:
        values = {"type": "object", "additionalProperties": {"type": "string"}}
        schema = {"type": "object", "additionalProperties": values}
        return question(record, asked, STATE_FORM, schema, max_tokens=2048)

    def _told(self, prompts: list[Prompt]) -> list[Told]:
        if not prompts:
            return []
        told = ask_for(self.source, prompts, lambda text: read_state(strict(text)))
        return [(state, SCORED if state is not None else unheard(reply)) for state, reply in told]


def read_state(row: Any) -> State:
    """A state of plain names and values; raises `ValueError` for anything else."""
    if not isinstance(row, dict) or len(row) > MOST_OBJECTS:
        raise ValueError(f"give an object of at most {MOST_OBJECTS} objects")
    out: State = {}
    for name, had in row.items():
        if not isinstance(had, dict) or len(had) > MOST_ATTRIBUTES:
            raise ValueError("every object is to be an object of attributes")
        for key, value in had.items():
            if not isinstance(value, str) or max(map(len, (name, key, value))) > LONGEST_NAME:
                raise ValueError("names and values are to be short texts")
        out[name.lower()] = {key.lower(): value.lower() for key, value in had.items()}
    return out
