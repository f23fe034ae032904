"""A run directory: what a training run leaves, and how to come back to it.

config.yaml       the resolved configuration
run.json          seed, reward hash, versions, command
log.jsonl         one row of figures an update
curves.png        learning curves
video.mp4         the trained policy
tensorboard/      the same figures for TensorBoard
checkpoints/      the newest two, each a directory of safetensors and JSON
eval.jsonl        one row an evaluated episode (see `embodied eval`)
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied import shaping
from embodied.agent import Policy
from embodied.build import make_agent
from embodied.catalogue import defines
from embodied.checkpoint import Checkpoint, load_checkpoint
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.rewards import Rewards
from embodied.state_tree import split


@dataclass
class Run:
    """A run directory with its newest valid checkpoint."""

    path: Path
    cfg: DictConfig
    checkpoint: Checkpoint


def open_run(path: Path | str) -> Run:
    """Open a run directory, its `checkpoints`, or one checkpoint in it.

    Raises `UserError` when there is none, none that is valid, or one whose configuration would
    run code of a package that is neither ours nor named in `EMBODIED_TRUST` (comma-separated).
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no run at {path}: give a run directory, as printed by `embodied train`")
    inner = path / "checkpoints"
    checkpoint = load_checkpoint(inner if inner.is_dir() else path)
    if not checkpoint.config or "agent" not in checkpoint.config:
        raise UserError(f"{path} is not a run of embodied: its checkpoint has no configuration")
    _check_targets(checkpoint.config, path)
    root = next((p for p in (path, *path.parents) if (p / "config.yaml").exists()), path)
    return Run(root, OmegaConf.create(checkpoint.config), checkpoint)


def _check_targets(node: Any, path: Path) -> None:
    """Refuse a configuration that came with a checkpoint and names code to run that is not ours."""
    trusted = {"embodied", *os.environ.get("EMBODIED_TRUST", "").split(",")}
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for value in values:
        _check_targets(value, path)
    target = str(node["_target_"]) if isinstance(node, dict) and "_target_" in node else None
    if target is None:
        return
    package = target.partition(".")[0]
    if package == "embodied" and not defines(target):  # it may be what a module of ours imports
        raise UserError(f"{path} would run {target}, which is not embodied's own")
    if package not in trusted:
        raise UserError(
            f"{path} would run {target}: set EMBODIED_TRUST={package} if you trust that checkpoint"
        )


def load_policy(run: Run, env: Stepper) -> Policy:
    """The trained policy of a run, for worlds with the same spaces.

    Raises `UserError` when the observations or actions of `env` are not those it was trained on.
    """
    agent = make_agent(run.cfg, env, num_worlds=run.cfg.num_envs)
    agent.load_state_dict(run.checkpoint.state["agent"])
    return agent.policy


def reward_hash(cfg: DictConfig, env: Stepper, rewards: Rewards) -> str:
    """A hash of all that decides the reward: its configuration, source and learned weights."""
    task = getattr(env, "task", None)
    models = [channel.model for channel in rewards.channels.values()]
    parts = [OmegaConf.to_yaml(cfg.reward_model, resolve=True), repr(getattr(task, "weights", ""))]
    parts += [repr(rewards.gamma), inspect.getsource(shaping)]
    for thing in (task, *models):
        if thing is not None:
            parts += [_source(kind) for kind in type(thing).__mro__[:-1]]
    for model in models:
        arrays: dict[str, np.ndarray] = {}
        parts.append(json.dumps(split(model.state_dict(), arrays)))
        parts += [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays.values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _source(kind: type) -> str:
    """The file that defines a class, with the functions it calls there."""
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):  # built in, or typed at a prompt
        return repr(kind)


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a run does."""
    out = {}
    for name in ("embodied-rl", "mujoco", "gymnasium", "torch", "numpy", "stable-baselines3"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
