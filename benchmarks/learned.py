"""What the benchmarks of learned rewards share: demonstrations, held-out episodes, training runs.

Demonstrations and held-out episodes never share a seed, and no flawed episode is ever fitted to.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodied.build import make_env, make_reward_model
from embodied.config import compose_config
from embodied.dataset import Dataset
from embodied.evaluate import run_episodes
from embodied.fit import DEMONSTRATOR
from embodied.judgement import judge
from embodied.progress_metrics import auroc
from embodied.record import record
from embodied.reward_model import Needs
from embodied.run import load_policy, open_run
from embodied.train import train

DEMONSTRATIONS = 30
SHOWN_BY = "noisy:0.2"
"""Who gives the demonstrations that rewards are fitted to: an expert who is disturbed, and so shows
more than the straight way."""
HELD_OUT = 1_000_000
"""Seeds of held-out episodes start here."""
AT_ONCE = 64
"""Worlds in which demonstrations are recorded; what they are does not depend on it."""
EVALUATED = 100
"""Fresh episodes that a trained policy is judged on."""


def make_model(env: str, name: str, seed: int, *overrides: str) -> Any:
    """An unfitted reward model of `env`, `overrides` being of its own keys (`input=pixels`)."""
    own = [f"reward_model.{name}.{text}" for text in overrides]
    cfg = compose_config([f"env={env}", f"seed={seed}", f"reward_model=[{name}]", *own])
    worlds = make_env(cfg, num_envs=1)
    model = make_reward_model(cfg, worlds, name)
    worlds.close()
    return model


def demonstrations(
    env: str, seed: int, model: Any, count: int = DEMONSTRATIONS, source: str = DEMONSTRATOR,
    overrides: Sequence[str] = (),
) -> Dataset:  # fmt: skip
    """Successful demonstrations of varying duration, with what `model` (None: nobody) sees.

    `overrides` are of their worlds. Of a `source` that may fail twice as many are recorded, and
    more, as are kept.
    """
    worlds: Any = make_env(compose_config([f"env={env}", *overrides]), num_envs=min(count, AT_ONCE))
    tried = count if source == DEMONSTRATOR else 2 * count + 4
    seeds = range(1000 * seed, 1000 * seed + tried)
    needs = Needs() if model is None else model.needs
    dataset = record(worlds, [source] * tried, seeds, needs.cameras, needs.image_size)
    worlds.close()
    return dataset.take(np.flatnonzero([e.success[-1] for e in dataset.episodes])[:count])


def held_out(
    env: str, seed: int, cameras: Sequence[str] = (), each: int = 8, sources: Sequence[str] = ()
) -> Dataset:
    """Episodes to judge a model on: twice `each` of the expert, `each` of every flaw and chance."""
    worlds: Any = make_env(compose_config([f"env={env}"]), num_envs=32)
    flaws = [f"expert:{flaw.name}" for flaw in worlds.task.flaws]
    played = [*(sources or ("expert", "expert", *flaws, "random"))] * each
    seeds = range(HELD_OUT + seed * 1000, HELD_OUT + seed * 1000 + len(played))
    dataset = record(worlds, played, seeds, cameras)
    worlds.close()
    return dataset


def train_policy(
    env: str, seed: int, steps: int, overrides: Sequence[str], judge_by: Any = None,
    when: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
) -> dict[str, Any]:  # fmt: skip
    """Train PPO and judge the greedy policy by the env's own truth on fresh episodes.

    Its curve, 40 points spread over the run: steps, seconds, true and judged success, and the
    return; with `judge_by`, the reward model, how well that tells good from bad in rollouts of
    this very policy (`policy_auroc`) after these shares of its training. The run is not kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        chosen = [f"env={env}", f"seed={seed}", f"total_steps={steps}", f"run_dir={folder}/run"]
        fixed = ["video=false", "tensorboard=false", "allow_unaudited=true"]
        kept = ["checkpoint_every_s=10", "keep_checkpoints=1000"]
        path = train([*chosen, *fixed, *kept, *overrides])
        rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        if rows[-1]["steps"] < steps:  # stopped by hand: the cell is not done, nor is the grid
            raise KeyboardInterrupt
        out = {"success": evaluate_run(path), "curve": curve(rows), "steps": rows[-1]["steps"]}
        return out | (judge_rollouts(path, judge_by, when) if judge_by is not None else {})


def judge_rollouts(
    path: Path, model: Any, when: Sequence[float], each: int = 24
) -> dict[str, float]:
    """How well a reward model judges the policy trained on it, after the shares `when` of its
    training: AUROC of final values, success as the model sees it and in truth.
    """
    checkpoints = sorted((path / "checkpoints").iterdir())
    chosen = [checkpoints[round(share * (len(checkpoints) - 1))] for share in when]
    cfg = open_run(path).cfg
    worlds: Any = make_env(cfg, num_envs=len(when) * each)
    policies = {str(one): load_policy(open_run(one), worlds) for one in chosen}
    sources = [str(one) for one in chosen for _ in range(each)]
    seeds = range(2 * HELD_OUT, 2 * HELD_OUT + len(sources))
    needs = model.needs
    dataset = record(
        worlds, sources, seeds, needs.cameras, needs.image_size or 64, policies=policies
    )
    worlds.close()
    truth = [bool(episode.success[-1]) for episode in dataset.episodes]
    final = [float(told.value[-1]) for told in judge(model, dataset.episodes)]
    return {
        "policy_auroc": auroc(final, truth),
        "rollouts_successful": float(np.mean(truth)),
        "rollouts_valued": float(np.mean(final)),
    }


def evaluate_run(path: Path, episodes: int = EVALUATED) -> float:
    """The greedy policy's share of true successes on fresh episodes."""
    run = open_run(path)
    worlds = make_env(run.cfg, num_envs=episodes)
    policy = load_policy(run, worlds)
    seeds = range(HELD_OUT, HELD_OUT + episodes)
    won = [row["success"] for row in run_episodes(worlds, policy, seeds)]
    worlds.close()
    return float(np.mean(won))


NAMES = {
    "steps": "steps",
    "seconds": "elapsed_s",
    "success": "episode/success",
    "length": "episode/length",
    "judged": "judge/success",
    "return": "episode/return",
    "correlation": "judge/correlation",
}


def curve(rows: list[dict[str, Any]], points: int = 40) -> dict[str, list[float | None]]:
    """A learning curve of `points` rows of a run's log, spread evenly over it."""
    chosen = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, points).astype(int))]
    return {name: [row.get(key) for row in chosen] for name, key in NAMES.items()}


def steps_to(curve: dict[str, list[Any]], success: float) -> float | None:
    """The steps after which finished episodes first succeeded that often, or None."""
    for steps, rate in zip(curve["steps"], curve["success"], strict=True):
        if rate is not None and rate >= success:
            return float(steps)
    return None


def quiet_threads() -> None:
    """Leave the cores to the physics, except where a fit asks for more."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
