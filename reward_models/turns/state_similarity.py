"""How near a factored state is to a goal: StateFactory's reward, and how rewards compare."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embodied.language import embed

State = Mapping[str, Mapping[str, str]]
"""{object: {attribute: value}}"""
Embed = Callable[[Sequence[str]], np.ndarray]
_NUMBER = re.compile(r"\s*\b\d+\b")


def nearness(
    goal: State,
    state: State,
    matching: str = "max",
    reduce: str = "mean",
    embedding: Embed = embed,
) -> float:
    """From 0 to 1, of goal objects g and state objects s, each with attributes:

        mean_g max_s [ cos(id_g, id_s) * mean_a cos(value_g,a , value_s at the key nearest a) ]

    With `matching` "one_to_one" an object of the state serves one of the goal alone, so that the
    sum is largest; with `reduce` "min" the goal object that is furthest off counts in place of the
    mean. A goal object without attributes is to be there. 0 where the goal is empty.
    """
    if not goal or not state:
        return 0.0
    table = _cosines(list(goal), list(state), embedding)
    wanted, had = list(goal.values()), list(state.values())
    for g, s in zip(*np.nonzero(table), strict=True):
        table[g, s] *= _agreement(wanted[g], had[s], embedding)
    if matching == "one_to_one":
        best = np.zeros(len(table))
        rows, columns = assigned(table)
        best[rows] = table[rows, columns]
    else:
        best = table.max(axis=1)
    return float(np.clip(best.min() if reduce == "min" else best.mean(), 0.0, 1.0))


def _agreement(wanted: Mapping[str, str], had: Mapping[str, str], embedding: Embed) -> float:
    if not wanted:
        return 1.0
    if not had:
        return 0.0
    keys = _cosines(list(wanted), list(had), embedding).argmax(axis=1)
    values = list(had.values())
    pairs = [(value, values[k]) for value, k in zip(wanted.values(), keys, strict=True)]
    return float(np.mean([_cosines([one], [other], embedding)[0, 0] for one, other in pairs]))


def _cosines(wanted: Sequence[str], had: Sequence[str], embedding: Embed) -> np.ndarray:
    """Cosines `(g, s)`, none below 0. Where a goal names no number, "mug" say, "mug 2" will do."""
    plain = [_NUMBER.sub("", text) or text for text in had]
    exact, loose = embedding(list(had)), embedding(plain)
    rows = [
        (exact if _NUMBER.search(text) else loose) @ vector
        for text, vector in zip(wanted, embedding(list(wanted)), strict=True)
    ]
    return np.maximum(np.stack(rows), 0.0)


def assigned(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of `gain` `(R, C)`, each used once, min(R, C) of them, whose sum is largest.

    The Hungarian method with potentials (Kuhn 1955), in O(R^2 C).
    """
    if gain.shape[0] > gain.shape[1]:
        columns, rows = assigned(gain.T)
        return rows, columns
    cost = -np.asarray(gain, float)
    count, width = cost.shape
    u, v = np.zeros(count + 1), np.zeros(width + 1)
    owner = np.full(width + 1, -1)  # the row of each column; the last column is where one starts
    for row in range(count):
        owner[width], column = row, width
        least, before = np.full(width, np.inf), np.full(width, width)
        used = np.zeros(width + 1, bool)
        while owner[column] >= 0:
            used[column] = True
            slack = cost[owner[column]] - u[owner[column]] - v[:width]
            free = ~used[:width]
            better = free & (slack < least)
            least[better], before[better] = slack[better], column
            following = int(np.argmin(np.where(free, least, np.inf)))
            step = least[following]
            u[owner[used]] += step
            v[used] -= step
            least[free] -= step
            column = following
        while column != width:  # hand the columns on, back to where it started
            owner[column] = owner[before[column]]
            column = int(before[column])
        owner[width] = -1
    columns = np.flatnonzero(owner[:width] >= 0)
    return owner[columns], columns


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """sqrt((1 - rho) / 2) of two sequences of rewards with Pearson's rho: 0 alike, 1 opposed.

    One that is constant goes with nothing: its rho is 0.
    """
    a, b = (np.asarray(values, float) - np.mean(values) for values in (one, other))
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    rho = float(a @ b) / scale if scale > 1e-12 else 0.0
    return float(np.sqrt((1.0 - np.clip(rho, -1.0, 1.0)) / 2.0))
