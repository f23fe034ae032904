"""Held progress, overridden, clipped and discounted differences of one learned reward beside one
base: what a policy makes of each, by the judge's word and by the truth.

The base is the same for all: 1 for the true success of `line_reach`, which ends the episode. Beside
it, PPO is paid the progress that a stage-aware model, fitted to 30 demonstrations, sees, shaped in
each way. What is held is paid as long as the episode lasts, so it pays never to finish.

    python -m benchmarks.shaping [--hours H] [--seeds N] [--quick]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embodied.envs.tasks.line_reach import LineReach

from benchmarks import harness
from benchmarks.curves import draw
from benchmarks.grid import load_cells, report, run_grid
from benchmarks.learned import demonstrations, make_model, quiet_threads, train_policy
from embodied.sim import Sim
from embodied.types import Array, Carry

TASK, MODEL, STEPS, CLIP, THRESHOLD = "line_reach", "stage_aware", 600_000, 0.2, 0.9
SHAPINGS = {
    "held": "held progress",
    "override": "overridden by success",
    "delta": "clipped delta",
    "potential": "potential",
    "none": "the base alone",
}
LINES = {"success": "true success", "correlation": "rank correlation of judge and truth"}


class Ending(LineReach):
    """The course, over as soon as it is done: who has succeeded is paid no more."""

    def terminated(self, sim: Sim, memory: Carry) -> Array:
        return self.success(sim, memory)


def cells() -> list[dict[str, Any]]:
    return [{"shaping": shaping} for shaping in SHAPINGS]


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    os.environ["EMBODIED_TRUST"] = "benchmarks"
    model, shaping = make_model(TASK, MODEL, seed), cell["shaping"]
    with tempfile.TemporaryDirectory() as folder:
        model.fit(demonstrations(TASK, seed, model))
        model.save(Path(folder) / MODEL)
        names = "env" if shaping == "none" else f"env,{MODEL}"
        overrides = ["env.task._target_=benchmarks.shaping.Ending", f"reward_model=[{names}]"]
        overrides += ["reward_model.env.readout=success"]
        if shaping != "none":
            chosen = {"path": f"{folder}/{MODEL}", "shaping": shaping, "clip": CLIP}
            # overridden by a success as the model sees it; the others hold it against the truth
            chosen |= {"threshold": THRESHOLD, "bonus": float(shaping == "override")}
            overrides += [f"reward_model.{MODEL}.{key}={value}" for key, value in chosen.items()]
        run = train_policy(TASK, seed, STEPS, overrides, model)
    lasts = [x for x in run["curve"]["length"] if x is not None]
    return run | {"gap": run["rollouts_valued"] - run["rollouts_successful"], "length": lasts[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=0.5, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed")
    args = parser.parse_args()
    settings = {
        "task": TASK, "model": MODEL, "steps": STEPS, "clip": CLIP, "threshold": THRESHOLD
    }  # fmt: skip
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("shaping", cells(), run_cell, seeds, args.hours, settings)
    figures = ("success", "rollouts_successful", "rollouts_valued", "gap", "length")
    report("shaping", cells(), args.seeds, settings, ["shaping"], figures, args.quick)
    if not args.quick:
        rows = load_cells("shaping", settings)
        draw(rows, SHAPINGS, "shaping", LINES, harness.RESULTS / "shaping.svg")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
