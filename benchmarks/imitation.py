"""Behaviour cloning from demonstrations of mixed quality: what weighing them by learned progress
is worth, between plain cloning and an oracle that knows the successful experts.

Experts who are disturbed now and then, every flaw of theirs and chance play the task. `none` clones
all of it alike; `ra_bc` weighs frames by the progress that a stage-aware model, fitted to 30 other
demonstrations, sees in them; `truth` by the task's own progress; `oracle` clones the successful
experts alone. The greedy policies are judged by true success on 100 fresh episodes.

    python -m benchmarks.imitation [--hours H] [--seeds N] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.grid import report, run_grid
from benchmarks.learned import (
    SHOWN_BY,
    demonstrations,
    evaluate_run,
    make_model,
    quiet_threads,
)
from embodied.build import make_env
from embodied.config import compose_config
from embodied.dataset import Dataset
from embodied.imitate import imitate
from embodied.judgement import judge_dataset
from embodied.record import record

TASKS, MODEL = ("line_reach", "pick_cube"), "stage_aware"
METHODS = ("none", "ra_bc", "truth", "oracle")
EXPERTS, OF_A_FLAW, OF_CHANCE = 60, 10, 20
SETTINGS = ("agent.steps=8000", "agent.activation=elu")
MIXED = 500_000
"""Seeds of the mixed episodes start here: neither those of demonstrations nor those of tests."""


def cells() -> list[dict[str, Any]]:
    return [{"task": task, "weights": method} for task in TASKS for method in METHODS]


@lru_cache(maxsize=len(TASKS))
def mixed_data(task: str, seed: int) -> Dataset:
    """Experts, flaws and chance, with the scores "ra_bc" (the model's) and "truth"."""
    env: Any = make_env(compose_config([f"env={task}"]), num_envs=64)
    flaws = [f"expert:{flaw.name}" for flaw in env.task.flaws] * OF_A_FLAW
    sources = [SHOWN_BY] * EXPERTS + flaws + ["random"] * OF_CHANCE
    dataset = record(env, sources, range(MIXED + 1000 * seed, MIXED + 1000 * seed + len(sources)))
    env.close()
    model = make_model(task, MODEL, seed)
    model.fit(demonstrations(task, seed, model, source=SHOWN_BY))
    told = judge_dataset(model, dataset)
    episodes = [
        replace(episode, scores={"ra_bc": judged.value, "truth": episode.progress})
        for episode, judged in zip(dataset.episodes, told, strict=True)
    ]
    return Dataset(dataset.info, episodes)


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    dataset, method = mixed_data(cell["task"], seed), cell["weights"]
    chosen = ["weights=ra_bc", f"score={method}"]
    if method in ("none", "oracle"):
        chosen = [f"weights={method}"]
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["dataset=recorded", "video=false", "tensorboard=false", f"run_dir={folder}/run"]
        overrides = [f"env={cell['task']}", f"seed={seed}", *fixed, *SETTINGS, *chosen]
        path, figures = imitate(overrides, dataset=dataset)
        success = evaluate_run(path)
    share = float(np.mean([episode.succeeded for episode in dataset.episodes]))
    return {"success": success, "data_success": share, **figures}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed")
    args = parser.parse_args()
    settings = {"model": MODEL, "experts": EXPERTS, "of_a_flaw": OF_A_FLAW, "of_chance": OF_CHANCE}
    settings |= {"agent": SETTINGS, "shown_by": SHOWN_BY}
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("imitation", cells(), run_cell, seeds, args.hours, settings)
    figures = ("success", "mean_weight", "data_success")
    report("imitation", cells(), args.seeds, settings, ["task", "weights"], figures, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
