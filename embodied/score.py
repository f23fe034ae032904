"""`embodied score`: add what a reward model says to a dataset, as a column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embodied.arguments import settings
from embodied.build import make_env, make_reward_model
from embodied.config import compose_config
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.lerobot import add_scores, read_dataset

DEFAULTS = {"dataset": str, "column": str}


def score(
    arguments: Sequence[str] = (), config_dir: str | Path | None = None
) -> tuple[str, dict[str, float]]:
    """Judge every frame of `dataset` with the one configured reward model.

    The column `score.COLUMN` (by default the model's name) is added or replaced; its full name
    and figures come back. Raises `UserError`, and then leaves the dataset as it was.
    """
    wanted, overrides = settings(arguments, DEFAULTS, extra=("reward_model",))
    if not wanted["dataset"]:
        raise UserError("say which episodes to score: dataset=FOLDER")
    cfg = compose_config(overrides, config_dir=config_dir)
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(f"score takes one reward model, not {names}: reward_model=stage_aware")
    env = make_env(cfg, num_envs=1)
    model = make_reward_model(cfg, env, names[0])
    dataset = read_dataset(wanted["dataset"], model.needs.cameras)
    every = int(cfg.reward_model[names[0]].get("every", 1))
    values = [one.value for one in judge(model, dataset.episodes, every)]
    column = wanted["column"] or names[0]
    add_scores(wanted["dataset"], column, values)
    env.close()
    last = np.array([value[-1] for value in values])
    won = np.array([episode.succeeded for episode in dataset.episodes])
    figures = {"episodes": float(len(values)), "frames": float(sum(map(len, values)))}
    for name, rows in (("successes_end_at", won), ("failures_end_at", ~won)):
        if rows.any():
            figures[name] = float(last[rows].mean())
    return f"score.{column}", figures
