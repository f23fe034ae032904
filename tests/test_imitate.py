"""`embodied imitate`: the run it leaves, what it learns from, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.build import make_agent, make_env
from embodied.config import amend
from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.errors import UserError
from embodied.evaluate import evaluate
from embodied.imitate import imitate, is_expert, report
from embodied.lerobot import add_scores, write_dataset
from embodied.run import load_policy, open_run
from embodied.run_log import read_rows
from embodied.train import train
from tests.toys import conf_of_toys, reach

WORLDS = ["env=point", "sim=points", "num_envs=4", "video=false", "tensorboard=false"]
SMALL = [*WORLDS, "agent.steps=200", "agent.hidden=[16]"]


@pytest.fixture(autouse=True)
def trusted_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBODIED_TRUST", "tests")


def demonstrations(env_name: str = "reach_point") -> Dataset:
    """Four episodes of the expert, then four that went the other way."""
    env = reach(8, seed=0)
    sign = np.where(np.arange(8) < 4, 1.0, -1.0)[:, None]
    rows: dict[str, list[Any]] = {"state": [], "action": [], "success": []}
    obs = env.reset()
    for _ in range(16):
        rows["state"].append(np.array(obs["state"], np.float32))
        rows["action"].append(np.asarray(sign * env.expert(), np.float32))
        rows["success"].append(env.task.success(env.sim, {}))
        obs = env.step(rows["action"][-1]).obs
    state, action, success = (np.stack(part, axis=1) for part in rows.values())
    zeros, stage = np.zeros(16, np.float32), np.full(16, -1)
    episodes = [
        Episode("reach it", "expert" if i < 4 else "expert:away", i, state[i], action[i], zeros,
                success[i], stage, zeros)
        for i in range(8)
    ]  # fmt: skip
    assert env.action_spec is not None
    return Dataset(DatasetInfo(env_name, 10.0, env.action_spec, 2), episodes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset on disk, with the score column "near"."""
    path = tmp_path_factory.mktemp("data") / "demos"
    data = demonstrations()
    write_dataset(path, data)
    distance = [np.linalg.norm(e.state[:, :2] - e.state[:, 2:], axis=1) for e in data.episodes]
    add_scores(path, "near", [np.float32(1.0 - part) for part in distance])
    return path


@pytest.fixture(scope="module")
def conf(tmp_path_factory) -> Path:
    return conf_of_toys(tmp_path_factory.mktemp("conf"))


@pytest.fixture
def run(tmp_path, folder: Path, conf: Path) -> Iterator[Path]:
    yield imitate([*SMALL, f"dataset={folder}", f"run_dir={tmp_path}/bc"], conf)[0]


def action_of(path: Path) -> np.ndarray:
    """What a run's policy does at the start of a few episodes."""
    run = open_run(path)
    env = make_env(run.cfg, num_envs=3, seed=77)
    return load_policy(run, env).act({}, env.reset(), greedy=True)[1]


def test_it_leaves_a_run_like_any_other(run: Path, folder: Path) -> None:
    names = {file.name for file in run.iterdir()}
    assert {"config.yaml", "run.json", "log.jsonl", "checkpoints"} <= names
    header = json.loads((run / "run.json").read_text())
    assert header["env"] == "reach_point" and header["episodes"] == 8
    assert header["dataset"] == str(folder) and header["figures"]["frames"] == 8 * 15
    rows = read_rows(run / "log.jsonl")
    assert rows[-1]["steps"] == 200 and rows[-1]["agent/loss"] < rows[0]["agent/loss"]
    assert open_run(run).checkpoint.step == 200
    assert np.isfinite(action_of(run)).all()


def test_it_can_be_evaluated(run: Path, capsys) -> None:
    assert evaluate(str(run), ["episodes=3", "num_envs=3"]) == 0
    assert "success" in capsys.readouterr().out
    assert len((run / "eval.jsonl").read_text().splitlines()) == 3


def ppo(start: Path, path: Path, *more: str) -> list[str]:
    settings = ["total_steps=40", "agent.rollout_steps=5", "agent.compile=false", *more]
    return [*WORLDS, *settings, "agent.hidden=[16]", f"agent.start={start}", f"run_dir={path}"]


def test_ppo_begins_with_it_and_outlives_it(run: Path, conf: Path, tmp_path) -> None:
    expected = action_of(run)
    path = train(ppo(run, tmp_path / "ppo", "agent.lr=0", "agent.init_std=0.2"), None, conf)
    state = open_run(path).checkpoint.state["agent"]["policy"]
    np.testing.assert_allclose(np.exp(state["log_std"]), 0.2, rtol=1e-5)
    theirs = open_run(run).checkpoint.state["agent"]["policy"]
    np.testing.assert_array_equal(state["mean.0.weight"], theirs["mean.0.weight"])
    assert state["norm.count"] == theirs["norm.count"]  # kept as it was learned under
    run.rename(tmp_path / "elsewhere")
    assert action_of(path) == pytest.approx(expected, abs=0.5)
    assert train(["total_steps=80"], resume=path) == path


def test_an_anchor_keeps_ppo_near_where_it_began(run: Path, conf: Path, tmp_path) -> None:
    began, apart = action_of(run), {}
    for anchor in (0.0, 30.0):
        own = ["agent.lr=0.01", "agent.init_std=0.2", f"agent.anchor={anchor}"]
        path = train(ppo(run, tmp_path / f"ppo_{anchor:g}", *own), None, conf)
        apart[anchor] = np.abs(action_of(path) - began).mean()
    assert apart[30.0] < 0.3 * apart[0.0]
    state = open_run(path).checkpoint.state["agent"]["first"]
    theirs = open_run(run).checkpoint.state["agent"]["policy"]
    assert train(["total_steps=80"], resume=path) == path
    again = open_run(path).checkpoint.state["agent"]["first"]
    for name, weight in state.items():
        np.testing.assert_array_equal(weight, theirs[f"mean.{name}"])
        np.testing.assert_array_equal(weight, again[name])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("agent.activation=relu", "has agent.activation=tanh, take that"),
        ("agent.hidden=[8]", r"mean.0.bias is \(16,\) there, \(8,\) here"),
        ("agent.start=nowhere", "no run at nowhere"),
    ],
)
def test_ppo_refuses_a_start_that_does_not_fit(
    run: Path, conf: Path, tmp_path, more: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train([*ppo(run, tmp_path / "ppo"), more], None, conf)
    assert not (tmp_path / "ppo").exists()


def figures(folder: Path, conf: Path, tmp_path: Path, *more: str) -> tuple[float, float]:
    """Mean weight and number of frames of a fit."""
    run_dir = f"run_dir={tmp_path}/{len(list(tmp_path.iterdir()))}"
    told = imitate([*SMALL, f"dataset={folder}", run_dir, *more], conf)[1]
    return told["mean_weight"], told["frames"]


def test_weights_choose_what_counts(folder: Path, conf: Path, tmp_path) -> None:
    assert figures(folder, conf, tmp_path, "weights=none") == (1.0, 8 * 15)
    assert figures(folder, conf, tmp_path, "weights=oracle") == (1.0, 4 * 15)
    mean, frames = figures(folder, conf, tmp_path, "weights=ra_bc", "score=near")
    assert 0.2 < mean < 0.9 and frames == 8 * 15


def test_a_live_reward_model_weighs_as_its_own_column(folder: Path, conf: Path, tmp_path) -> None:
    """`near` is minus the distance, the column 1 minus it: all that counts is the difference."""
    column = figures(folder, conf, tmp_path, "weights=ra_bc", "score=near")
    live = figures(folder, conf, tmp_path, "weights=ra_bc", "reward_model=near")
    assert live == pytest.approx(column, rel=1e-5)


@pytest.mark.parametrize(
    ("source", "expert"),
    [
        ("expert", True), ("varied", True), ("noisy", True), ("noisy:0.2", True),
        ("expert:drops", False), ("noisy:0.2:drops", False), ("random", False), ("runs/a", False),
    ],
)  # fmt: skip
def test_a_disturbed_expert_is_one_too_but_none_with_a_flaw(source: str, expert: bool) -> None:
    assert is_expert(replace(demonstrations().episodes[0], source=source)) == expert


def test_an_expert_is_one_that_succeeds_without_a_flaw() -> None:
    episodes = demonstrations().episodes
    assert [is_expert(episode) for episode in episodes] == [True] * 4 + [False] * 4
    episodes[0].success[:] = False
    assert not is_expert(episodes[0])


def test_the_report_says_what_a_healthy_weight_is(tmp_path, capsys) -> None:
    report(tmp_path, {"loss_after": 0.5, "mean_weight": 0.25})
    assert "mean_weight     0.25   healthy: 0.3 to 0.8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["weights=half"], "unknown weights 'half'"),
        (["weights=ra_bc"], "weights=ra_bc needs progress: score=NAME"),
        (["weights=ra_bc", "score=far"], "score=far: episode 0 .* no such column; it has near"),
        (["weights=ra_bc", "reward_model=env"], "reward_model=env is of kind 'reward'"),
        (["total_steps=1e6"], "total_steps=1e6: that is for `embodied train`"),
        (["agent=ppo"], "ppo.PPO does not learn from demonstrations: agent=bc"),
        (["env=reach", "sim=mujoco", "sim.threads=1"], "is of env=reach_point, not of reach"),
        (["dataset=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_answered_before_anything_is_written(
    folder: Path, conf: Path, tmp_path, more: list[str], message: str
) -> None:
    small = WORLDS if "agent=ppo" in more else SMALL
    with pytest.raises(UserError, match=message):
        imitate([*small, f"dataset={folder}", f"run_dir={tmp_path}/run", *more], conf)
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_written_over(run: Path, folder: Path, conf: Path) -> None:
    with pytest.raises(UserError, match="holds a run already"):
        imitate([*SMALL, f"dataset={folder}", f"run_dir={run}"], conf)


def test_no_dataset_is_a_mistake(conf: Path) -> None:
    with pytest.raises(UserError, match="dataset is not given: add dataset=VALUE"):
        imitate(SMALL, conf)


def test_an_actor_may_change_its_worlds(run: Path) -> None:
    """A saved configuration has the keys of a run, so that it composes as one."""
    cfg = amend(open_run(run).cfg, ["env.max_steps=5"])
    assert make_env(cfg, num_envs=1).max_steps == 5
    assert make_agent(cfg, make_env(cfg, num_envs=1)).policy is not None
