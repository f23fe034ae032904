"""Rewards for the turns of a small language agent, against the outcome alone, at equal episodes.

A small transformer from scratch reads talks in which nothing is meant, learns from 60
demonstrations, and goes on by GiGPO on 500 tasks, writing free text without a list of commands.
Every reward begins with the same model of its seed. Measured: success of rollouts over training
(its mean, the last 512 episodes, the episodes until 90% of 256 succeeded), and at the end greedy
success on 200 tasks that were never seen, and on 100 of the next size.

    python -m benchmarks.turn_rewards [--hours H] [--seeds N] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from benchmarks.grid import load_cells, only, plain, run_grid, summarise
from embodied.babble import Babbler, wordings
from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.config import compose_config
from embodied.conversations import Conversation, converse, experts, write_conversations
from embodied.imitate import imitate
from embodied.statistics import bootstrap
from embodied.text_env import TextEnv

COUNTS = {"demonstrations": 60, "babble": 1500, "tasks": 500, "unseen": 200, "larger": 100}
WORLDS: dict[str, dict[str, Any]] = {
    "textworld": {
        "size": ["env.rooms=2", "env.objects=3", "env.quest_length=4", "env.theme=basic"],
        "larger": ["env.rooms=3", "env.objects=4", "env.quest_length=5", "env.theme=basic"],
        "max_steps": 10,
        "episodes": 4_800,
        "begin": [
            "agent.vocabulary=500", "agent.read_steps=2000", "agent.steps=350", "agent.rename=0.95",
        ],
    },
    "peckingorder": {
        "env": "textworld_express",
        "size": ["env.game=peckingorder"],  # it has no other
        "max_steps": 14,
        "episodes": 4_800,
        "begin": [
            "agent.vocabulary=500", "agent.read_steps=600", "agent.steps=60", "agent.rename=0.95",
            "agent.articles=false", "agent.cooldown=0.5",
        ],
        "until": 0.05,
        "again": ["agent.steps=20", "agent.lr=2e-3"],
    },
}  # fmt: skip
"""What is trained on, and what is not: tasks of another size (`larger`), where there are any. What
`begin` says is of the first model; where there is `until`, it is shown its demonstrations `again`
until this share of 200 tasks succeeds."""
TINY = [
    "agent.width=64", "agent.layers=3", "agent.heads=4", "agent.context=768", "agent.max_tokens=16",
    "agent.lr=3e-3", "agent.reading=0.2",
]  # fmt: skip
LEARNER = [
    "num_envs=64", "env.group=4", "env.workers=1", "agent=gigpo", "agent.max_tokens=16",
    "agent.context=768", "agent.lr=5e-4", "agent.anneal=true", "agent.negative=0.0",
]  # fmt: skip
TURNS = ["agent.baseline=group", "agent.step_gamma=0.0", "agent.weight=2.0"]
LEARNED = [*TURNS, "agent.scale=false", "agent.weight=8.0"]
"""As little as a reward says at first, so little it counts."""
TO_GO = ["agent.baseline=turn", "agent.step_gamma=1.0", "agent.scale=false", "agent.weight=2.0"]
"""A turn is credited with what is still to come: an outcome that is shared out in advance."""
EXPLORE = ["explore=512", "lr=1e-3", "head_lr=3e-3"]
FASTER = "agent.lr=1e-3"
"""The outcome and verified turns are run at both rates: what tells more bears larger steps."""
RETURN = ["agent.weight=0.0"]  # the sum of all that an episode was paid
VALID = ["alpha=0.0", "beta=0.5"]
ADDED_UP = ["agent.baseline=turn", "agent.step_gamma=1.0", "agent.weight=4.0"]


def of_turns(name: str, *settings: str, how: Sequence[str] = TURNS) -> list[str]:
    """The outcome of episodes, and beside it a reward of turns."""
    given = [f"reward_model.{name}.{setting}" for setting in settings]
    return [f"reward_model=[outcome,{name}]", f"agent.process=[{name}]", *how, *given]


PATIENCE, MOST_TURNS, READ_ON = 20, 60, "agent.read_steps=200"
"""How often demonstrations are shown again before more is read, too, and how often in all."""
REWARDS: dict[str, list[str]] = {
    "outcome": ["reward_model=[outcome]", *RETURN],
    "outcome_faster": ["reward_model=[outcome]", *RETURN, FASTER],
    "verified_turn": [*of_turns("verified_turn"), FASTER],
    "verified_slower": of_turns("verified_turn"),
    "milestones": of_turns("milestones", *EXPLORE, how=LEARNED),
    "information_gain": of_turns("information_gain", "lead=''"),
    "istar": of_turns("implicit_process", how=LEARNED),
    "prime": of_turns("implicit_process", "mode=prime", how=LEARNED),
    "stepwise_progress": of_turns("stepwise_progress", "beta=0.0", *EXPLORE, how=TO_GO),
    "gigpo": ["reward_model=[outcome]"],
    "ungated": of_turns("stepwise_progress", *VALID, how=ADDED_UP),
    "gated": [
        "reward_model=[outcome,env,stepwise_progress,gated]", "agent.process=[gated]", *ADDED_UP,
        "reward_model.env.readout=success", "reward_model.gated.weights=[0,1]",
        "reward_model.gated.over=[env,stepwise_progress]",
        *(f"reward_model.stepwise_progress.{setting}" for setting in VALID),
    ],
}  # fmt: skip
"""To one point for the outcome `ungated` adds half a point for every turn that could be done, and
`gated` for those of episodes that succeed; a turn is credited with all that follow."""
AS_LATE = ["agent.baseline=turn", "agent.step_gamma=0.9", "agent.weight=1.0"]
OWN: dict[str, dict[str, list[str]]] = {
    "peckingorder": {"verified_turn": AS_LATE, "verified_slower": AS_LATE},
}
"""A reward's own settings in a world."""
LAST = 8
"""Rollouts, of 64 episodes, that say how well it goes at first and at the end."""
FIGURES = (
    "before", "over_training", "in_training", "reached_90", "thousands_to_90",
    "thousands_to_outcome", "unseen", "larger", "first", "paid_first", "paid_last",
)  # fmt: skip


def cells(world: str) -> list[dict[str, Any]]:
    own = OWN.get(world, {})
    return [
        {"reward": reward, "given": [*given, *own.get(reward, ())]}
        for reward, given in REWARDS.items()
    ]


def worlds(
    world: str, count: int, *overrides: str, first: int = 0, tasks: int | None = None
) -> TextEnv:
    tasks = tasks or COUNTS["tasks"]
    given = [
        f"env={name_in(world)}",
        *WORLDS[world]["size"],
        "env.workers=1",
        f"env.max_steps={limit(world)}",
    ]
    span = [f"env.first_task={first}", f"env.tasks={tasks}", f"num_envs={count}"]
    env: Any = make_env(compose_config([*given, *span, *overrides]))
    return env


def name_in(world: str) -> str:
    """The world's name in `conf/env`."""
    return str(WORLDS[world].get("env", world))


def limit(world: str) -> int:
    return int(WORLDS[world]["max_steps"])


def begun(world: str, seed: int) -> Path:
    """What every reward begins with: a small model that has read, and was shown 60 tasks.

    It is kept until the machine forgets its temporary files.
    """
    made_of = json.dumps([world, WORLDS[world], TINY, COUNTS, seed])
    name = f"embodied-begun-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    kept = Path(tempfile.gettempdir(), name)
    if not kept.exists():
        folder = Path(tempfile.mkdtemp(prefix=name, dir=kept.parent))
        env, count = worlds(world, 20), COUNTS["demonstrations"]
        shown = experts(env, range(seed * count, (seed + 1) * count))
        articles = "agent.articles=false" not in WORLDS[world]["begin"]
        babbler = Babbler(wordings(shown, articles), seed, articles)
        said = converse(env, babbler, range(COUNTS["babble"]), "babble")
        env.close()
        write_conversations(folder / "babble.jsonl", said)
        taught(world, seed, shown, folder)
        try:
            os.rename(folder, kept)
        except OSError:  # another process was faster
            shutil.rmtree(folder)
    return kept / "sft"


def taught(world: str, seed: int, shown: list[Conversation], folder: Path) -> None:
    """A model that has read what is in the folder and was shown demonstrations, as `folder/sft`."""
    how = [f"env={name_in(world)}", "agent=sft", *TINY, *WORLDS[world]["begin"], "dataset=shown"]
    run = [f"run_dir={folder}/now", "tensorboard=false", "video=false"]
    last, level = folder / "sft", WORLDS[world].get("until", 0.0)
    imitate([*how, *run, f"seed={seed}", f"agent.read={folder}/babble.jsonl"], dataset=shown)
    os.rename(folder / "now", last)
    for turn in range(1, MOST_TURNS):
        if not level or at_random(world, last) >= level:
            break
        anew = [f"seed={seed + 1000 * turn}", f"agent.start={last}", *WORLDS[world]["again"]]
        if turn > PATIENCE:  # it cannot say yet what it was told
            anew += [f"agent.read={folder}/babble.jsonl", READ_ON]
        imitate([*how, *run, *anew], dataset=shown)
        shutil.rmtree(last)
        os.rename(folder / "now", last)


def at_random(world: str, start: Path) -> float:
    """Success on 200 tasks of a model that says what it draws, as rollouts do."""
    env = worlds(world, 50)
    given = [f"env={name_in(world)}", *LEARNER, f"agent.start={start}"]
    agent: Any = make_agent(compose_config(given), env)
    told = converse(env, agent.policy, range(200), "judged", greedy=False)
    env.close()
    return float(np.mean([one.success for one in told]))


def run_cell(world: str, cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    given = [
        f"env={name_in(world)}", *WORLDS[world]["size"], f"env.max_steps={limit(world)}",
        f"seed={seed}", f"env.tasks={COUNTS['tasks']}", *LEARNER,
        f"agent.start={begun(world, seed)}", *cell["given"],
    ]  # fmt: skip
    cfg = compose_config(given)
    env = make_env(cfg)
    agent: Any = make_agent(cfg, env)
    rewards = make_rewards(cfg, env, agent.gamma, agent)
    collector = make_collector(cfg, env, agent, rewards)
    curve: dict[str, list[float]] = {"episodes": [], "success": [], "paid": [], "length": []}
    while (done := len(curve["success"]) * env.num_worlds) < WORLDS[world]["episodes"]:
        agent.progress = done / WORLDS[world]["episodes"]
        traj = collector.collect(agent.policy, None)
        agent.update(traj)
        rewards.learn(traj)
        told = collector.episodes.drain()
        curve["episodes"].append(env.num_worlds * (len(curve["episodes"]) + 1.0))
        curve["success"].append(round(float(told["success"].mean()), 4))
        curve["length"].append(round(float(told["length"].mean()), 3))
        curve["paid"].append(round(float(traj.reward.sum(0).mean()), 4))
    env.close()
    return {"curve": curve, **figures(curve), **judged(world, agent.policy)}


def figures(curve: Mapping[str, list[float]]) -> dict[str, float]:
    """Of success over training; what never reaches 90% counts as if the last episode did."""
    success, first = curve["success"], reached(curve, 0.9, 4)
    return {
        "before": success[0],
        "over_training": float(np.mean(success)),
        "in_training": float(np.mean(success[-LAST:])),
        "first": float(np.mean(success[:LAST])),
        "paid_first": float(np.mean(curve["paid"][:LAST])),
        "paid_last": float(np.mean(curve["paid"][-LAST:])),
        "reached_90": float(first is not None),
        "to_90": first or curve["episodes"][-1],
    }


def reached(curve: Mapping[str, list[float]], level: float, rollouts: int) -> float | None:
    """The episodes until so many rollouts in a row have this success, None where they never do."""
    if len(curve["success"]) < rollouts:
        return None
    smooth = np.convolve(curve["success"], np.ones(rollouts) / rollouts, "valid")
    found = np.flatnonzero(smooth >= level - 1e-9)
    return curve["episodes"][int(found[0]) + rollouts - 1] if len(found) else None


def judged(world: str, policy: Any) -> dict[str, float]:
    """Greedy success on tasks that were never seen, of this size and of the next."""

    def share(env: TextEnv, count: int) -> float:
        told: list[Conversation] = converse(env, policy, range(count), "judged")
        env.close()
        return float(np.mean([one.success for one in told]))

    unseen, more = COUNTS["unseen"], COUNTS["larger"]
    found = {"unseen": share(worlds(world, 50, first=COUNTS["tasks"], tasks=unseen), unseen)}
    if "larger" in WORLDS[world]:
        longer = f"env.max_steps={limit(world) + 4}"
        env = worlds(world, 50, *WORLDS[world]["larger"], longer, tasks=more)
        found["larger"] = share(env, more)
    return found


def against(rows: list[dict[str, Any]], figure: str) -> dict[str, dict[str, float]]:
    """By how much each reward is above the outcome alone, seed by seed: mean and interval."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["cell"]["reward"], {})[row["seed"]] = row["figures"][figure]
    alone, out = found.pop("outcome", {}), {}
    for reward, values in found.items():
        apart = [value - alone[seed] for seed, value in values.items() if seed in alone]
        if len(apart) > 1:
            low, high = bootstrap(apart)
            out[reward] = {"mean": float(np.mean(apart)), "low": low, "high": high}
    return out


def summary(world: str, seeds: int, folder: Path | None = None) -> dict[str, Any]:
    plan, known = cells(world), load_cells(name_of(world), settings(world), folder)
    rows = [row for row in known if row["cell"] in plan]
    for row in rows:
        row["figures"] |= figures(row["figures"]["curve"])
        row["figures"]["thousands_to_90"] = row["figures"]["to_90"] / 1000.0
    ends = {
        row["seed"]: row["figures"]["in_training"]
        for row in rows
        if row["cell"]["reward"] == "outcome"
    }
    for row in rows:
        curve = row["figures"]["curve"]
        first = reached(curve, ends.get(row["seed"], 1.0), LAST) or curve["episodes"][-1]
        row["figures"]["thousands_to_outcome"] = first / 1000.0
    table: dict[str, dict[str, Any]] = {}
    for figure in [name for name in FIGURES if all(name in row["figures"] for row in rows)]:
        for (reward,), found in summarise(rows, ["reward"], figure).items():
            table.setdefault(str(reward), {})[figure] = plain(found)
    above = {figure: against(rows, figure) for figure in ("over_training", "unseen")}
    hours = round(sum(row["seconds"] for row in rows) / 3600, 2)
    done = {"done": len(rows), "planned": len(plan) * seeds, "hours": hours}
    return {"cells": done, "table": table, "above_outcome": above}


def name_of(world: str) -> str:
    return f"turn_rewards_{world}"


def settings(world: str) -> dict[str, Any]:
    """What all cells of a world share: with other settings they are run anew."""
    counts = list(COUNTS.values())
    return {"world": WORLDS[world], "tiny": TINY, "learner": LEARNER, "counts": counts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0, help="no cell is begun after these")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="worlds, rewards to run: the others later")
    parser.add_argument("--quick", action="store_true", help="a few episodes of one reward")
    args = parser.parse_args()
    named = ["outcome", "textworld"] if args.quick else list(args.only or ())
    if args.quick:
        WORLDS["textworld"].update(episodes=128, begin=["agent.read_steps=20", "agent.steps=20"])
        COUNTS.update(demonstrations=10, babble=20, tasks=20, unseen=10, larger=5)
    code, kept = 0, Path(tempfile.mkdtemp()) if args.quick else None
    for world in [w for w in WORLDS if w in named] or WORLDS:
        plan = only(cells(world), named)
        seeds = range(1 if args.quick else args.seeds)
        code |= run_grid(
            name_of(world), plan, lambda cell, seed, world=world: run_cell(world, cell, seed),  # type: ignore[misc]
            seeds, args.hours, settings(world), kept,
        )  # fmt: skip
        found = summary(world, args.seeds, kept)
        if found["cells"]["done"] or args.quick:
            harness.write_result(name_of(world), found, {}, args.quick)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
