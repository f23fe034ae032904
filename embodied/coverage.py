"""Which tasks to demonstrate, where only a few can be: those whose texts cover most of the words.

Demonstrations drawn at random hardly show what is rare (of 60 of TextWorld's four have an
"insert"), and what was never shown is never tried. What a task is about is often in its text, which
costs nothing to read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from embodied.text_env import TextEnv

WORD = re.compile(r"[^\W\d_]+")
COMMON = 0.05
"""The share of tasks that a word is in, from which on it counts: a name in few of them is only
theirs."""


def openings(env: TextEnv, seeds: Sequence[int]) -> list[str]:
    """The first text of the episode of each seed."""
    out: list[str] = []
    for start in range(0, len(seeds), env.num_worlds):
        mine = np.array(seeds[start : start + env.num_worlds])
        padded = np.concatenate([mine, np.full(env.num_worlds - len(mine), mine[0])])
        out += env.reset(seed=padded)["text"][: len(mine)].tolist()
    return out


def covering(texts: Sequence[str], count: int) -> list[int]:
    """The places in `texts` of `count` of them that show words as often, and as evenly, as can be.

    They are the greedy maximum of the sum over words, of those in `COMMON` of the texts or more, of
    1 + 1/2 + ... + 1/n, with n the chosen texts that hold the word. That sum is submodular: no
    other choice is better by more than e / (e - 1) (Nemhauser et al. 1978). Ties go to the first.
    """
    held = [set(WORD.findall(text.lower())) for text in texts]
    often = Counter(word for words in held for word in words)
    counts = [{w for w in words if often[w] >= COMMON * len(texts)} for words in held]
    shown: Counter[str] = Counter()
    chosen: list[int] = []
    for _ in range(min(count, len(texts))):
        left = [place for place in range(len(texts)) if place not in chosen]
        best = max(left, key=lambda place: sum(1.0 / (1 + shown[w]) for w in sorted(counts[place])))
        chosen.append(best)
        shown.update(counts[best])
    return chosen
