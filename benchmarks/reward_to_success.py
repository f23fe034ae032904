"""Environment steps to success on rewards written by hand, sparse, and learned from demonstrations.

For every task and reward: PPO with the task's own settings, trained on that reward alone. Learned
rewards are fitted to 30 demonstrations; their own success is the base reward, their potential the
shaping, and an episode ends by time. True success is measured, never learned from.

    python -m benchmarks.reward_to_success [--hours H] [--seeds N] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grid import report, run_grid
from benchmarks.learned import demonstrations, make_model, quiet_threads, steps_to, train_policy

TASKS = {"pick_cube": 3_000_000, "open_drawer": 2_000_000}
"""Each with its budget of environment steps."""
MODELS = (
    "stage_aware",
    "hop",
    "success",
    "pairwise",
    "contrastive_progress_completion",
    "perceptual",
    "ordinal",
)
PIXELS = ("stage_aware", "hop")
"""Models that are tried from one camera's images as well."""
REACHED = 0.8


def cells() -> list[dict[str, Any]]:
    rows = []
    for reward in ("dense", "sparse", *MODELS):
        rows += [{"task": task, "reward": reward, "input": "state"} for task in TASKS]
    return rows + [{"task": "pick_cube", "reward": name, "input": "pixels"} for name in PIXELS]


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    task, reward = cell["task"], cell["reward"]
    steps = TASKS[task]
    if reward == "dense":
        run = train_policy(task, seed, steps, [])
    elif reward == "sparse":
        run = train_policy(task, seed, steps, ["reward_model.env.readout=success"])
    else:
        run = _learned(task, reward, cell["input"], seed, steps)
    reached = steps_to(run["curve"], REACHED)
    return run | {"millions_to_reached": reached and reached / 1e6}


def _learned(task: str, name: str, sees: str, seed: int, steps: int) -> dict[str, Any]:
    model = make_model(task, name, f"input={sees}", f"seed={seed}")
    with tempfile.TemporaryDirectory() as folder:
        figures = model.fit(demonstrations(task, seed, model))
        model.save(Path(folder) / name)
        own = f"reward_model.{name}"
        overrides = [f"reward_model=[{name}]", f"{own}.path={folder}/{name}", f"{own}.input={sees}"]
        if sees == "pixels":
            overrides += [f"{own}.every=10", f"{own}.stride=10"]
        return train_policy(task, seed, steps, overrides, model) | {"fit": figures}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed of two rewards on one task")
    args = parser.parse_args()
    plan = cells()
    if args.quick:
        plan = [c for c in plan if c["task"] == "pick_cube" and c["reward"] in ("dense", "success")]
    settings = {"tasks": TASKS, "demonstrations": 30}
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("reward_to_success", plan, run_cell, seeds, args.hours, settings)
    figures = ("success", "millions_to_reached", "rollouts_valued", "policy_auroc")
    by = ["task", "reward", "input"]
    report("reward_to_success", cells(), args.seeds, settings, by, figures, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
