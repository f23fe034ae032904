"""How much room every task needs on a GPU: contacts of a world on average, constraints at most.

Worlds are played by the expert, by each of its flaws and by chance; `conf/env/NAME.yaml` gives
twice what was needed. Room that is never used costs memory and time, and a world that lacks it is
a fault.

    python -m benchmarks.room [--quick] [--task NAME ...]     (what is known of others is kept)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.harness import RESULTS, write_result
from embodied.build import make_env
from embodied.config import CONF, compose_config, options

TASKS = [name for name in options("env") if "task" in OmegaConf.load(CONF / f"env/{name}.yaml")]
AMPLE = ["sim=warp", "sim.contacts=128", "sim.constraints=512"]


def measure(name: str, each: int, steps: int) -> dict[str, float]:
    """The most that was needed in any step: contacts of a world on average, constraints of one."""
    flaws = make_env(compose_config([f"env={name}"]), num_envs=1).task.flaws  # type: ignore[attr-defined]
    players = [None, *(flaw.name for flaw in flaws)] if flaws else []
    worlds = each * (len(players) + 1)
    env: Any = make_env(compose_config([f"env={name}", *AMPLE]), num_envs=worlds)
    spec, rng = env.action_spec, np.random.default_rng(0)
    obs_steps = min(steps, env.max_steps)
    contacts = constraints = 0.0
    env.reset(seed=0)
    for _ in range(obs_steps):
        action = rng.uniform(spec.low, spec.high, (worlds, spec.size)).astype(np.float32)
        for k, player in enumerate(players):
            rows = slice(k * each, (k + 1) * each)
            action[rows] = env.expert(player)[rows]
        step = env.step(action)
        if step.fault.any():
            raise RuntimeError(f"{name}: a world broke, with room to spare")
        needed = env.sim.needed()
        contacts, constraints = max(contacts, needed[0] / worlds), max(constraints, needed[1])
        if step.done.any():
            env.reset(step.done)
    return {"contacts": contacts, "constraints": float(constraints)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--task", nargs="+", default=TASKS)
    parser.add_argument("--out", type=Path, help="write the result here, quick or not")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "room.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    for name in args.task:
        figures[name] = measure(name, *((1, 20) if args.quick else (2, 150)))
        print(name, figures[name], flush=True)
    write_result("room", figures, {"players": "expert, flaws, random"}, args.quick, args.out)


if __name__ == "__main__":
    main()
