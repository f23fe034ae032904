"""What `make demo` reaches and how long it takes, set-up excluded, over seeds.

python -m benchmarks.demo [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.harness import parse_args, summary, write_result


def run(seed: int, folder: str) -> dict[str, Any]:
    """One `embodied demo` in a process of its own: its figures and its log."""
    path = f"{folder}/demo_{seed}"
    command = [sys.executable, "-m", "embodied", "demo", f"seed={seed}", f"run_dir={path}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    with open(f"{path}/log.jsonl") as file:
        last = json.loads(file.read().splitlines()[-1])
    return figures | {"seed": seed, "steps": last["steps"], "train_s": last["elapsed_s"]}


def main() -> None:
    args = parse_args(__doc__)
    seeds = range(1) if args.quick else range(3)
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(seed, folder) for seed in seeds]
    names = ("success", "clone", "minutes")
    figures = {name: summary([row[name] for row in rows]) for name in names}
    write_result("demo", figures, {"seeds": rows}, args.quick, args.out)


if __name__ == "__main__":
    main()
