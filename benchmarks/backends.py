"""The same scripted experts on MuJoCo and on `mujoco_warp`, through contact: how many succeed.

500 seeds a task on each backend; `apart` is the largest difference of the two shares. Here Warp
runs on its CPU device, some minutes a task: the grid goes on where it was stopped.

    python -m benchmarks.backends [--hours H] [--device cpu] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.experts import TASKS
from benchmarks.grid import load_cells, run_grid
from benchmarks.harness import write_result
from embodied.build import make_env
from embodied.config import compose_config

SEEDS, AT_ONCE = 500, 125
SIMS = ("mujoco", "warp")


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The share of seeds in which the expert succeeds, and the median step at which it does."""
    torch.set_num_threads(1)
    count, at_once = cell["seeds"], min(AT_ONCE, cell["seeds"])
    device = [f"device={cell['device']}"] if cell["sim"] == "warp" else ["sim.threads=1"]
    overrides = [f"env={cell['task']}", f"sim={cell['sim']}", *device]
    env: Any = make_env(compose_config(overrides), num_envs=at_once)
    firsts, faults = [], 0
    for start in range(0, count, at_once):
        env.reset(seed=np.arange(start, start + at_once))
        first = np.zeros(at_once, int)
        for t in range(env.max_steps):
            step = env.step(env.expert())
            first = np.where((first == 0) & step.success, t + 1, first)
            faults += int((step.fault != 0).sum())
            if (first > 0).all():
                break
        firsts.append(first)
    env.close()
    told = np.concatenate(firsts)
    steps = float(np.median(told[told > 0])) if (told > 0).any() else None
    return {"success": float((told > 0).mean()), "median_steps": steps, "faults": faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="no cell is begun after these")
    parser.add_argument("--device", default="cpu", help="Warp's")
    parser.add_argument("--quick", action="store_true", help="few seeds of two tasks")
    args = parser.parse_args()
    tasks, seeds = (TASKS[:2], 16) if args.quick else (TASKS, SEEDS)
    cells = [
        {"task": task, "sim": sim, "seeds": seeds, "device": args.device}
        for task in tasks
        for sim in SIMS
    ]
    code = run_grid("backends", cells, run_cell, range(1), args.hours)
    table: dict[str, dict[str, Any]] = {}
    for row in load_cells("backends"):
        if row["cell"] in cells:
            table.setdefault(row["cell"]["task"], {})[row["cell"]["sim"]] = row["figures"]
    both = {task: row for task, row in table.items() if set(row) == set(SIMS)}
    gaps = [abs(row["warp"]["success"] - row["mujoco"]["success"]) for row in both.values()]
    figures = {"apart": max(gaps, default=None), "tasks": len(both), "planned": len(tasks)}
    write_result("backends", figures, {"table": table}, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
