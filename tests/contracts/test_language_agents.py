"""What every agent in conf/ that speaks promises, from demonstrations to a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make_env
from embodied.config import CONF, compose_config, options
from embodied.demonstrate import collect
from embodied.errors import UserError
from embodied.evaluate import evaluate
from embodied.imitate import imitate
from embodied.run import load_policy, open_run
from embodied.train import train

SPEAKERS = [
    name
    for name in options("agent")
    if "max_tokens" in OmegaConf.load(CONF / "agent" / f"{name}.yaml") and name != "sft"
]
WORLDS = ["env=sokoban", "env.width=5", "env.height=5", "env.boxes=1", "env.max_steps=5"]
QUIET = ["tensorboard=false", "video=false"]
RUN = [*WORLDS, *QUIET, "num_envs=4", "env.group=2", "agent.max_tokens=6", "agent.context=512"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of sft, on demonstrations that were collected to a file."""
    folder = tmp_path_factory.mktemp("taught")
    longer = [text for text in WORLDS if "max_steps" not in text]
    collect([*longer, "episodes=4", f"out={folder}/demos.jsonl", "num_envs=3"])
    size = ["agent.steps=12", "agent.width=16", "agent.heads=2", "agent.vocabulary=320"]
    given = [*WORLDS, "agent=sft", *size, "agent.context=512", "video=false", "tensorboard=false"]
    return imitate([*given, f"dataset={folder}/demos.jsonl", f"run_dir={folder}/sft"])[0]


def run(name: str, folder: Path, taught: Path, *more: str) -> Path:
    start = f"agent.start={taught}"
    return train([*RUN, f"agent={name}", start, f"run_dir={folder}", "total_steps=30", *more])


@pytest.mark.parametrize("name", SPEAKERS)
def test_it_begins_with_what_was_taught_and_leaves_a_run(
    name: str, taught: Path, tmp_path: Path
) -> None:
    path = run(name, tmp_path / "run", taught)
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["steps"] >= 30 and np.isfinite(rows[-1]["agent/policy_loss"])
    env = make_env(compose_config([*RUN, f"agent={name}"]))
    policy = load_policy(open_run(path), env)
    obs = env.reset()
    carry, said = policy.act(policy.carry(4), obs, greedy=True)
    assert said.shape == (4,) and all(isinstance(text, str) for text in said)
    again = load_policy(open_run(path), env)
    assert again.act(again.carry(4), obs, greedy=True)[1].tolist() == said.tolist()
    out = tmp_path / "eval.jsonl"
    assert evaluate(str(path), ["episodes=3", "num_envs=2", f"out={out}"]) == 0
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    name: str, taught: Path, tmp_path: Path
) -> None:
    whole = run(name, tmp_path / "whole", taught, "total_steps=50")
    part = run(name, tmp_path / "part", taught, "total_steps=25")
    train(["total_steps=50"], resume=part)
    states = [open_run(path).checkpoint.state for path in (whole, part)]
    ours, theirs = (state["agent"]["lm"]["weights"] for state in states)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(theirs[key]), err_msg=key)
    assert states[0]["collector"]["steps"] == states[1]["collector"]["steps"]


@pytest.mark.parametrize("name", SPEAKERS)
def test_what_it_cannot_do_is_said_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="agent.model=FOLDER"):
        train([*RUN, f"agent={name}", f"run_dir={tmp_path}/none"])
    with pytest.raises(UserError, match="text"):
        train(["env=hopper", f"agent={name}", f"run_dir={tmp_path}/numbers", "num_envs=2"])
    assert not list(tmp_path.iterdir())


def test_a_policy_of_numbers_refuses_worlds_of_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="continuous actions"):
        train([*WORLDS, "agent=ppo", f"run_dir={tmp_path}/run"])
    assert not list(tmp_path.iterdir())
