"""Environment steps to success on rewards written by hand, sparse, and learned from demonstrations.

Every policy begins as the same poor clone, of a few demonstrations, that hardly ever succeeds, and
is trained by PPO with equal settings on one reward alone. Learned rewards are fitted to 30
demonstrations; what they pay is how much progress a step made, and their own success beside it. An
episode ends by time. True success is measured, never learned from.

    python -m benchmarks.reward_to_success [--hours H] [--seeds N] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grid import report, run_grid
from benchmarks.learned import (
    SHOWN_BY,
    demonstrations,
    evaluate_run,
    make_model,
    quiet_threads,
    steps_to,
    train_policy,
)
from embodied.config import compose_config
from embodied.imitate import imitate

TASKS = {"pick_cube": 3_000_000, "open_drawer": 1_100_000}
"""Each with its budget of environment steps."""
CLONED = {"pick_cube": 15, "open_drawer": 1}
"""How many demonstrations the policy that all begin with is a clone of."""
POOR = {"pick_cube": 0.15, "open_drawer": 0.02}
"""The most that clone may succeed: from a better one a sparse reward teaches what is missing."""
SETTINGS = (
    "agent.activation=elu",
    "agent.init_std=0.15",
    "agent.lr=5e-4",
    "agent.anneal=true",
    "agent.gamma=0.99",
    "agent.rollout_steps=32",
    "agent.minibatches=8",
)
BONUS = 0.1
"""What a step of success, as a learned reward sees it, pays: a whole way there pays 1."""
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
    rewards = ("dense", "sparse", *MODELS)
    rows = [{"task": task, "reward": r, "input": "state"} for task in TASKS for r in rewards]
    return rows + [{"task": "pick_cube", "reward": name, "input": "pixels"} for name in PIXELS]


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    task, reward = cell["task"], cell["reward"]
    with tempfile.TemporaryDirectory() as folder:
        path, start = _clone(task, seed, folder)
        model, own = None, []
        if reward == "sparse":
            own = ["reward_model.env.readout=success"]
        elif reward != "dense":
            model, own = _fitted(task, reward, cell["input"], seed, folder)
        settings = [*SETTINGS, f"agent.start={path}", *own]
        run = train_policy(task, seed, TASKS[task], settings, model)
    reached = steps_to(run["curve"], REACHED)
    return run | {"start": start, "millions_to_reached": reached and reached / 1e6}


def _clone(task: str, seed: int, folder: str) -> tuple[Path, float]:
    """The policy that all begin with, and its success: of the first demonstrations whose clone is
    poor."""
    shown = demonstrations(task, seed, None)
    fixed = ["dataset=recorded", "video=false", "tensorboard=false"]
    chosen = [f"env={task}", f"seed={seed}", "agent.steps=4000", "agent.activation=elu"]
    count = CLONED[task]
    for first in range(0, len(shown), count):
        few = shown.take(range(first, first + count))
        path, _ = imitate([*chosen, *fixed, f"run_dir={folder}/clone_{first}"], dataset=few)
        if (success := evaluate_run(path)) <= POOR[task]:
            return path, success
    raise RuntimeError(f"{task}, seed {seed}: every clone of {count} succeeds too often")


def _fitted(task: str, name: str, sees: str, seed: int, folder: str) -> tuple[Any, list[str]]:
    """A model that has learned from 30 demonstrations, and the overrides that train on it."""
    model = make_model(task, name, seed, f"input={sees}")
    model.fit(demonstrations(task, seed, model, source=SHOWN_BY))
    model.save(Path(folder) / name)
    own = f"reward_model.{name}"
    overrides = [f"reward_model=[{name}]", f"{own}.path={folder}/{name}", f"{own}.input={sees}"]
    usual = compose_config([f"reward_model={name}"]).reward_model[name]
    if usual.shaping == "potential":
        overrides += [f"{own}.shaping=delta"]
    if "bonus" in usual:
        overrides += [f"{own}.bonus={BONUS}"]
    if sees == "pixels":
        overrides += [f"{own}.every=10", f"{own}.stride=10"]
    return model, overrides


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed of two rewards on one task")
    args = parser.parse_args()
    plan = cells()
    if args.quick:
        plan = [c for c in plan if c["task"] == "pick_cube" and c["reward"] in ("dense", "success")]
    settings = {"tasks": TASKS, "demonstrations": 30, "cloned": CLONED, "poor": POOR}
    settings |= {"shown_by": SHOWN_BY, "agent": SETTINGS, "bonus": BONUS}
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("reward_to_success", plan, run_cell, seeds, args.hours, settings)
    figures = ("start", "success", "millions_to_reached", "rollouts_valued", "policy_auroc")
    by = ["task", "reward", "input"]
    report("reward_to_success", cells(), args.seeds, settings, by, figures, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
