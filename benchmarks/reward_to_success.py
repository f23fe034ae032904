"""Environment steps to success on rewards written by hand, sparse, and learned from demonstrations.

Every policy begins as the same clone of those who miss, and is trained by PPO with equal
settings on one reward alone. Learned rewards are fitted to 30 demonstrations that go all the way;
what they pay is how much progress a step made, and their own success beside it. An episode ends by
time. True success is measured, never learned from.

    python -m benchmarks.reward_to_success [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grid import only, report, run_grid
from benchmarks.learned import (
    HELD_OUT,
    SHOWN_BY,
    demonstrations,
    evaluate_run,
    make_model,
    quiet_threads,
    steps_to,
    train_policy,
)
from embodied.build import make_env
from embodied.config import compose_config
from embodied.imitate import imitate
from embodied.record import record

TASKS = {"pick_cube": 1_300_000, "open_drawer": 1_300_000}
"""Each with its budget of environment steps."""
MISS = {"pick_cube": f"{SHOWN_BY}:stops_short", "open_drawer": f"{SHOWN_BY}:near_miss"}
MISSES = 30
"""Whom the policy that all begin with is a clone of, who lifts the cube a third of the way up and
pulls in front of the handle, and how many episodes; one that succeeds by chance is left out. From
clones of demonstrations that succeed chance often does what a sparse reward needs."""
OF_MISSES = 3 * HELD_OUT
"""Their first seed."""
WHEN = (0.0, 0.1, 0.25, 1.0)
"""The shares of its training after which a policy's own rollouts are judged."""
SETTINGS = (
    "num_envs=256",
    "agent.activation=elu",
    "agent.init_std=0.15",
    "agent.lr=5e-5",
    "agent.target_kl=0.05",
    "agent.gamma=0.95",
    "agent.rollout_steps=32",
    "agent.minibatches=8",
)
"""Of PPO. First steps are small ones: in large ones what a clone can do is lost at once."""
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
LONGER, LATE = {"2.6_million": 2_600_000}, ("sparse", "stage_aware", "hop")
"""A budget at which those are tried once more on `open_drawer`, where one is slow to take off."""
REACHED = 0.8


def cells() -> list[dict[str, Any]]:
    rewards = ("dense", "sparse", *MODELS)
    rows = [{"task": task, "reward": r, "input": "state"} for task in TASKS for r in rewards]
    rows += [{"task": "pick_cube", "reward": name, "input": "pixels"} for name in PIXELS]
    again = {"task": "open_drawer", "input": "state"}
    return rows + [{**again, "reward": name, "budget": b} for b in LONGER for name in LATE]


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
        steps = LONGER[cell["budget"]] if "budget" in cell else TASKS[task]
        run = train_policy(task, seed, steps, settings, model, WHEN)
    reached = steps_to(run["curve"], REACHED)
    return run | {"start": start, "millions_to_reached": reached and reached / 1e6}


def _clone(task: str, seed: int, folder: str) -> tuple[Path, float]:
    """The policy that all begin with, of those who miss, and its success."""
    worlds: Any = make_env(compose_config([f"env={task}"]), num_envs=MISSES)
    seeds = range(OF_MISSES + 1000 * seed, OF_MISSES + 1000 * seed + MISSES)
    shown = record(worlds, [MISS[task]] * MISSES, seeds)
    worlds.close()
    failed = shown.take([k for k, one in enumerate(shown.episodes) if not one.success.any()])
    chosen = [f"env={task}", f"seed={seed}", "agent.steps=8000", "agent.activation=elu"]
    fixed = ["dataset=recorded", "video=false", "tensorboard=false", f"run_dir={folder}/clone"]
    path, _ = imitate([*chosen, *fixed], dataset=failed)
    return path, evaluate_run(path)


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
    if sees == "pixels":
        overrides += [f"{own}.{key}=10" for key in ("every", "stride") if key in usual]
    return model, overrides


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="tasks, rewards, inputs to run: the others later")
    parser.add_argument("--quick", action="store_true", help="one seed of two rewards on one task")
    args = parser.parse_args()
    plan = only(cells(), args.only or ())
    if args.quick:
        plan = [c for c in plan if c["task"] == "pick_cube" and c["reward"] in ("dense", "success")]
    settings = {"tasks": TASKS, "demonstrations": 30, "cloned": MISS, "episodes": MISSES}
    settings |= {"shown_by": SHOWN_BY, "agent": SETTINGS, "when": WHEN}
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("reward_to_success", plan, run_cell, seeds, args.hours, settings)
    figures = ("start", "success", "millions_to_reached", "rollouts_valued", "policy_auroc")
    by = ["task", "reward", "input", "budget"]
    report("reward_to_success", cells(), args.seeds, settings, by, figures, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
