"""How often the arm's scripted experts succeed, and whether each flaw does as named.

For every task, robot and action space: the share of 500 seeds in which the expert succeeds. For
every task and robot, each flaw's success in 100 and its steps as a multiple of the expert's.

    python -m benchmarks.experts [--quick]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import parse_args, write_result
from embodied.build import make_env
from embodied.config import compose_config

TASKS = (
    "reach", "push_cube", "pick_cube", "stack_cube", "open_drawer", "peg_insert", "tidy_table"
)  # fmt: skip
ROBOTS = ("panda", "iiwa")
ACTIONS = ("joint_delta", "ee_delta")


def play(env: Any, flaw: str | None) -> dict[str, Any]:
    """One episode of every seed: the share that succeeded, and after how many steps."""
    env.reset(seed=0)
    first = np.zeros(env.num_worlds, int)
    faults = 0
    for t in range(env.max_steps):
        step = env.step(env.expert(flaw))
        first = np.where((first == 0) & step.success, t + 1, first)
        faults += int((step.fault != 0).sum())
    won = first > 0
    steps = float(np.median(first[won])) if won.any() else None
    return {"success": float(won.mean()), "median_steps": steps, "faults": faults}


def as_named(expect: str, row: dict[str, Any], expert: dict[str, Any]) -> bool:
    if expect == "fails":
        return row["success"] <= 0.1
    return row["success"] >= 0.9 and row["median_steps"] >= 1.3 * expert["median_steps"]


def main() -> None:
    args = parse_args(__doc__)
    seeds, of_a_flaw = (50, 20) if args.quick else (500, 100)
    experts: dict[str, Any] = {}
    flaws: dict[str, Any] = {}
    for task in TASKS:
        for robot in ROBOTS:
            for action in ACTIONS:
                overrides = [f"env={task}", f"robot={robot}", f"env.task.action={action}"]
                env: Any = make_env(compose_config(overrides), seeds)
                key = f"{task}/{robot}/{action}"
                experts[key] = play(env, None)
                env.close()
                print(key, experts[key], flush=True)
                if action != ACTIONS[0]:
                    continue
                env = make_env(compose_config(overrides), of_a_flaw)
                for flaw in env.task.flaws:
                    row = play(env, flaw.name)
                    row |= {"expect": flaw.expect}
                    row["as_named"] = as_named(flaw.expect, row, experts[key])
                    flaws[f"{task}/{robot}/{flaw.name}"] = row
                    print(f"  {flaw.name}", row, flush=True)
                env.close()
    figures = {
        "seeds": seeds,
        "lowest_success": min(row["success"] for row in experts.values()),
        "flaws": len(flaws),
        "flaws_as_named": sum(row["as_named"] for row in flaws.values()),
    }
    write_result("experts", figures, {"experts": experts, "flaws": flaws}, args.quick, args.out)


if __name__ == "__main__":
    main()
