"""Rewards for the turns of a small language agent, against the outcome alone, at equal episodes.

A small transformer from scratch reads talks in which nothing is meant, learns from 60
demonstrations, and goes on by GiGPO on 500 tasks, writing free text without a list of commands.
Every reward begins with the same model of its seed. Measured: success of rollouts over training,
episodes until 90% of the last 256 succeeded, and at the end greedy success on 200 tasks that were
never seen, and on 100 of the next size.

    python -m benchmarks.turn_rewards [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.grid import only, report, run_grid
from embodied.babble import Babbler, wordings
from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.config import compose_config
from embodied.conversations import Conversation, converse, experts, write_conversations
from embodied.imitate import imitate
from embodied.text_env import TextEnv

DEMONSTRATIONS, BABBLE, TASKS, UNSEEN, LARGER = 60, 500, 500, 200, 100
WORLDS = {
    "textworld": {
        "size": ["env.rooms=2", "env.objects=3", "env.quest_length=4"],
        "larger": ["env.rooms=3", "env.objects=4", "env.quest_length=5"],
    },
    "household": {
        "size": ["env.places=8", "env.objects=8"],
        "larger": ["env.places=12", "env.objects=12"],
    },
}
MAX_STEPS = {"textworld": 10, "household": 16}
EPISODES = {"textworld": 9_600, "household": 9_600}
"""Of every training."""
TINY = [
    "agent.width=64", "agent.layers=3", "agent.heads=4", "agent.vocabulary=3000",
    "agent.context=768", "agent.max_tokens=16", "agent.lr=3e-3", "agent.reading=0.2",
    "agent.read_steps=800", "agent.steps=600", "agent.rename=0.9",
]  # fmt: skip
LEARNER = [
    "num_envs=64", "env.group=8", "agent=gigpo", "agent.max_tokens=16", "agent.context=768",
    "agent.lr=2e-4", "agent.epochs=2", "agent.minibatches=4",
]  # fmt: skip
TURNS = ["agent.baseline=group", "agent.step_gamma=0.0", "agent.weight=0.5"]
REWARDS: dict[str, list[str]] = {
    "outcome": ["reward_model=[outcome]", "agent.weight=0.0"],
    "gigpo": ["reward_model=[outcome]"],
    **{
        name: [f"reward_model=[outcome,{name}]", f"agent.process=[{name}]", *TURNS]
        for name in (
            "verified_turn", "implicit_process", "stepwise_progress", "milestones",
        )
    },
    "prime": [
        "reward_model=[outcome,implicit_process]", "reward_model.implicit_process.mode=prime",
        "agent.process=[implicit_process]", *TURNS,
    ],
    "ungated": ["reward_model=[outcome,verified_turn]", "agent.weight=0.0"],
    "gated": ["reward_model=[outcome,verified_turn,gated]", "agent.weight=0.0"],
}  # fmt: skip


def cells() -> list[dict[str, Any]]:
    return [{"world": world, "reward": reward} for world in WORLDS for reward in REWARDS]


def worlds(world: str, count: int, *overrides: str, first: int = 0, tasks: int = TASKS) -> TextEnv:
    size = WORLDS[world]["size"]
    given = [f"env={world}", *size, "env.workers=1", f"env.max_steps={MAX_STEPS[world]}"]
    span = [f"env.first_task={first}", f"env.tasks={tasks}", f"num_envs={count}"]
    env: Any = make_env(compose_config([*given, *span, *overrides]))
    return env


@cache
def begun(world: str, seed: int) -> Path:
    """What every reward begins with: a small model that has read, and was shown 60 tasks."""
    folder = Path(tempfile.mkdtemp())
    env = worlds(world, 20)
    shown = experts(env, DEMONSTRATIONS, seed=seed * DEMONSTRATIONS)
    said = converse(env, Babbler(wordings(shown), seed), range(BABBLE), "babble")
    env.close()
    write_conversations(folder / "babble.jsonl", said)
    plain = [f"env={world}", f"seed={seed}", "agent=sft", *TINY, "tensorboard=false", "video=false"]
    where = [f"agent.read={folder}/babble.jsonl", "dataset=shown", f"run_dir={folder}/sft"]
    return imitate([*plain, *where], dataset=shown)[0]


def run_cell(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    world, reward = cell["world"], cell["reward"]
    given = [
        f"env={world}", *WORLDS[world]["size"], "env.workers=1", f"seed={seed}",
        f"env.max_steps={MAX_STEPS[world]}", f"env.tasks={TASKS}", *LEARNER,
        f"agent.start={begun(world, seed)}", *REWARDS[reward],
    ]  # fmt: skip
    cfg = compose_config(given)
    env, episodes = make_env(cfg), EPISODES[world]
    agent: Any = make_agent(cfg, env)
    rewards = make_rewards(cfg, env, agent.gamma, agent)
    collector = make_collector(cfg, env, agent, rewards)
    curve: dict[str, list[float]] = {"episodes": [], "success": [], "paid": [], "length": []}
    while len(curve["success"]) * env.num_worlds < episodes:
        traj = collector.collect(agent.policy, None)
        agent.update(traj)
        rewards.learn(traj)
        told = collector.episodes.drain()
        curve["episodes"].append(env.num_worlds * (len(curve["episodes"]) + 1.0))
        curve["success"].append(float(told["success"].mean()))
        curve["length"].append(float(told["length"].mean()))
        curve["paid"].append(float(traj.reward.sum(0).mean()))
    env.close()
    return {"curve": curve, **figures(curve), **judged(world, agent.policy)}


def figures(curve: Mapping[str, list[float]], window: int = 4) -> dict[str, float | None]:
    """Episodes until 90% of the last 256 succeeded, and how many of the last did."""
    smooth = np.convolve(curve["success"], np.ones(window) / window, "valid")
    reached = np.flatnonzero(smooth >= 0.9)
    first = curve["episodes"][int(reached[0]) + window - 1] if len(reached) else None
    return {"to_90": first, "in_training": float(smooth[-1]), "before": curve["success"][0]}


def judged(world: str, policy: Any) -> dict[str, float]:
    """Greedy success on tasks that were never seen, of this size and of the next."""

    def share(env: TextEnv, count: int) -> float:
        told: list[Conversation] = converse(env, policy, range(count), "judged")
        env.close()
        return float(np.mean([one.success for one in told]))

    longer = f"env.max_steps={MAX_STEPS[world] + 4}"
    same = worlds(world, 50, first=TASKS, tasks=UNSEEN)
    larger = worlds(world, 50, *WORLDS[world]["larger"], longer, tasks=LARGER)
    return {"unseen": share(same, UNSEEN), "larger": share(larger, LARGER)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="worlds, rewards to run: the others later")
    parser.add_argument("--quick", action="store_true", help="a few episodes of one reward")
    args = parser.parse_args()
    if args.quick:
        EPISODES.update(household=128)
        TINY.extend(["agent.read_steps=20", "agent.steps=20"])
    settings = {
        "worlds": WORLDS, "max_steps": MAX_STEPS, "episodes": EPISODES, "tiny": TINY,
        "learner": LEARNER, "rewards": REWARDS,
    }  # fmt: skip
    chosen = ["household", "outcome"] if args.quick else args.only or ()
    seeds = 1 if args.quick else args.seeds
    code = run_grid(
        "turn_rewards", only(cells(), chosen), run_cell, range(seeds), args.hours, settings
    )
    shown = ("before", "in_training", "unseen", "larger", "to_90")
    report("turn_rewards", cells(), args.seeds, settings, ["world", "reward"], shown, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
