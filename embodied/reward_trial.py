"""Training on one piece of reward code for a while, to see what it is worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied.abstraction import Abstraction
from embodied.build import make_env
from embodied.env import TaskEnv
from embodied.evaluate import run_episodes
from embodied.evidence import play
from embodied.failures import failures
from embodied.run import load_policy, open_run
from embodied.train import train

JUDGED_FROM = 50_000
"""First seed of the episodes that trained policies are judged on; nothing is trained on them."""
WATCHED = 24
"""Episodes that are looked at for what goes wrong."""


@dataclass(frozen=True)
class Trial:
    """What came of a training: true success at its end over fresh `episodes`, how that and every
    term of the reward went on the way, and what the policy does."""

    success: float
    episodes: int
    curve: tuple[float, ...] = ()
    terms: dict[str, list[float]] = field(default_factory=dict)
    failures: str = ""
    run: str = ""


def trial(
    folder: Path,
    run_dir: Path,
    about: Abstraction,
    overrides: Sequence[str],
    steps: int,
    seed: int,
    episodes: int,
    video: bool = False,
    model: str = "reward_code",
) -> Trial:
    """Train for `steps` on the reward in `folder`, and judge the policy by the truth.

    `model` is what makes a reward of the code there: reward_code, or lare. Raises
    `KeyboardInterrupt` where the training was stopped by hand.
    """
    own = [f"reward_model=[{model}]", f"reward_model.{model}.path={folder}"]
    fixed = ["tensorboard=false", f"video={str(video).lower()}", "allow_unaudited=true"]
    chosen = [f"total_steps={steps}", f"seed={seed}", f"run_dir={run_dir}"]
    path = train([*overrides, *own, *fixed, *chosen])
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    if rows[-1]["steps"] < steps:
        raise KeyboardInterrupt
    curve = [row["episode/success"] for row in rows if row.get("episode/success") is not None]
    part = f"part/{model}/"
    names = [name for name in rows[-1] if name.startswith(part)]
    terms = {n.removeprefix(part): [row[n] for row in rows if n in row] for n in names}
    success, said = judged(path, about, episodes)
    return Trial(success, episodes, tuple(curve), terms, said, str(path))


def judged(path: Path, about: Abstraction, episodes: int) -> tuple[float, str]:
    """The greedy policy's share of true successes, and in words what it does."""
    run = open_run(path)
    worlds = make_env(run.cfg, num_envs=min(episodes, 128))
    policy = load_policy(run, worlds)
    seeds = range(JUDGED_FROM, JUDGED_FROM + episodes)
    rows = run_episodes(worlds, policy, seeds)
    worlds.close()
    env: Any = make_env(run.cfg, num_envs=WATCHED)
    assert isinstance(env, TaskEnv)
    seen = play(env, ("policy",), seed=JUDGED_FROM, policies={"policy": load_policy(run, env)})
    env.close()
    return float(np.mean([row["success"] for row in rows])), failures(seen, about)
