"""What a policy does, in words: how near things come to one another, and how far they get.

Made from what reward code may read, and from true success, without a model of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from embodied.abstraction import Abstraction
from embodied.evidence import Evidence

MOST_LINES = 14


def failures(evidence: Evidence, about: Abstraction) -> str:
    """A few lines on the episodes that failed, beside those that did not where there are both."""
    failed = ~evidence.success
    if not failed.any():
        return f"All {len(failed)} episodes succeed."
    groups = [("failed", failed)]
    if (~failed).any():
        groups.append(("succeeded", ~failed))
    lines = [f"{failed.sum()} of {len(failed)} episodes fail. Medians over episodes:"]
    rows = [*_gaps(evidence, about, groups), *_courses(evidence, about, groups)]
    return "\n".join(lines + rows[:MOST_LINES])


Groups = list[tuple[str, np.ndarray]]


def _gaps(evidence: Evidence, about: Abstraction, groups: Groups) -> Iterator[str]:
    """How near two points come, and where they end."""
    points = [n for n, s in about.shapes.items() if n.endswith("position") and len(s) == 1]
    for a, b in combinations(points, 2):
        if about.shapes[a] != about.shapes[b]:
            continue
        gap = np.linalg.norm(evidence.rows[a] - evidence.rows[b], axis=-1)
        said = []
        for name, group in groups:
            nearest, last = _over(gap, evidence.played, group)[1:]
            said.append(f"{name} {nearest:.3f} at the nearest, {last:.3f} at the end")
        yield f"- from {a} to {b}, in m: {'; '.join(said)}"


def _courses(evidence: Evidence, about: Abstraction, groups: Groups) -> Iterator[str]:
    """Where numbers begin, their extremes, and where they end."""
    for quantity in about.quantities:
        shape, value = about.shapes[quantity.name], evidence.rows[quantity.name]
        if shape == ():
            parts = [(quantity.name, value)]
        elif quantity.name.endswith(("velocity", "up", "direction")) and len(shape) == 1:
            parts = [(f"{quantity.name}[{k}]", value[..., k]) for k in range(shape[0])]
        elif quantity.name.endswith("position") and shape == (3,):
            parts = [(f"{quantity.name}[2]", value[..., 2])]
        else:
            continue
        for name, course in parts:
            said = []
            for label, group in groups:
                first, low, last = _over(course, evidence.played, group)
                high = -_over(-course, evidence.played, group)[1]
                said.append(f"{label} {first:.3g}, from {low:.3g} to {high:.3g}, {last:.3g}")
            unit = "" if quantity.unit == "1" else f", in {quantity.unit}"
            yield f"- {name}{unit} (at first, extremes, at the end): {'; '.join(said)}"


def _over(value: np.ndarray, played: np.ndarray, group: np.ndarray) -> tuple[float, float, float]:
    """Medians over a group's episodes of the first, the least and the last of `(K, T)`."""
    lowest = np.where(played, value, np.inf).min(1)
    ends = np.maximum(played.sum(1) - 1, 0)
    last = value[np.arange(len(value)), ends]
    return tuple(float(np.median(part[group])) for part in (value[:, 0], lowest, last))  # type: ignore[return-value]
