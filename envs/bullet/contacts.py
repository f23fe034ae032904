"""Who touches whom in Bullet, and how roughly, so that contacts rub as MuJoCo's do.

MuJoCo takes the larger coefficient of two geoms, Bullet the product of those of two links. What
Bullet's links get is the least-squares solution, in logarithms, of "the product is MuJoCo's
friction" over all pairs that can touch, weighted by how much they matter: what is grasped at the
fingertips, then what lies on something, then the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from .forms import Form

GRASP, REST, OTHER = 100.0, 10.0, 1.0
LEAST = 1e-3


class Contacts:
    """The links of `forms`, the arm's first, that touch anything.

    Of each of `places` (a form, and a limb of it), `groups` and `masks` are its collision filter,
    `links(friction)` its coefficient and `spins` its torsional one; `apart` are pairs of them that
    never touch, though their filters would let them, `grasps` those of a fingertip and an object.
    """

    def __init__(self, model: Any, forms: Sequence[Form]) -> None:
        self.places = [
            (f, i) for f, form in enumerate(forms) for i, geoms in enumerate(form.geoms) if geoms
        ]
        self._geoms = [list(forms[f].geoms[i]) for f, i in self.places]
        self.groups = [int(np.bitwise_or.reduce(model.geom_contype[g])) for g in self._geoms]
        self.masks = [int(np.bitwise_or.reduce(model.geom_conaffinity[g])) for g in self._geoms]
        self._twists = [bool((model.geom_condim[g] > 3).any()) for g in self._geoms]
        bodies = [forms[f].bodies[i] for f, i in self.places]
        kinds = [_kind(model, forms[f], f == 0, i) for f, i in self.places]
        excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in model.exclude_signature}
        self.apart: list[tuple[int, int]] = []
        self.pairs: list[tuple[int, int]] = []
        self.grasps: list[tuple[int, int]] = []
        weights = []
        for i, j in combinations(range(len(self.places)), 2):
            touch = (self.groups[i] & self.masks[j]) | (self.groups[j] & self.masks[i])
            if not touch or self.places[i][0] == self.places[j][0]:
                continue
            still = kinds[i] == kinds[j] == "fixed"
            if still or excluded & {(bodies[i], bodies[j]), (bodies[j], bodies[i])}:
                self.apart.append((i, j))
                continue
            self.pairs.append((i, j))
            weights.append(_weight({kinds[i], kinds[j]}))
            if weights[-1] == GRASP:
                self.grasps.append((i, j))
        rows = np.zeros((len(self.pairs), len(self.places)))
        for row, pair in zip(rows, self.pairs, strict=True):
            row[list(pair)] = 1.0
        scale = np.array(weights)
        self._solve = np.linalg.pinv(rows * scale[:, None]) * scale
        self._ends = np.array(self.pairs, int).reshape(-1, 2)

    def wanted(self, friction: np.ndarray) -> np.ndarray:
        """MuJoCo's coefficient of each of `pairs`, from that of its geoms `(G, 3)`."""
        own = np.array([friction[geoms, 0].max() for geoms in self._geoms])
        return np.maximum(own[self._ends[:, 0]], own[self._ends[:, 1]])

    def links(self, friction: np.ndarray) -> np.ndarray:
        return np.exp(self._solve @ np.log(np.maximum(self.wanted(friction), LEAST)))

    def spins(self, friction: np.ndarray, links: np.ndarray) -> list[float]:
        """Torsional coefficients (m): Bullet multiplies them with the other side's of `links`."""
        out = []
        for k, (geoms, twists) in enumerate(zip(self._geoms, self._twists, strict=True)):
            others = [links[i + j - k] for i, j in self.grasps if k in (i, j)]
            rough = float(np.median(others)) if others else 1.0
            out.append(float(friction[geoms, 1].max()) / rough if twists else 0.0)
        return out


def _kind(model: Any, form: Form, arm: bool, i: int) -> str:
    """What a limb is: a fingertip, another part of the arm, an object that moves, or fixed."""
    if arm and i:
        return "arm" if form.bodies[i] in model.body_parentid else "tip"
    moves = not arm and (
        form.tree.free or any(form.tree.limbs[k].joint >= 0 for k in _line(form, i))
    )
    return "object" if moves else "fixed"


def _line(form: Form, link: int) -> list[int]:
    """A limb and those it hangs on."""
    line = []
    while link >= 0:
        line.append(link)
        link = form.tree.limbs[link].parent
    return line


def _weight(kinds: set[str]) -> float:
    if kinds == {"tip", "object"}:
        return GRASP
    return REST if "object" in kinds and "arm" not in kinds else OTHER
