"""An answer is worth more if it cites the chain of documents that leads to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from embodied.errors import check_range
from embodied.reward_model import Needs
from embodied.types import ABSTAINED, SCORED, Array, Carry, Moment, Score, Trajectory

Rubric = dict[str, str]
"""A single hop: "entity" has "value", as "document" tells."""


class CitedEvidence:
    """Citation-aware rubric rewards (CaRR, in GRPO: C-GRPO), on an episode's last turn.

        R = (1 - w) + w share   of a right answer,   0 of a wrong one

    `share` is that of the question's single-hop rubrics that are satisfied (the answer cites the
    hop's document, and it was read) and linked: the value of each is the entity of the next, up to
    the answer, through satisfied rubrics alone. So a right answer that was guessed, or found by a
    shortcut, gets 1 - w. With `without_outcome` a wrong answer gets w share.

    We know the papers (CaRR; SLATE, which uses it) by their abstracts: that rubrics ask for cited
    documents and a whole chain to the answer, and are combined with the outcome. How they are
    combined is ours. They also ask that hidden entities be named, which we do not; in turn we ask
    that a cited document was read. Rubrics come from the world, not from a language model.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True
    needs = Needs(
        readouts=frozenset(
            {"success", "world.rubrics", "world.cited", "world.read", "world.answer"}
        ),
        privileged=frozenset(
            {"success", "world.rubrics", "world.cited", "world.read", "world.answer"}
        ),
    )
    value_range = (0.0, 1.0)

    def __init__(self, weight_rubrics: float = 0.5, without_outcome: bool = False) -> None:
        check_range("reward_model.cited_evidence", 0, 1, weight_rubrics=weight_rubrics)
        self.weight_rubrics, self.without_outcome = weight_rubrics, without_outcome

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        told = traj.readouts
        value = np.zeros(traj.shape, np.float32)
        status = np.full(traj.shape, SCORED, np.int8)
        over = (traj.terminated | traj.truncated) & traj.valid
        for t, n in np.argwhere(over):
            rubrics = read_rubrics(told["world.rubrics"][t, n])
            cited, seen = (read_titles(told[f"world.{name}"][t, n]) for name in ("cited", "read"))
            answer = _read(told["world.answer"][t, n])
            if rubrics is None or cited is None or seen is None or not isinstance(answer, str):
                status[t, n] = ABSTAINED
                continue
            met = [rubric for rubric in rubrics if is_satisfied(rubric, cited, seen)]
            share = len(linked(met, answer)) / max(len(rubrics), 1)
            value[t, n] = self._combined(bool(told["success"][t, n]), share)
        return carry, Score(value, status)

    def _combined(self, correct: bool, share: float) -> float:
        credit = self.weight_rubrics * share
        if correct:
            return 1.0 - self.weight_rubrics + credit
        return credit if self.without_outcome else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def is_satisfied(rubric: Rubric, cited: Collection[str], read: Collection[str]) -> bool:
    """Whether a hop's document is cited and was read."""
    return rubric["document"] in cited and rubric["document"] in read


def linked(rubrics: Sequence[Rubric], answer: str) -> list[Rubric]:
    """Those of some rubrics from whose value others of them lead to the answer."""
    targets, left, found = {answer}, list(rubrics), []
    while reaching := [rubric for rubric in left if rubric["value"] in targets]:
        found += reaching
        left = [rubric for rubric in left if rubric["value"] not in targets]
        targets = {rubric["entity"] for rubric in reaching}
    return found


def read_rubrics(said: str) -> list[Rubric] | None:
    """The rubrics in a JSON text; None where it holds no list of them."""
    given, keys = _read(said), ("entity", "value", "document")
    if not isinstance(given, list):
        return None
    for one in given:
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in keys):
            return None
    return given


def read_titles(said: str) -> set[str] | None:
    """The titles in a JSON text; None where it holds no list of texts."""
    given = _read(said)
    if not isinstance(given, list) or not all(isinstance(title, str) for title in given):
        return None
    return set(given)


def _read(said: str) -> Any:
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return None
