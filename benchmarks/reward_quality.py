"""How well each reward model judges held-out episodes, and what its named mechanism is worth.

Every model sees the front camera (`hop`, which is for several, the wrist's as well) and the robot's
own state, and learns from at most 30 demonstrations: 24 of the task, by an expert who is disturbed
now and then, and two of each other task on the same table. It is judged on the expert, every flaw
and chance, none of which it was fitted to.

    python -m benchmarks.reward_quality [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from benchmarks.grid import only, report, run_grid
from benchmarks.learned import SHOWN_BY, demonstrations, held_out, make_model, quiet_threads
from embodied.card import measure
from embodied.config import compose_config
from embodied.dataset import Dataset

TASKS = ("pick_cube", "open_drawer")
OTHERS = {
    "pick_cube": ("open_drawer", "stack_cube", "peg_insert"),
    "open_drawer": ("pick_cube", "stack_cube", "peg_insert"),
}
OWN, OF_OTHERS, EACH = 24, 2, 8
MODELS = (
    "stage_aware",
    "hop",
    "pairwise",
    "ordinal",
    "contrastive_progress_completion",
    "perceptual",
    "success",
    "clock",
    "always_yes",
)
VIEWS = {"hop": ("front", "wrist")}
"""Who sees more than the front camera."""
ABLATIONS = {
    "stage_aware": ("stage_labels=false", "rewind=0.0", "wrong_instruction=0.0"),
    "hop": ("perspectives=[forward]", "perspectives=[backward]", "perspectives=[incremental]"),
    "ordinal": ("counterfactuals=0.0", "clipping=false"),
    "contrastive_progress_completion": ("anchor=false", "heads=[progress]"),
}
"""What a model is tried without, on the first task."""
FIGURES = (
    "voc", "vroc", "retry_voc", "hesitation_rmse", "auroc", "auprc", "kendall_tau", "mae",
    "truth_spearman", "flaw_accepted", "passed",
)  # fmt: skip


FLAWS = (
    "expert", "slow", "hesitates", "retries", "stops_short", "near_miss", "drops", "wrong_object",
    "undoes", "wrong_way", "random",
)  # fmt: skip
"""Whose episodes are held out: for each, the share that the model calls a success at the end."""


def cells() -> list[dict[str, Any]]:
    return [
        {"task": task, "model": name, "without": text}
        for task in TASKS
        for name in MODELS
        for text in ("", *(ABLATIONS.get(name, ()) if task == TASKS[0] else ()))
    ]


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    task, name = cell["task"], cell["model"]
    seen = ["input=pixels"] if name not in ("clock", "always_yes") else []
    seen += [f"cameras=[{','.join(VIEWS[name])}]"] if name in VIEWS else []
    model = make_model(task, name, seed, *seen, *filter(None, [cell["without"]]))
    others = [_demonstrations(other, seed, OF_OTHERS) for other in OTHERS[task]]
    fitted = model.fit(_demonstrations(task, seed, OWN), others) if hasattr(model, "fit") else {}
    node = compose_config([f"env={task}", f"reward_model={name}"]).reward_model[name]
    every = int(node.get("every", 1))
    unseen = [_demonstrations(other, seed + 100, OF_OTHERS) for other in OTHERS[task]]
    card = measure(model, _held_out(task, seed), unseen, None, node.get("threshold"), every)
    checks = {finding.check.name: finding.value for finding in card.findings}
    figures = {**card.metrics, **checks, "passed": float(card.gate == "passed")}
    for row in card.sources:
        figures[row["source"].removeprefix("expert:")] = row["accepted_at_end"]
    failed = [finding.check.name for finding in card.failed]
    return {**figures, "failed": failed, "fit": fitted, "says": card.weakness}


class _Eye:
    """What all models are given to see: they share the demonstrations of a seed."""

    class needs:  # noqa: N801
        cameras, image_size = ("front", "wrist"), 64


@lru_cache(maxsize=8)
def _demonstrations(task: str, seed: int, count: int) -> Dataset:
    return demonstrations(task, seed, _Eye, count, SHOWN_BY)


@lru_cache(maxsize=2)
def _held_out(task: str, seed: int) -> Dataset:
    return held_out(task, seed, ("front", "wrist"), EACH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="tasks, models to run: the others later")
    parser.add_argument("--quick", action="store_true", help="one seed of two models")
    args = parser.parse_args()
    plan = only(cells(), args.only or ())
    if args.quick:
        plan = [c for c in plan if c["model"] in ("clock", "success") and c["task"] == TASKS[0]]
    settings = {"own": OWN, "of_others": OF_OTHERS, "each": EACH, "shown_by": SHOWN_BY}
    settings["views"] = VIEWS
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("reward_quality", plan, run_cell, seeds, args.hours, settings)
    by, figures = ["task", "model", "without"], (*FIGURES, *FLAWS)
    report("reward_quality", cells(), args.seeds, settings, by, figures, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
