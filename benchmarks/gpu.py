"""The GPU backend against bare `mujoco_warp`: env steps a second, PPO end to end, time to success.

    python -m benchmarks.gpu [--quick] [--device cpu] [--worlds N]

`env_vs_raw`: steps of the whole env (act, step, observe, reward, reset) against launches of
nothing but the physics of the same model in as many worlds, by turns. `ppo_vs_raw`: PPO with its
updates against the same. `seconds_to_95`: from the first step to 95% success of the last 4,096
episodes of `pick_cube`. `vs_mjlab`: simulated seconds a second against mjlab's own cube lifting,
which runs in a virtual environment of its own (`MJLAB_PYTHON` takes one that has it). It needs a
GPU; `--device cpu --quick` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import interleave, ratio, summary, write_result
from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.config import compose_config
from embodied.train import train

TASK = "pick_cube"
FAST = ["agent.rollout_steps=24", "agent.minibatches=8", "agent.epochs=4", "agent.lr=1e-3"]
GOAL = 0.95
MJLAB = "mjlab==1.6.0"
STEP_S = 0.05
"""Of `pick_cube`: what an env step of ours simulates."""


class Idle:
    """A policy that costs nothing."""

    def __init__(self, env: Any) -> None:
        self.keys = tuple(env.observation_space.spaces)
        shape = (env.num_worlds, env.action_spec.size)
        self.action = torch.zeros(shape, device=env.sim.device)
        self.action_spec = env.action_spec

    def carry(self, num_worlds: int) -> dict[str, Any]:
        return {}

    def decide(self, x: torch.Tensor) -> torch.Tensor:
        return self.action


def rates(worlds: int, device: str, rollouts: int) -> dict[str, Callable[[], float]]:
    """Env steps a second of each contestant, as functions."""
    place = [f"env={TASK}", "sim=warp", f"num_envs={worlds}", f"device={device}"]
    cfg = compose_config([*place, *FAST])
    env: Any = make_env(cfg)
    agent: Any = make_agent(cfg, env)
    rewards = make_rewards(cfg, env, agent.gamma)
    idle, steps = Idle(env), agent.rollout_steps

    def timed(work: Callable[[], None]) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(rollouts):
            work()
        _wait(device)
        return rollouts * steps * worlds / (time.perf_counter() - start)

    def raw() -> None:
        control = env.sim._ctrl.clone()
        for _ in range(steps):
            env.sim.step(control, env.substeps)

    collectors = [make_collector(cfg, env, agent, rewards) for _ in range(2)]

    def whole() -> None:
        collectors[0].collect(idle, steps)

    def ppo() -> None:
        agent.update(collectors[1].collect(agent.policy, steps))

    for work in (raw, whole, ppo):
        for _ in range(2):
            work()  # compiles, and captures
    return {name: lambda w=w: timed(w) for name, w in (("raw", raw), ("env", whole), ("ppo", ppo))}


def seconds_to_goal(worlds: int, device: str, steps: int) -> float | None:
    """Of training, until the last episodes succeeded so often."""
    with tempfile.TemporaryDirectory() as folder:
        path = train([
            f"env={TASK}", "sim=warp", f"device={device}", f"num_envs={worlds}", *FAST,
            f"total_steps={steps}", f"stop_at_success={GOAL}", f"stop_window={worlds}",
            "tensorboard=false", "video=false", f"run_dir={folder}/run",
        ])  # fmt: skip
        last = json.loads((path / "log.jsonl").read_text().splitlines()[-1])
    reached = last.get("episode/success", 0.0) >= GOAL - 0.05 and last["steps"] < steps
    return float(last["elapsed_s"]) if reached else None


def mjlab_rate(folder: str, worlds: int, device: str, steps: int) -> dict[str, float]:
    """What mjlab reaches, from a process of its own."""
    python = os.environ.get("MJLAB_PYTHON") or f"{folder}/mjlab/bin/python"
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/mjlab"], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", MJLAB]
        subprocess.run(install, check=True)
    script = str(Path(__file__).with_name("mjlab_steps.py"))
    command = [python, script, str(worlds), device, str(steps)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.strip().splitlines()[-1])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few worlds and steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--worlds", type=int, default=4096)
    parser.add_argument("--out", type=Path, help="write the result here, quick or not")
    args = parser.parse_args()
    worlds = min(args.worlds, 8) if args.quick else args.worlds
    contestants = rates(worlds, args.device, 1 if args.quick else 10)
    measured = interleave(contestants, 2 if args.quick else 5)
    figures: dict[str, Any] = {
        "env_vs_raw": ratio(measured["env"], measured["raw"]),
        "ppo_vs_raw": ratio(measured["ppo"], measured["raw"]),
    }
    if not args.quick:
        figures["seconds_to_95"] = seconds_to_goal(worlds, args.device, 60_000_000)
        with tempfile.TemporaryDirectory() as folder:
            peer = [mjlab_rate(folder, worlds, args.device, 200) for _ in measured["env"]]
        ours = [STEP_S * rate for rate in measured["env"]]
        figures["vs_mjlab"] = ratio(ours, [row["simulated_per_s"] for row in peer])
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    detail = {"steps_per_s": {k: summary(v) for k, v in measured.items()}, "worlds": worlds}
    write_result("gpu", figures, detail | {"gpu": gpu}, args.quick, args.out)


if __name__ == "__main__":
    main()
