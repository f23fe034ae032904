"""Demonstrations as they go into a replay: who pays for what, and where they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.build import make_env
from embodied.config import compose_config
from embodied.demonstrate import collect
from embodied.errors import UserError
from embodied.lerobot import read_dataset
from embodied.shown import read_shown
from embodied.train import train

TRAIN = ["env=line_reach", "num_envs=4", "tensorboard=false", "video=false", "total_steps=64"]
SMALL = ["agent=sac", "agent.warm_up=8", "agent.batch=8", "agent.compile=false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shown") / "data"
    collect(["env=line_reach", f"out={out}", "episodes=3", "sources=[varied]"])
    return out


def shown(folder: Path, *overrides: str) -> Any:
    cfg = compose_config(["env=line_reach", *overrides])
    return read_shown(cfg, make_env(cfg, num_envs=2), 0.9, folder)


def test_they_are_paid_as_the_env_paid_them(folder: Path) -> None:
    traj, episodes = shown(folder), read_dataset(folder).episodes
    lengths = [len(episode) for episode in episodes]
    assert traj.shape == (max(lengths) - 1, 3) and len(set(lengths)) > 1
    for i, episode in enumerate(episodes):
        going = len(episode) - 1
        assert traj.valid[:going, i].all() and not traj.valid[going:, i].any()
        np.testing.assert_array_equal(traj.reward[:going, i], episode.reward[:-1])
        np.testing.assert_array_equal(traj.action[:going, i], episode.action[:-1])
        np.testing.assert_array_equal(traj.next_obs["state"][:going, i], episode.state[1:])


def test_they_are_paid_by_the_runs_own_rewards(folder: Path) -> None:
    yes = "reward_model.always_yes"
    success = ["reward_model.env.readout=success", "reward_model.env.weight=3"]
    held = ["reward_model=[env,always_yes]", f"{yes}.threshold=null", f"{yes}.shaping=held"]
    traj = shown(folder, *success, *held)
    terms, valid = traj.reward_terms, traj.valid
    for i, episode in enumerate(read_dataset(folder).episodes):
        won = terms["env"][valid[:, i], i]
        np.testing.assert_array_equal(won, episode.success[1:])
    assert terms["always_yes"][valid].all()
    mixed = 3.0 * terms["env"] + traj.weights["always_yes"] * terms["always_yes"]
    np.testing.assert_allclose(traj.reward[valid], mixed[valid])


def test_a_run_learns_from_them_and_goes_on(folder: Path, tmp_path: Path) -> None:
    run = train([*TRAIN, *SMALL, f"demonstrations={folder}", f"run_dir={tmp_path}/run"])
    resumed = train(["total_steps=128"], resume=run)
    assert (resumed / "log.jsonl").read_text().count("critic_loss") >= 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["agent=ppo"], "agent.start=RUN"),
        ([*SMALL, "env=half_cheetah"], "are of env=line_reach, not of half_cheetah"),
        ([*SMALL, "reward_model.env.readout=term/effort"], "no dataset holds term/effort"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    overrides: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train([*TRAIN, *overrides, f"demonstrations={folder}", f"run_dir={tmp_path}/run"])
    assert not (tmp_path / "run").exists()
