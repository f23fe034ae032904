"""How much of a policy's success survives another physics engine.

For every task of the arm its scripted expert, which reads the true state, and two policies that
learned it in MuJoCo, without and with domain randomisation: by PPO as the task's tuned
configuration says, or, where that is not enough, as a clone of `DEMONSTRATED` disturbed experts.
Each plays the same episodes, in nominal worlds, in MuJoCo and in PyBullet: once with the Panda of
`pybullet_data` and once with the arm that the task has in MuJoCo, which tells the engine's share of
the gap from the robot's. `survived` is the share of the episodes won in MuJoCo that are won in
Bullet too. Intervals are Wilson's, at 95%, over the episodes of all seeds.

Training takes minutes a run, and is kept in `--runs`: the grid goes on where it was stopped.

    python -m benchmarks.sim_to_sim [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.experts import TASKS
from benchmarks.grid import Cell, load_cells, only, run_grid
from benchmarks.harness import write_result
from benchmarks.learned import SHOWN_BY, demonstrations
from embodied.actor import find_actor
from embodied.build import make_env
from embodied.evaluate import run_episodes
from embodied.imitate import imitate
from embodied.run import open_run
from embodied.statistics import wilson
from embodied.train import train

SIMS = {
    "mujoco": ("sim=mujoco", "sim.threads=2"),
    "bullet": ("sim=bullet",),
    "bullet_own_arm": ("sim=bullet", "sim.urdf=null"),
}
RANDOMISED = (
    "env.randomise.mass=[0.7,1.4]",
    "env.randomise.friction=[0.6,1.5]",
    "env.randomise.gains=[0.7,1.4]",
    "env.randomise.delay_steps=[0,1]",
    "env.randomise.obs_noise=0.002",
)
NOMINAL = (
    "env.randomise.mass=[1.0,1.0]",
    "env.randomise.friction=[1.0,1.0]",
    "env.randomise.gains=[1.0,1.0]",
    "env.randomise.delay_steps=[0,0]",
    "env.randomise.obs_noise=0.0",
)
POLICIES: dict[str, tuple[str, ...]] = {"expert": (), "plain": (), "randomised": RANDOMISED}
CLONED = ("stack_cube", "peg_insert", "tidy_table")
DEMONSTRATED, CLONING = 200, ("agent.steps=8000", "agent.activation=elu")
FIRST_SEED, EPISODES, AT_ONCE = 1_000_000, 200, 40
QUICK_STEPS, QUICK_EPISODES = 150_000, 20
RUNS = Path("runs/sim_to_sim")


def cells() -> list[dict[str, str]]:
    """Task by policy by simulator."""
    return [
        {"task": task, "policy": policy, "sim": sim}
        for task in TASKS
        for policy in POLICIES
        for sim in SIMS
    ]


def run_cell(
    cell: Mapping[str, Any], seed: int, runs: Path, episodes: int, steps: int | None
) -> dict[str, Any]:
    """How often a policy succeeds in a simulator, and in which episodes (`won`, a 1 or 0 each)."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    overrides = [*SIMS[cell["sim"]], *NOMINAL]
    if cell["policy"] == "expert":
        actor = find_actor("expert")
        overrides.append(f"env={cell['task']}")
    else:
        actor = find_actor(str(trained(cell["task"], cell["policy"], seed, runs, steps)))
    env = make_env(actor.worlds(overrides), num_envs=min(AT_ONCE, episodes))
    first = FIRST_SEED + seed * episodes  # no episode counts twice
    seeds = range(first, first + episodes)
    rows = {row["seed"]: row for row in run_episodes(env, actor.policy(env), seeds)}
    env.close()
    won = [bool(rows[k]["success"]) for k in seeds]
    return {
        "episodes": len(won),
        "success": sum(won) / len(won),
        "faults": sum(row["fault"] is not None for row in rows.values()),
        "won": "".join("01"[one] for one in won),
    }


def trained(task: str, policy: str, seed: int, runs: Path, steps: int | None) -> Path:
    """The run of a policy, trained now unless it has been; one that was stopped goes on.

    `steps` replaces those of the tuned configuration; clones have their own.
    """
    if task in CLONED:
        return cloned(task, policy, seed, runs)
    path = runs / f"{task}_{policy}_s{seed}{f'_{steps}' if steps else ''}"
    if (path / "checkpoints").exists():
        run = open_run(path)
        if run.checkpoint.step < run.cfg.total_steps:
            train(resume=path)
    else:
        fixed = [f"run_dir={path}", "video=false", "tensorboard=false"]
        budget = [f"total_steps={steps}"] if steps else []
        train([f"env={task}", f"seed={seed}", *fixed, *budget, *POLICIES[policy]])
    run = open_run(path)
    if run.checkpoint.step < run.cfg.total_steps:  # stopped by hand: the cell is not done
        raise KeyboardInterrupt
    return path


def cloned(task: str, policy: str, seed: int, runs: Path) -> Path:
    """The run of a clone, made now unless it has been."""
    path = runs / f"{task}_{policy}_s{seed}"
    if not (path / "checkpoints").exists():
        worlds = POLICIES[policy]
        shown = demonstrations(task, seed, None, DEMONSTRATED, SHOWN_BY, worlds)
        fixed = ["dataset=recorded", f"run_dir={path}", "video=false", "tensorboard=false"]
        imitate([f"env={task}", f"seed={seed}", *fixed, *CLONING, *worlds], dataset=shown)
    return path


def tabulate(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task, policy and simulator, all its seeds taken together.

    Beside the success in Bullet, `survived` is its share of those episodes that MuJoCo saw won.
    """
    won: dict[tuple[str, str, str], dict[int, str]] = {}
    for row in rows:
        cell = row["cell"]
        key = cell["task"], cell["policy"], cell["sim"]
        won.setdefault(key, {})[row["seed"]] = row["figures"]["won"]
    table = []
    for (task, policy, sim), runs in won.items():
        here = "".join(runs.values())
        count, successes = len(here), here.count("1")
        told: dict[str, Any] = {"task": task, "policy": policy, "sim": sim, "seeds": len(runs)}
        told |= rate(successes, count, "success") | {"episodes": count}
        home = won.get((task, policy, "mujoco"), {})
        both = [(home[s], runs[s]) for s in runs if s in home and sim != "mujoco"]
        pairs = [pair for one in both for pair in zip(*one, strict=True) if pair[0] == "1"]
        if pairs:
            told |= rate(pairs.count(("1", "1")), len(pairs), "survived") | {"of": len(pairs)}
        table.append(told)
    return table


def rate(count: int, total: int, name: str) -> dict[str, float]:
    low, high = wilson(count, total)
    return {name: count / total, f"{name}_low": low, f"{name}_high": high}


def side_by_side(table: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A line for each task and policy: success in each simulator, and what of it survived."""
    lines: dict[str, dict[str, Any]] = {}
    for row in table:
        how = "" if row["policy"] == "expert" else "clone, " if row["task"] in CLONED else "PPO, "
        line = lines.setdefault(f"{row['task']}: {how}{row['policy']}", {})
        for name, column in (("success", row["sim"]), ("survived", f"{row['sim']}_survived")):
            if name in row:
                ends = {"low": row[f"{name}_low"], "high": row[f"{name}_high"]}
                line[column] = {"mean": row[name], **ends}
    return lines


def headline(table: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The lowest share that survived in Bullet, of experts and of each kind of trained policy."""
    out: dict[str, float | None] = {}
    for policy in POLICIES:
        shares = [
            row["survived"]
            for row in table
            if (row["policy"], row["sim"]) == (policy, "bullet") and "survived" in row
        ]
        out[f"{policy}_lowest"] = min(shares, default=None)
        out[f"{policy}_mean"] = sum(shares) / len(shares) if shares else None
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=6.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=1, help="of training, and of experts' cells")
    parser.add_argument("--only", nargs="+", help="tasks, policies, simulators: the others later")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where trained policies are kept")
    parser.add_argument("--quick", action="store_true", help="few episodes of two tasks")
    args = parser.parse_args()
    plan: list[Cell] = list(cells())
    episodes, steps = EPISODES, None
    if args.quick:
        episodes, steps = QUICK_EPISODES, QUICK_STEPS
        plan = [c for c in plan if c["task"] == "reach" or c["policy"] == "expert"]
        plan = only(plan, ["reach", "pick_cube"])
    settings = {"episodes": episodes, "steps": steps, "randomised": RANDOMISED, "sims": SIMS}
    run = partial(run_cell, runs=args.runs, episodes=episodes, steps=steps)
    seeds = range(1 if args.quick else args.seeds)
    code = run_grid("sim_to_sim", only(plan, args.only or ()), run, seeds, args.hours, settings)
    rows = [row for row in load_cells("sim_to_sim", settings) if row["cell"] in plan]
    rows = sorted((r for r in rows if r["seed"] in seeds), key=lambda r: plan.index(r["cell"]))
    table = tabulate(rows)
    hours = round(sum(row["seconds"] for row in rows) / 3600, 2)
    done = {"done": len(rows), "planned": len(plan) * len(seeds), "hours": hours}
    figures = {**headline(table), "cells": done, "table": side_by_side(table)}
    write_result("sim_to_sim", figures, {"table": table}, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
