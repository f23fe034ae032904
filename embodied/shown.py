"""Demonstrations as an agent that learns from a replay takes them: labelled by a run's rewards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from embodied.build import make_rewards
from embodied.dataset import Dataset
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.judgement import as_trajectory
from embodied.lerobot import read_dataset
from embodied.reward_model import start
from embodied.spaces import vector_keys, vector_size
from embodied.types import Trajectory


def read_shown(cfg: DictConfig, env: Stepper, gamma: float, path: str | Path) -> Trajectory:
    """The episodes of the dataset at `path` side by side, `(T, N)`, with the run's own rewards.

    Where one is shorter than the longest, its steps are not valid. Raises `UserError` for a
    dataset of another env or another observation, and for a reward that no dataset can tell.
    """
    rewards = make_rewards(cfg, env, gamma)
    dataset = read_dataset(path, tuple(rewards.cameras))
    _check(dataset, env, path)
    if missing := rewards.readouts - {"reward", "success"}:
        raise UserError(f"demonstrations={path}: no dataset holds {', '.join(sorted(missing))}")
    traj = as_trajectory(dataset.episodes, tuple(rewards.cameras))
    key = vector_keys(env.observation_space)[0]
    for name in ("obs", "last_obs", "final_obs"):
        setattr(traj, name, {key: getattr(traj, name)["state"]})
    rewards.num_worlds = len(dataset)
    rewards.begin(start(traj, 0))
    rewards.label(traj, np.repeat(np.arange(traj.shape[0])[:, None], len(dataset), axis=1))
    return traj


def _check(dataset: Dataset, env: Stepper, path: str | Path) -> None:
    if dataset.info.env not in ("", env.name):
        raise UserError(f"demonstrations={path} are of env={dataset.info.env}, not of {env.name}")
    if not len(dataset):
        raise UserError(f"demonstrations={path}: no episode in it")
    keys, size = vector_keys(env.observation_space), vector_size(env.observation_space)
    width = dataset.episodes[0].state.shape[1]
    if len(keys) != 1 or width != size:
        raise UserError(
            f"demonstrations={path}: states of {width} numbers, where {env.name} shows {size} "
            f"in {', '.join(keys)}"
        )
