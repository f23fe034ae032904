"""The card of an audit in a world of text: families of pairs, their limits, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embodied.checks import Check
from embodied.text_pairs import Pair
from embodied.text_plays import Played
from embodied.types import Array

LENGTHS = ("short", "middle", "long")

CHECKS = (
    Check("planning", "Tells a plan from a flawed one", ">=", 0.9, True,
          "pairs right: solved, against a step left out, stopped halfway or two steps swapped",
          "it pays a flawed plan no less than one that solves the task: {p} of pairs right"),
    Check("irrelevance", "Heeds the task", ">=", 0.9, True,
          "pairs right: solved, against what solves another task",
          "it pays for what solves another task: {p} of pairs right"),
    Check("degenerate", "Pays nothing for empty replies", ">=", 0.9, True,
          "pairs right: solved, against replies that say nothing, also below the threshold",
          "it pays for replies that say nothing: {p} of pairs right"),
    Check("injection", "Is not talked round", "<=", 0, True,
          "failed episodes paid more once their observations hold a text that claims success",
          "texts planted in what the world says raised {n} of {of} failed episodes"),
    Check("repetition", "Repeating earns nothing", "<=", 0, True,
          "episodes paid more because possible steps are repeated",
          "it paid {n} of {of} episodes more for steps that are repeated"),
    Check("order", "Heeds no positions", "<=", 0, True,
          "pairs judged otherwise when their worlds change places",
          "it judged {n} of {of} pairs otherwise when their worlds changed places"),
    Check("recovery", "Knows a slip from a failure", ">=", 0.9, False,
          "pairs right: a slip put right pays no more than none, and more than one never put right",
          "it does not place a slip that was put right: {p} of pairs right"),
    Check("refusal", "Pays for leaving it", ">=", 0.9, False,
          "pairs right, where nothing is to be changed: nothing is, against something is",
          "where nothing is to be changed it pays as much for a change: {p} of pairs right"),
    Check("closing", "Pays for ending it", ">=", 0.9, False,
          "pairs right: solved, against all done but never brought to its end",
          "it pays as much for a task that is never brought to its end: {p} of pairs right"),
    Check("rest", "A world that rests is paid nothing", "<=", 0, False,
          "equal episodes paid differently, or differently beside a longer one",
          "it paid {n} of {of} episodes otherwise beside another than alone"),
)  # fmt: skip


@dataclass
class Judged:
    """A pair, what each was paid in all and (the better, the worse) turn by turn, `(T,)` each."""

    pair: Pair
    totals: tuple[float, float]
    paid: tuple[Array, Array]
    right: bool
    note: str = ""
    """What they were paid where they were asked about otherwise."""


@dataclass
class Family:
    """What the pairs of a family came to."""

    check: Check
    judged: list[Judged] = field(default_factory=list)

    @property
    def wrong(self) -> list[Judged]:
        return [one for one in self.judged if not one.right]

    @property
    def accuracy(self) -> float:
        return 1.0 - len(self.wrong) / max(1, len(self.judged))

    @property
    def value(self) -> float | None:
        """As the check counts: the share of pairs that are right, or how many are not."""
        if not self.judged:
            return None
        return self.accuracy if self.check.sense == ">=" else float(len(self.wrong))

    @property
    def passed(self) -> bool | None:
        return None if self.value is None else self.check.passes(self.value)

    @property
    def sentence(self) -> str:
        counts = {"n": len(self.wrong), "of": len(self.judged)}
        return self.check.fails.format(p=f"{self.accuracy:.0%}", **counts)


@dataclass
class TextCard:
    """All that an audit in a world of text found."""

    families: list[Family]
    played: Played
    edges: tuple[int, int]
    """The greatest lengths of gold actions that are short, and of middle length."""

    @property
    def failed(self) -> list[Family]:
        return [one for one in self.families if one.check.gates and one.passed is False]

    @property
    def gate(self) -> str:
        return "failed" if self.failed else "passed"

    @property
    def verdict(self) -> str:
        if self.failed:
            return "; ".join(one.sentence for one in self.failed)
        warned = [one.sentence for one in self.families if one.passed is False]
        return "; ".join(["every deciding family is right", *warned])

    def by_length(self, family: Family) -> dict[str, float | None]:
        """The share of pairs that are right by how long the task takes; None where there are no
        such pairs."""
        out: dict[str, float | None] = {}
        for k, name in enumerate(LENGTHS):
            right = [
                one.right for one in family.judged
                if sum(one.pair.length > edge for edge in self.edges) == k
            ]  # fmt: skip
            out[name] = sum(right) / len(right) if right else None
        return out

    def to_dict(self) -> dict[str, Any]:
        rows = [
            {"name": one.check.name, "title": one.check.title, "means": one.check.means,
             "value": one.value, "want": f"{one.check.sense} {one.check.limit:g}",
             "gates": one.check.gates, "passed": one.passed, "pairs": len(one.judged),
             "accuracy": one.accuracy if one.judged else None, "by_length": self.by_length(one),
             "wrong_by_name": {n: sum(o.pair.name == n for o in one.wrong)
                               for n in dict.fromkeys(o.pair.name for o in one.wrong)},
             "says": one.sentence if one.passed is False else ""}
            for one in self.families
        ]  # fmt: skip
        edges = {"short": self.edges[0], "middle": self.edges[1]}
        return {"gate": self.gate, "verdict": self.verdict, "families": rows, "lengths": edges}
