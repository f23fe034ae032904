"""What `make demo` reaches and how long it takes, set-up excluded, over seeds.

    python -m benchmarks.demo [--pixels] [--quick]

With `--pixels` the reward is judged from one camera's images (`results/demo_pixels.json`). A demo
tells its success over 200 episodes, the same ones for every seed of its own; these and 800 more
are what counts here, off the clock. What is finished is written after every seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import summary, write_result

FIGURES = ("success", "clone", "minutes")
EPISODES = 1000
"""A hundredth of success is less than chance in the 200 of the demo itself."""


def run(seed: int, folder: str, overrides: list[str]) -> dict[str, Any]:
    """One `embodied demo` in a process of its own: its figures and its log."""
    path = f"{folder}/demo_{seed}"
    command = [sys.executable, "-m", "embodied", "demo", f"seed={seed}", f"run_dir={path}"]
    done = subprocess.run([*command, *overrides], stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    with open(f"{path}/log.jsonl") as file:
        last = json.loads(file.read().splitlines()[-1])
    audit = json.loads(Path(f"{path}/reward/audit.json").read_text())
    return figures | {
        "seed": seed,
        "success": success(path),
        "success_of_200": figures["success"],
        "steps": last["steps"],
        "train_s": last["elapsed_s"],
        "judge": {key: last.get(f"judge/{key}") for key in ("success", "true_success", "gap")},
        "weakness": audit["weakness"],
    }


def success(path: str) -> float:
    """The true success of a run's policy over `EPISODES` episodes."""
    command = [sys.executable, "-m", "embodied", "eval", path, f"episodes={EPISODES}"]
    subprocess.run([*command, "num_envs=100"], stdout=subprocess.DEVNULL, check=True)
    rows = [json.loads(line) for line in Path(f"{path}/eval.jsonl").read_text().splitlines()]
    assert len(rows) == EPISODES
    return sum(row["success"] for row in rows) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", action="store_true", help="judge by one camera's images")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--out", type=Path, help="write the result here, quick or not")
    args = parser.parse_args()
    name = "demo_pixels" if args.pixels else "demo"
    overrides = ["reward_model.stage_aware.input=pixels"] if args.pixels else []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1 if args.quick else 3):
            rows.append(run(seed, folder, overrides))
            figures = {key: summary([row[key] for row in rows]) for key in FIGURES}
            write_result(name, figures, {"seeds": rows}, args.quick, args.out)


if __name__ == "__main__":
    main()
