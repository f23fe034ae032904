"""What fools a judge of episodes, before and after it is hardened as *One Token to Fool* asks.

No language model can be had here, so the judge is a small one from scratch, per world and seed: it
learns to answer what `reward_models/turns/judge.py` asks, from episodes of 300 tasks that were
solved and that failed in ordinary ways, and is loaded from its checkpoint like any other. Then it
is asked about 50 tasks that it never saw: the episodes that solve them, ordinary failures, and
failures that end with a reply that says nothing or lies (`embodied.degenerate`, 45 tricks).

    before      trained on ordinary episodes, and asked plainly
    rules       the same model, asked by the hardened judge: quoted data, evidence, refusals by rule
    openings    its last steps are on openings of answers as well, labelled no; asked plainly
    both        that model, asked by the hardened judge

The tricks that are openings too ("openers") are told apart from those of kinds never trained on.

    python -m benchmarks.judge [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from embodied.reward_models.turns.judge import Judge

from benchmarks import judge_plays
from benchmarks.grid import only, report, run_grid
from benchmarks.judge_model import begun, likely, save, texts, train, verdicts
from benchmarks.judge_plays import FAMILIES, SEEN_IN_TRAINING, Case, openings, ordinary, tricked
from embodied.causal_lm import CausalLM
from embodied.degenerate import is_degenerate
from embodied.judge_prompt import YES
from embodied.types import SCORED

JUDGES = {
    "before": {"hardened": False, "openings": False},
    "rules": {"hardened": True, "openings": False},
    "openings": {"hardened": False, "openings": True},
    "both": {"hardened": True, "openings": True},
}
SIZE = {"width": 64, "layers": 2, "heads": 4, "vocabulary": 1000}
TRAINING: dict[str, Any] = {
    "tasks": 300, "unseen": 50, "steps": 300, "last_steps": 200, "batch": 16, "lr": 2e-3,
}  # fmt: skip
TOGETHER = 500
"""Episodes that are judged between two lines of progress."""
DEADLINE_S = {"each": 3600.0}
"""For those that are judged together; what is not answered by then is not called done."""
FIGURES = (
    "false_positive", "held_out", "openers", "accepted", "refused", "auroc", "abstained", "by_rule",
    "unproven", "false_positive_alone", "false_positive_at_the_end",
    *sorted(set(FAMILIES.values())),
)  # fmt: skip


def cells() -> list[dict[str, Any]]:
    return [{"world": world, "judge": judge} for world in judge_plays.WORLDS for judge in JUDGES]


@cache
def trained(world: str, seed: int) -> dict[bool, tuple[CausalLM, str]]:
    """The judge without and with openings in its training, and where each was saved: the same
    until its last steps."""
    tasks, lr, batch = TRAINING["tasks"], TRAINING["lr"], TRAINING["batch"]
    plain, extra = ordinary(world, 0, tasks), openings(world, 0, tasks)
    first = begun(texts(plain, seed), seed, SIZE)
    draw = verdicts(first.tokenizer, plain, batch)
    train(first, draw, seed, TRAINING["steps"], lr, ends=False)
    out = {}
    for with_openings, cases in ((False, plain), (True, [*plain, *extra])):
        lm = first.clone()
        draw = verdicts(lm.tokenizer, cases, batch)
        train(lm, draw, seed, TRAINING["last_steps"], lr, ends=True)
        out[with_openings] = lm, save(lm, Path(tempfile.mkdtemp()))
    return out


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    world, how = cell["world"], JUDGES[cell["judge"]]
    lm, folder = trained(world, seed)[how["openings"]]
    judge = Judge(local=folder, hardened=how["hardened"], deadline_s=DEADLINE_S["each"])
    first, count = TRAINING["tasks"], TRAINING["unseen"]
    honest, tricks = ordinary(world, first, count), tricked(world, first, count)
    told = _asked(judge, [*honest, *tricks])
    figures = measured(honest, told[: len(honest)], tricks, told[len(honest) :])
    if not how["hardened"]:
        likelihood = likely(lm, [case.episode for case in honest])
        figures["auroc"] = auroc(likelihood, np.array([case.done for case in honest]))
    return figures


def _asked(judge: Judge, cases: Sequence[Case]) -> list[tuple[int, float]]:
    told: list[tuple[int, float]] = []
    for start in range(0, len(cases), TOGETHER):
        told += judge.judged([case.episode for case in cases[start : start + TOGETHER]])
        print(f"  judged {len(told)} of {len(cases)}", flush=True)
    return told


def measured(
    honest: Sequence[Case],
    of_honest: Sequence[tuple[int, float]],
    tricks: Sequence[Case],
    of_tricks: Sequence[tuple[int, float]],
) -> dict[str, Any]:
    """Shares of what a judge called done, given status and value for each case. What it abstains
    on it has not called done; what was done is `unproven` where it said yes and quoted wrongly."""
    said, fooled = _called_done(of_honest), _called_done(of_tricks)
    unproven = np.array([how == SCORED and value == 0.0 for how, value in of_honest])
    done = np.array([case.done for case in honest])
    kinds = np.array([case.kind for case in tricks])
    family = np.array([FAMILIES[kind] for kind in kinds])
    seen = np.isin(family, SEEN_IN_TRAINING)
    alone = np.array([len(case.episode.said) == 1 for case in tricks])
    by_trick = {kind: float(fooled[kinds == kind].mean()) for kind in dict.fromkeys(kinds.tolist())}
    failed = np.array([case.kind for case in honest])
    return {
        "false_positive": float(fooled.mean()), "held_out": _mean(fooled[~seen]),
        "openers": _mean(fooled[seen]),
        **{name: _mean(fooled[family == name]) for name in sorted(set(FAMILIES.values()))},
        "false_positive_alone": _mean(fooled[alone]),
        "false_positive_at_the_end": _mean(fooled[~alone]),
        "accepted": float(said[done].mean()), "refused": float(1.0 - said[~done].mean()),
        "unproven": _mean(unproven[done]),
        "abstained": float(np.mean([how != SCORED for how, _ in (*of_honest, *of_tricks)])),
        "by_rule": float(np.mean([is_degenerate(case.episode.said[-1]) for case in tricks])),
        "accepted_by_kind": {
            kind: float(said[failed == kind].mean()) for kind in dict.fromkeys(failed.tolist())
        },
        "by_trick": by_trick, "tricks": len(by_trick), "episodes": len(tricks),
    }  # fmt: skip


def _called_done(told: Sequence[tuple[int, float]]) -> np.ndarray:
    return np.array([how == SCORED and value >= YES for how, value in told])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def auroc(likelihood: np.ndarray, done: np.ndarray) -> float:
    """How often what was done is called likelier than what was not; a tie is half."""
    apart = likelihood[done][:, None] - likelihood[~done][None]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=4.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="worlds, judges to run: the others later")
    parser.add_argument("--quick", action="store_true", help="a few steps of one world")
    args = parser.parse_args()
    if args.quick:
        TRAINING.update(tasks=12, unseen=2, steps=30, last_steps=10, batch=4)
        DEADLINE_S.update(each=4.0)
    settings = {"worlds": judge_plays.WORLDS, "size": SIZE, "training": TRAINING, "judges": JUDGES}
    chosen = ["household"] if args.quick else args.only or ()
    seeds = 1 if args.quick else args.seeds
    folder = Path(tempfile.mkdtemp()) if args.quick else None
    plan = only(cells(), chosen)
    code = run_grid("judge", plan, run_cell, range(seeds), args.hours, settings, folder)
    shown = plan if args.quick else cells()
    report("judge", shown, seeds, settings, ["world", "judge"], FIGURES, args.quick, folder)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
