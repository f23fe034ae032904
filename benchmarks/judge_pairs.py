"""How a small judge of pairs compares what was done with what was not, in both orders.

The judge asks as WebArbiter does: principles, evidence for each side, a comparison, a verdict. The
model is one from scratch per world, seed and way of asking, trained on pairs of 300 tasks, and is
asked about 50 that it never saw: the episode that solves a task against one that fails in an
ordinary way, and against failures that end with a trick (`benchmarks/judge.py`).

    python -m benchmarks.judge_pairs [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from embodied.reward_models.turns.judge import Judge

from benchmarks import judge_plays
from benchmarks.grid import only, report, run_grid
from benchmarks.judge_model import (
    LEARNED,
    Draw,
    answered,
    begun,
    last_sentence,
    save,
    train,
    written,
)
from benchmarks.judge_plays import Case, ordinary, tricked
from embodied.endpoint import ask_for
from embodied.judge_prompt import choice_prompt, read_choice
from embodied.types import SCORED

SIZE = {"width": 64, "layers": 2, "heads": 4, "vocabulary": 1000}
TRAINING: dict[str, Any] = {
    "tasks": 300, "unseen": 50, "tricked": 4, "steps": 300, "last_steps": 100, "batch": 8,
    "lr": 2e-3,
}  # fmt: skip
DEADLINE_S = {"each": 3600.0}
"""For the pairs that are judged together."""
ASKED = ("plain", "hardened")
PRINCIPLES = ("What the task asks for holds at the end.", "The world says so.")
FIGURES = ("right", "wrong", "one_order", "agree", "tricks_beaten", "tricks_won")
Pair = tuple[Case, Case]
"""What was done, and what was not."""


def cells() -> list[dict[str, Any]]:
    return [{"world": world, "asked": asked} for world in judge_plays.WORLDS for asked in ASKED]


def pairs(cases: Sequence[Case]) -> list[Pair]:
    """What solves a task, against each failure at it."""
    done = {case.task: case for case in cases if case.done}
    return [(done[case.task], case) for case in cases if not case.done and case.task in done]


def answer(a: Case, b: Case) -> str:
    """What is right to say of two, of which one was done."""
    sides = {
        name: {"evidence": last_sentence(one.episode.seen[-1]), "met": _met(one)}
        for name, one in (("a", a), ("b", b))
    }
    better = "A" if a.done else "B"
    row = {"principles": PRINCIPLES, **sides, "comparison": f"{better} did it.", "verdict": better}
    return json.dumps(row, ensure_ascii=False)


def _met(case: Case) -> str:
    return "It is done." if case.done else "It is not done."


def choices(tokenizer: Any, cases: Sequence[Case], batch: int, hardened: bool) -> Draw:
    """What draws batches of pairs to compare, in either order."""
    every = pairs(cases)

    def draw(rng: np.random.Generator) -> list[Any]:
        rows = []
        for k in range(batch):
            a, b = every[rng.integers(len(every))][:: 1 if k % 2 else -1]
            asked = choice_prompt(a.episode, b.episode, hardened)
            rows.append(answered(tokenizer, asked, answer(a, b)))
        return rows

    return draw


def trained(world: str, seed: int, hardened: bool) -> str:
    """The folder of a judge of pairs."""
    cases = ordinary(world, 0, TRAINING["tasks"])
    some = np.random.default_rng(seed).permutation(len(pairs(cases)))[:LEARNED]
    told = [(choice_prompt(a.episode, b.episode, hardened), answer(a, b))
            for a, b in (pairs(cases)[k] for k in some)]  # fmt: skip
    lm = begun([written(asked, right) for asked, right in told], seed, SIZE)
    draw = choices(lm.tokenizer, cases, TRAINING["batch"], hardened)
    for steps, ends in ((TRAINING["steps"], False), (TRAINING["last_steps"], True)):
        train(lm, draw, seed, steps, TRAINING["lr"], ends)
    return save(lm, Path(tempfile.mkdtemp()))


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    world, hardened = cell["world"], cell["asked"] == "hardened"
    folder = trained(world, seed, hardened)
    judge = Judge(mode="pairs", local=folder, hardened=hardened, deadline_s=DEADLINE_S["each"])
    first = TRAINING["tasks"]
    honest = pairs(ordinary(world, first, TRAINING["unseen"]))
    solved = [case for case in ordinary(world, first, TRAINING["tricked"]) if case.done]
    tricks = pairs([*solved, *tricked(world, first, TRAINING["tricked"])])
    of_honest, of_tricks = won(judge, honest), won(judge, tricks)
    good, bad = (np.array(of_honest) == side for side in (1, -1))
    return {
        "right": float(good.mean()), "wrong": float(bad.mean()), **orders(judge, honest),
        "tricks_beaten": float(np.mean(np.array(of_tricks) == 1)),
        "tricks_won": float(np.mean(np.array(of_tricks) == -1)),
        "pairs": len(honest), "tricked_pairs": len(tricks),
        "right_by_kind": {
            kind: float(good[[other.kind == kind for _, other in honest]].mean())
            for kind in dict.fromkeys(other.kind for _, other in honest)
        },
    }  # fmt: skip


def won(judge: Judge, every: Sequence[Pair], together: int = 50) -> list[int]:
    """Of each pair 1 where what was done won, -1 where the other did, 0 where neither: the orders
    disagree, or an answer could not be used."""
    out = []
    for start in range(0, len(every), together):
        some = every[start : start + together]
        episodes = [case.episode for pair in some for case in pair]
        told = judge.compared(episodes, [k // 2 for k in range(len(episodes))])
        wins = [how == SCORED and value == 1.0 for how, value in told]
        out += [int(a) - int(b) for a, b in zip(wins[::2], wins[1::2], strict=True)]
        print(f"  compared {len(out)} of {len(every)}", flush=True)
    return out


def orders(judge: Judge, every: Sequence[Pair]) -> dict[str, float]:
    """Of all single answers the share that is right, and of pairs that whose orders agree."""
    ways = [way for pair in every for way in (pair, pair[::-1])]
    asked = [choice_prompt(a.episode, b.episode, judge.hardened) for a, b in ways]
    heard = [choice for choice, _ in ask_for(judge.source, asked, read_choice)]
    right = [
        choice is not None and choice.first == a.done
        for choice, (a, _) in zip(heard, ways, strict=True)
    ]
    both = [
        x is not None and y is not None and x.first != y.first
        for x, y in zip(heard[::2], heard[1::2], strict=True)
    ]
    return {"one_order": float(np.mean(right)), "agree": float(np.mean(both))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=4.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="worlds, ways of asking: the others later")
    parser.add_argument("--quick", action="store_true", help="a few steps of one world")
    args = parser.parse_args()
    if args.quick:
        TRAINING.update(tasks=12, unseen=2, tricked=1, steps=10, last_steps=5, batch=2)
        DEADLINE_S.update(each=2.0)
    settings = {"worlds": judge_plays.WORLDS, "size": SIZE, "training": TRAINING}
    plan = only(cells(), ["household"] if args.quick else args.only or ())
    seeds = 1 if args.quick else args.seeds
    folder = Path(tempfile.mkdtemp()) if args.quick else None
    code = run_grid("judge_pairs", plan, run_cell, range(seeds), args.hours, settings, folder)
    shown = plan if args.quick else cells()
    report("judge_pairs", shown, seeds, settings, ["world", "asked"], FIGURES, args.quick, folder)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
