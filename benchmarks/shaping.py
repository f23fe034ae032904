"""Held progress, clipped differences and a potential, of one learned reward: what a policy makes
of each, by the judge's word and by the truth.

A stage-aware model is fitted to 30 demonstrations of `line_reach`; PPO then learns from it alone,
shaped in each of the three ways, with and without the model's own success as a base.

    python -m benchmarks.shaping [--hours H] [--seeds N] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grid import report, run_grid
from benchmarks.learned import demonstrations, make_model, quiet_threads, train_policy

TASK, MODEL, STEPS = "line_reach", "stage_aware", 1_500_000
SHAPINGS = ("held", "delta", "potential", "none")


def cells() -> list[dict[str, Any]]:
    """Each shaping beside the model's own success, and alone where it can teach by itself."""
    rows = [{"shaping": shaping, "base": True} for shaping in SHAPINGS]
    return rows + [{"shaping": shaping, "base": False} for shaping in ("held", "delta")]


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    model = make_model(TASK, MODEL, seed)
    with tempfile.TemporaryDirectory() as folder:
        model.fit(demonstrations(TASK, seed, model))
        model.save(Path(folder) / MODEL)
        own = f"reward_model.{MODEL}"
        overrides = [f"reward_model=[{MODEL}]", f"{own}.path={folder}/{MODEL}"]
        overrides += [f"{own}.shaping={cell['shaping']}"]
        if not cell["base"]:
            overrides += [f"{own}.bonus=0.0"]  # it still says what it takes for a success
        run = train_policy(TASK, seed, STEPS, overrides)
    judged = [x for x in run["curve"]["judged"] if x is not None]
    true = [x for x in run["curve"]["success"] if x is not None]
    return run | {"judged": judged[-1], "true": true[-1], "gap": judged[-1] - true[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=0.5, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed")
    args = parser.parse_args()
    settings = {"task": TASK, "model": MODEL, "steps": STEPS}
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("shaping", cells(), run_cell, seeds, args.hours, settings)
    figures = ("success", "true", "judged", "gap")
    report("shaping", cells(), args.seeds, settings, ["shaping", "base"], figures, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
