"""Whether reward code is fit to be trained on, found out before a step of training.

In this order: is there code, does it load, can it be traced, does it read only what there is, do
its units fit, is it finite and bounded, pure, anything but constant, and does it pay the expert
more than chance and idling. What is refused has a name, and a sentence for its author.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.abstraction import Abstraction
from embodied.errors import UserError
from embodied.evidence import IDLE, Evidence
from embodied.reward_folder import RewardFile
from embodied.reward_graph import RewardGraph
from embodied.sandbox import CodeFault, Sandbox
from embodied.units import unit_faults

BOUND = 100.0
"""No step may pay more."""
REFUSALS = {
    "no_code": "there is no code in the reply",
    "too_long": "more code than is read",
    "syntax": "it is not Python",
    "import": "it imports what is not there",
    "name": "it reads what there is not",
    "signature": "it is no reward(world, action, dt) that returns a dict of terms",
    "untraceable": "it does what no graph can hold",
    "error": "it raises",
    "deadline": "it does not come to an end",
    "killed": "it tries what is forbidden, or crashes",
    "forged": "it meddles with its sandbox",
    "units": "its units do not fit",
    "not_finite": "it pays NaN or infinity",
    "too_large": "it pays too much",
    "impure": "it follows from more than the state of one world",
    "constant": "it pays the same for everything",
    "no_better_than_chance": "it pays the expert no more than chance or idling",
}
"""Why code is refused."""
DEAD = 1e-6
"""A term whose standard deviation is smaller does nothing."""


@dataclass(frozen=True)
class Checked:
    """What became of some code: `refused` is "" or one of `REFUSALS`, `why` tells its author.

    `terms` (mean, least, most, deviation) over all evidence by term, `returns` the mean reward a
    step by who played, `order` the share of pairs of a success and a failure that it puts in
    order (NaN where there are not both); `notes` are no reason to refuse it.
    """

    source: str
    refused: str = ""
    why: str = ""
    graph: Mapping[str, Any] | None = None
    terms: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    returns: Mapping[str, float] = field(default_factory=dict)
    order: float = float("nan")
    notes: tuple[str, ...] = ()

    def file(self, about: Abstraction, provenance: Mapping[str, Any]) -> RewardFile:
        """As it is saved."""
        reads = {*self.graph["inputs"], "action"} if self.graph else {*about.inputs}
        inputs = {name: shape for name, shape in about.inputs.items() if name in reads}
        unreal = tuple(name for name in about.unreal if name in inputs)
        return RewardFile(self.source, about.env, about.dt, inputs, unreal, self.graph, provenance)


def code_of(reply: str) -> str:
    """The code of a reply: its last block with a reward in it, or all of it where it has none.

    "" where there is nothing that looks like a reward.
    """
    blocks = re.findall(r"```[a-zA-Z0-9_+-]*[ \t]*\n(.*?)```", reply + "\n```", re.DOTALL)
    blocks = [block for block in blocks if "def reward" in block] or [reply]
    code = blocks[-1].strip("\n") + "\n"
    return code if "def reward" in code else ""


class Checker:
    """Checks code for one env, on one collection of `evidence`, in one sandbox.

    With `traced=False` code that no graph can hold passes too; it can only be run in a sandbox. Of
    `factors` no order is asked, and their sum means nothing.
    """

    def __init__(
        self,
        about: Abstraction,
        evidence: Evidence,
        traced: bool = True,
        deadline_s: float = 2.0,
        factors: bool = False,
    ) -> None:
        self.about, self.evidence, self.traced = about, evidence, traced
        self.factors = factors
        self.rows = evidence.flat
        count = len(self.rows["action"])
        self.sandbox = Sandbox(about.inputs, count, about.dt, deadline_s, bound=1e30)

    def close(self) -> None:
        self.sandbox.close()

    def check(self, reply: str) -> Checked:
        """All checks on the code in a reply."""
        source = code_of(reply)
        if not source:
            return Checked(
                reply, "no_code", "put the function reward(world, action, dt) in a block"
            )
        try:
            return self._check(source)
        except CodeFault as fault:
            return Checked(source, *_named(fault))

    def _check(self, source: str) -> Checked:
        self.sandbox.load(source)
        graph, notes = None, []
        try:
            graph = self.sandbox.trace()
            RewardGraph(graph)  # checked here, whatever the sandbox says
            graph = _used(graph)
        except (CodeFault, UserError) as fault:
            said = (
                fault if isinstance(fault, CodeFault) else CodeFault("error", f"UserError: {fault}")
            )
            name, why = _named(said)
            if self.traced or name != "untraceable":
                return Checked(source, name, why)
            graph = None
            notes.append(f"only a sandbox can run it: {why}")
        if graph is not None and (wrong := unit_faults(graph, self.about.units)):
            return Checked(source, "units", "; ".join(wrong[:3]), graph)
        terms = self.sandbox(self.rows)
        order = np.random.default_rng(0).permutation(len(self.rows["action"]))
        self.sandbox.check_purity(self.rows, order)
        return self._judged(source, graph, terms, notes)

    def _judged(
        self, source: str, graph: Any, terms: Mapping[str, np.ndarray], notes: list[str]
    ) -> Checked:
        """What the terms are worth on the evidence."""
        total = np.stack([*terms.values()]).sum(0, dtype=np.float64)
        told = {name: _spread(value) for name, value in terms.items()}
        mean = self.evidence.returns(total)
        sources = np.array(self.evidence.sources)
        returns = {s: float(mean[sources == s].mean()) for s in dict.fromkeys(sources.tolist())}
        done = self.evidence.success
        won = mean[done][:, None] - mean[~done][None]
        ranked = float(((won > 0) + 0.5 * (won == 0)).mean()) if won.size else float("nan")
        notes = [*notes, *_notes(told)]
        found = Checked(source, "", "", graph, told, returns, ranked, tuple(notes))
        refused, why = self._refusal(total, returns)
        return found if not refused else Checked(**{**vars(found), "refused": refused, "why": why})

    def _refusal(self, total: np.ndarray, returns: Mapping[str, float]) -> tuple[str, str]:
        if np.abs(total).max() > BOUND:
            return "too_large", f"a step pays {np.abs(total).max():.3g}: at most {BOUND:g}"
        if total.std() < DEAD:
            return "constant", f"every step of every episode pays {total.mean():.3g}"
        if "expert" in returns and not self.factors:
            chance = max(returns[IDLE], returns["random"])
            if returns["expert"] <= chance:
                return "no_better_than_chance", (
                    f"a step of the expert pays {returns['expert']:.3g}, "
                    f"one of idling {returns[IDLE]:.3g}, one of chance {returns['random']:.3g}"
                )
        return "", ""


def _used(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The graph without inputs that it does not read."""
    given = [argument for _, arguments, _ in graph["nodes"] for argument in arguments]
    read = {argument["input"] for argument in given if isinstance(argument, dict)
            and "input" in argument}  # fmt: skip
    inputs = {name: shape for name, shape in graph["inputs"].items() if name in read}
    return {**graph, "inputs": inputs}


def _spread(x: np.ndarray) -> tuple[float, float, float, float]:
    return float(x.mean()), float(x.min()), float(x.max()), float(x.std())


def _notes(terms: Mapping[str, tuple[float, float, float, float]]) -> list[str]:
    """What an author may want to know of terms that are not refused."""
    dead = [name for name, told in terms.items() if told[3] < DEAD]
    out = [f"{name} never changes: it is {terms[name][0]:.3g} everywhere" for name in dead]
    spread = {name: told[3] for name, told in terms.items()}
    most = max(spread, key=lambda name: spread[name])
    rest = sum(v for name, v in spread.items() if name != most)
    if len(terms) - len(dead) > 1 and spread[most] > 20.0 * rest:
        out.append(f"{most} outweighs all the others together")
    return out


def _named(fault: CodeFault) -> tuple[str, str]:
    """The refusal that a fault of the sandbox comes to, and the sentence."""
    if fault.name != "error":
        return fault.name, fault.text
    kinds = {
        "syntax": ("SyntaxError", "IndentationError", "TabError"),
        "import": ("ImportError", "ModuleNotFoundError"),
        "name": ("AttributeError", "NameError"),
        "untraceable": ("TraceError", "UserError"),
    }
    text = fault.text
    if any(said in text for said in SIGNATURE):
        return "signature", text
    kind = re.sub(r"^line \d+: ", "", text).partition(":")[0]
    for name, errors in kinds.items():
        if kind in errors:
            return name, text
    return "error", text


SIGNATURE = ("define reward(world, action, dt)", "return a dict of named terms", "reward() ",
             "a term's name is a short word", "not one number a world", ", not of numbers",
             "terms: at most", "does not follow from any readout", "is true or false, not a number",
             "not one number a world (N,)")  # fmt: skip
"""What the sandbox says of a function that is no reward."""
