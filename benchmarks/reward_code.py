"""Reward code against rewards written for each task by hand, at equal steps.

The candidates of a task are recorded replies (`replies/TASK.md`), which people wrote, poor ones
first, and `CHANCE` rewards that chance put together. Every one is checked as `embodied
write-reward` does, and what passes is trained on, seed by seed, with the same settings and steps as
the task's own reward. What a search would keep by one seed is judged by the others: its success
(`kept`), how far that is below the best candidate's (`regret`), that of the task's own reward
(`hand`), and of what would be kept of chance alone (`chance`). True success is measured on fresh
episodes. What people wrote proves the machinery; it says nothing of what a model could do.

    python -m benchmarks.reward_code [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grid import load_cells, only, plain, run_grid
from benchmarks.harness import write_result
from benchmarks.learned import demonstrations, quiet_threads, train_policy
from benchmarks.reward_to_success import SETTINGS
from embodied.abstraction import abstraction
from embodied.build import make_env
from embodied.config import compose_config
from embodied.evidence import gather
from embodied.imitate import imitate
from embodied.reward_author import BlindAuthor, read_recording, spoken
from embodied.reward_check import Checked, Checker
from embodied.statistics import bootstrap

REPLIES = Path(__file__).parent / "replies"
STEPS = {
    "run_forward": 500_000, "run_backward": 300_000, "jump": 500_000, "stand_up": 800_000,
    "hop": 1_000_000, "spin": 300_000, "reach": 1_000_000, "open_drawer": 1_000_000,
    "push_cube": 2_000_000, "pick_cube": 2_500_000, "stack_cube": 1_500_000,
    "peg_insert": 1_500_000, "tidy_table": 1_500_000,
}  # fmt: skip
"""Of every training on a task."""
CLONED = ("stack_cube", "peg_insert", "tidy_table")
"""Tasks that are begun as a clone of 30 demonstrations: from nothing none learns them in time."""
CHANCE = 3
NEAR = 0.05
"""How far below the task's own reward still counts as equal."""


def cells() -> list[dict[str, Any]]:
    """The rewards of every task: its own, what people wrote, and what chance did."""
    out = []
    for task in STEPS:
        names = [f"authored_{k}" for k in range(len(read_recording(REPLIES / f"{task}.md")))]
        names += [f"chance_{k}" for k in range(CHANCE)]
        out += [{"task": task, "reward": name} for name in ("hand", *names)]
    return out


@cache
def candidates(task: str) -> dict[str, Checked]:
    """Every candidate of a task, checked."""
    env: Any = make_env(compose_config([f"env={task}"]), num_envs=4)
    about, evidence = abstraction(env), gather(env, steps=min(env.max_steps, 200))
    env.close()
    checker = Checker(about, evidence)
    replies = [reply for _, reply, _ in read_recording(REPLIES / f"{task}.md")]
    found = {f"authored_{k}": checker.check(spoken(reply)) for k, reply in enumerate(replies)}
    sound = []
    for number in range(20 * CHANCE):  # chance, too, is asked again where it is refused
        (reply,) = BlindAuthor(about, seed=number).write((), 0, 1)
        checked = checker.check(spoken(reply))
        if not checked.refused:
            sound.append(checked)
        if len(sound) == CHANCE:
            break
    checker.close()
    return found | {f"chance_{k}": checked for k, checked in enumerate(sound)}


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    quiet_threads()
    task, reward = cell["task"], cell["reward"]
    with tempfile.TemporaryDirectory() as folder:
        begin = [f"agent.start={_clone(task, seed)}", "agent.hidden=[128,128]", *SETTINGS]
        settings = begin if task in CLONED else []
        order = None
        if reward != "hand":
            checked = candidates(task)[reward]
            if checked.refused:
                return {"refused": checked.refused}
            about = abstraction(make_env(compose_config([f"env={task}"]), num_envs=1))
            path, order = checked.file(about, {}).save(f"{folder}/reward"), checked.order
            settings += ["reward_model=[reward_code]", f"reward_model.reward_code.path={path}"]
        run = train_policy(task, seed, STEPS[task], settings)
        return {"success": run["success"], "order": order, "curve": run["curve"]}


@cache
def _clone(task: str, seed: int) -> Path:
    """A clone of 30 demonstrations that all rewards of a task begin as."""
    folder = tempfile.mkdtemp()
    chosen = [f"env={task}", f"seed={seed}", "agent.steps=8000", "agent.activation=elu"]
    fixed = ["dataset=recorded", "video=false", "tensorboard=false", f"run_dir={folder}/clone"]
    path, _ = imitate(
        [*chosen, *fixed], dataset=demonstrations(task, seed, None, source="noisy:0.2")
    )
    return path


def told(rows: list[dict[str, Any]], task: str) -> dict[str, list[float]]:
    """What a search would have kept by each seed, judged by the others (or by that, if alone)."""
    success: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["cell"]["task"] == task and row["figures"].get("success") is not None:
            success.setdefault(row["cell"]["reward"], {})[row["seed"]] = row["figures"]["success"]
    hand = success.get("hand", {})
    out: dict[str, list[float]] = {"hand": list(hand.values())}
    for kind, name in (("authored", "kept"), ("chance", "chance")):
        pool = {k: v for k, v in success.items() if k.startswith(kind)}
        whole = set.intersection(*map(set, pool.values())) if pool else set()
        for seed in sorted(whole):  # those in which every candidate has been trained on
            known = {k: v[seed] for k, v in pool.items()}
            kept = max(known, key=lambda k: known[k])
            judged = {k: _others(v, seed) for k, v in pool.items()}
            out.setdefault(name, []).append(judged[kept])
            if kind == "authored":
                out.setdefault("regret", []).append(max(judged.values()) - judged[kept])
    return out


def _others(by_seed: Mapping[int, float], seed: int) -> float:
    others = [value for key, value in by_seed.items() if key != seed]
    return float(np.mean(others or [by_seed[seed]]))


def summed(plan: list[dict[str, Any]], seeds: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The table, how much of it is done, and on how many tasks what is kept is as good as hand."""
    rows = [row for row in load_cells("reward_code", settings) if row["seed"] < seeds]
    table: dict[str, Any] = {}
    near = 0
    for task in STEPS:
        found = {name: values for name, values in told(rows, task).items() if values}
        for name, values in found.items():
            low, high = bootstrap(values)
            row = {"mean": float(np.mean(values)), "low": low, "high": high, "seeds": len(values)}
            table.setdefault(task, {})[name] = plain(row)
        if "kept" in found and "hand" in found:
            near += np.mean(found["kept"]) >= np.mean(found["hand"]) - NEAR
    hours = round(sum(row["seconds"] for row in rows) / 3600, 2)
    done = {"done": len(rows), "planned": len(plan) * seeds, "hours": hours}
    judged = sum("kept" in row and "hand" in row for row in table.values())
    return {"cells": done, "table": table, "as_good_as_hand": int(near), "tasks": judged}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="tasks, rewards to run: the others later")
    parser.add_argument("--quick", action="store_true", help="one seed of one short task")
    args = parser.parse_args()
    settings = {"steps": STEPS, "cloned": CLONED, "agent": SETTINGS}
    plan = only(cells(), ["run_backward"] if args.quick else args.only or ())
    seeds = 1 if args.quick else args.seeds
    code = run_grid("reward_code", plan, run_cell, range(seeds), args.hours, settings)
    write_result("reward_code", summed(cells(), args.seeds, settings), {}, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
