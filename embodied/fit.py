"""`embodied fit`: train a reward model on demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embodied.arguments import settings
from embodied.build import make_env, make_reward_model
from embodied.config import compose_config
from embodied.dataset import Dataset
from embodied.env import Stepper, TaskEnv
from embodied.errors import UserError
from embodied.lerobot import read_dataset
from embodied.record import record
from embodied.reward_model import RewardModel

DEFAULTS = {"dataset": str, "others": str, "out": str, "episodes": 30, "seed": 0}
DEMONSTRATOR = "varied"
"""Who demonstrates where no dataset is given: the expert, at a pace that varies."""


def fit(
    arguments: Sequence[str] = (), config_dir: str | Path | None = None
) -> tuple[Path, dict[str, float]]:
    """Fit the one configured reward model and save it to `out`: that folder, and figures.

    It learns from `dataset`, a folder as `embodied collect` writes; without one, from `episodes`
    demonstrations that the task's expert gives. `others` are folders (comma-separated) with
    episodes of other tasks, from which a model learns what its own task is not.

    Raises `UserError` before anything is written.
    """
    wanted, overrides = settings(arguments, DEFAULTS, extra=("reward_model", "num_envs"))
    if not wanted["out"]:
        raise UserError("say where to save the reward model: out=FOLDER")
    out = Path(wanted["out"])
    if out.exists():
        raise UserError(f"{out} exists: choose another out=")
    cfg = compose_config(overrides, config_dir=config_dir)
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(f"fit takes one reward model, not {names}: reward_model=stage_aware")
    env = make_env(cfg, num_envs=wanted["episodes"] if not wanted["dataset"] else 1)
    model: Any = make_reward_model(cfg, env, names[0])
    if not hasattr(model, "fit"):
        raise UserError(f"reward_model={names[0]} has nothing to fit")
    cameras = model.needs.cameras
    if wanted["dataset"]:
        dataset = read_dataset(wanted["dataset"], cameras)
        if dataset.info.env != env.name:
            raise UserError(f"{wanted['dataset']} is of env={dataset.info.env}, not {env.name}")
    else:
        dataset = demonstrations(env, model, wanted["episodes"], wanted["seed"])
    others = [read_dataset(path, cameras) for path in (wanted["others"] or "").split(",") if path]
    figures = model.fit(dataset, others)
    model.save(out)
    env.close()
    return out, figures


def demonstrations(env: Stepper, model: RewardModel, count: int, seed: int = 0) -> Dataset:
    """`count` demonstrations by the task's expert, with the images that `model` sees."""
    if not isinstance(env, TaskEnv):
        raise UserError(f"{env.name} has no scripted expert: give demonstrations with dataset=DIR")
    seeds = range(seed, seed + count)
    needs = model.needs
    return record(env, [DEMONSTRATOR] * count, seeds, needs.cameras, needs.image_size)
