"""Talks in which nothing is meant: how a small model that is made from scratch hears a world.

A few demonstrations show how commands are worded; with other things in them that are in sight, they
mostly fail, and the world says so. Nobody acts well in such talks, nothing is known that an agent
does not see, and they cost no demonstrations; but they hold the world's language, and that what is
named in a command is something that was named before.

What a world names is told with an article in most ("a key", "the chest"). Where it isn't, as in
"search: Dahlen Instruments", `articles=False` takes whatever the world told for a name, save for
the first word of a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from embodied.conversations import Conversation
from embodied.errors import UserError
from embodied.text_space import texts
from embodied.types import ActionSpec, Carry, Obs

THING = re.compile(r"\b(?:an?|the|some) ((?:[\w'-]+ ){0,2}[\w'-]+)")
NAMED = re.compile(
    r"\b(?:[Aa]n?|[Tt]he) ([\w'-]+(?: [\w'-]+)?)"
    r"(?=[.,;!?]|\s(?:and|contains|from|in|inside|is|on|to|with)\b)"
)
WORD = re.compile(r"([\w'-]+)|([^\w\s'-]|\n)")
NUMBER = re.compile(r" \d+$")
MOST_WORDS = 3
BETWEEN = frozenset(
    "a an and at by for from in inside into is it of off on onto out over some that the then to "
    "under up with".split()
)
"""Words that are no part of a name."""


def wordings(told: Sequence[Conversation], articles: bool = True) -> list[str]:
    """How commands are worded: those of `told`, a "{}" for whatever was named before.

    "take old key from chest", said after the world had named "an old key" and "the chest", is
    worded "take {} from {}".
    """
    found: dict[str, int] = {}
    for one in told:
        heard = ""
        for seen, said in zip(one.seen, one.said, strict=False):
            heard = f"{heard}\n{seen}"
            wording = re.sub(r"\{\}( \{\})+", "{}", " ".join(_slots(said.split(), heard, articles)))
            found[wording] = found.get(wording, 0) + 1
    return sorted(found, key=lambda wording: (-found[wording], wording))


def names(one: Conversation, articles: bool = True) -> list[str]:
    """What was named in the commands of a conversation after the world had named it: in those that
    could be done, where that is known."""
    found: dict[str, None] = {}
    heard = ""
    for k, (seen, said) in enumerate(zip(one.seen, one.said, strict=False)):
        heard = f"{heard}\n{seen}"
        words = said.split() if not one.valid or one.valid[k] else []
        for size, part in _parts(words, heard, articles):
            if size:
                found[" ".join(part)] = None
    return list(found)


def things(told: Sequence[Conversation]) -> list[str]:
    """What worlds name in two or more of these talks, whether or not anybody said it."""
    count: dict[str, int] = {}
    for one in told:
        for name in dict.fromkeys(NAMED.findall("\n".join(one.seen))):
            if BETWEEN.isdisjoint(name.split()):
                count[name] = count.get(name, 0) + 1
    return sorted(name for name, talks in count.items() if talks > 1)


def renamed(
    one: Conversation, known: Sequence[str], rng: np.random.Generator, articles: bool = True
) -> Conversation:
    """The conversation with other names for what is named in it, each the same throughout.

    So a model cannot know by heart what to say: it has to take the name from where it is told.
    Of "mug 2" the kind gets another name, wherever it is told of, and the number stays.
    """
    own = sorted(_kinds(names(one, articles)), key=len, reverse=True)
    taken = [kind for kind in _kinds(known) if kind not in own]
    if not own or len(taken) < len(own):
        return one
    others = rng.choice(len(taken), len(own), replace=False)
    swap = {name: taken[k] for name, k in zip(own, others, strict=True)}
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, own)) + r")\b")

    def told(text: str) -> str:
        return pattern.sub(lambda match: swap[match[0]], text)

    return replace(one, seen=[told(t) for t in one.seen], said=[told(t) for t in one.said])


def _kinds(named: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(NUMBER.sub("", name) for name in named))


def _slots(words: list[str], heard: str, articles: bool) -> list[str]:
    return ["{}" if size else part[0] for size, part in _parts(words, heard, articles)]


def _parts(words: list[str], heard: str, articles: bool) -> Iterator[tuple[int, list[str]]]:
    """The parts of a command, a name or a word each: how many words the name has, and they."""
    done = 0
    while done < len(words):
        size = _named_words(words[done:], heard, articles) if articles or done else 0
        yield size, words[done : done + max(1, size)]
        done += max(1, size)


def _named_words(words: list[str], heard: str, articles: bool) -> int:
    """How many of the first words are something's name; 0 where they are none."""
    end = next((k for k, word in enumerate(words) if word in BETWEEN), len(words))
    sizes = range(min(MOST_WORDS, end), 0, -1)
    return next((size for size in sizes if _named(words[:size], heard, articles)), 0)


def _named(words: list[str], heard: str, articles: bool) -> bool:
    thing = re.escape(" ".join(words))
    before = r"\b(?:an?|the|some|your|\w+'s) (?:[\w'-]+ )?" if articles else r"(?<!\w)"
    return re.search(rf"{before}{thing}(?!\w)", heard) is not None


class Babbler:
    """Says a wording at random, with things in its places that the world has named in the episode.

    Raises `UserError` for no wordings.
    """

    action_spec: ActionSpec | None = None
    speaks = True

    def __init__(self, wordings: Sequence[str], seed: int = 0, articles: bool = True) -> None:
        if not wordings:
            raise UserError("babble: there is no command to word others by")
        self.wordings, self.rng = list(wordings), np.random.default_rng(seed)
        self.articles = articles
        self._things: dict[int, list[str]] = {}

    def carry(self, num_worlds: int) -> Carry:
        return {"world": np.arange(num_worlds), "turn": np.zeros(num_worlds, np.int64)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        said = []
        pairs = zip(carry["world"].tolist(), carry["turn"].tolist(), strict=True)
        for (world, turn), text in zip(pairs, obs["text"].tolist(), strict=True):
            things = self._things.setdefault(world, []) if turn else []
            told = THING.findall(text) if self.articles else _phrases(text)
            self._things[world] = things = [*things, *told]
            said.append(self._command(things))
        return {**carry, "turn": carry["turn"] + 1}, texts(said)

    def _command(self, things: list[str]) -> str:
        wording = self.wordings[self.rng.integers(len(self.wordings))]
        while "{}" in wording:
            thing = things[self.rng.integers(len(things))].split() if things else ["it"]
            size = self.rng.integers(1, len(thing) + 1)  # its name may be shorter than what follows
            first = 0 if self.articles else self.rng.integers(len(thing) - size + 1)
            wording = wording.replace("{}", " ".join(thing[first : first + size]), 1)
        return wording


def _phrases(text: str) -> list[str]:
    """What stands between marks and words that are no part of a name."""
    found: list[list[str]] = [[]]
    for word, mark in WORD.findall(text):
        if mark or word.lower() in BETWEEN:
            found.append([])
        else:
            found[-1].append(word)
    return [" ".join(words) for words in found if words]
