"""Training end to end: what it leaves, what it refuses, and that a resumed run is the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embodied.checkpoint import load_checkpoint
from embodied.errors import UserError
from embodied.train import train

SMALL = [
    "~tuned",
    "num_envs=6",
    "agent.rollout_steps=8",
    "agent.hidden=[16]",
    "agent.compile=false",
    "env.max_steps=20",
    "tensorboard=false",
    "video=false",
]


def arrays(value: object, path: str = "") -> dict[str, np.ndarray]:
    """Every number of a nested state, by its path."""
    if isinstance(value, dict):
        items = [(f"{path}/{k}", v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}/{i}", v) for i, v in enumerate(value)]
    else:
        return {path: np.asarray(value)}
    return {k: v for name, item in items for k, v in arrays(item, name).items()}


def final_state(run: Path) -> dict[str, np.ndarray]:
    state = load_checkpoint(run / "checkpoints").state
    state.pop("elapsed_s")  # a clock, the one thing that may differ
    return arrays(state)


VARIED = [
    "env.randomise.mass=[0.8,1.2]",
    "env.randomise.delay_steps=[0,2]",
    "env.randomise.obs_noise=0.01",
]


@pytest.mark.parametrize("env", ["half_cheetah", "ant", "pick_cube"])
@pytest.mark.parametrize("varied", [[], VARIED], ids=["plain", "randomised"])
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, env: str, varied: list[str]
) -> None:
    base = [*SMALL, *varied, f"env={env}", "agent.target_kl=0.02"]
    whole = train([*base, f"run_dir={tmp_path}/whole", "total_steps=384"])
    part = train([*base, f"run_dir={tmp_path}/part", "total_steps=192"])
    train(["total_steps=384"], resume=part)
    expected, got = final_state(whole), final_state(part)
    assert expected.keys() == got.keys()
    assert len(expected) > 60
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_two_seeds_differ_and_one_repeats(tmp_path: Path) -> None:
    runs = [
        train([*SMALL, "env=hopper", "total_steps=96", f"seed={seed}", f"run_dir={tmp_path}/{k}"])
        for k, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (final_state(run) for run in runs)
    weight = "/agent/policy/mean.0.weight"
    assert np.array_equal(first[weight], again[weight])
    assert not np.array_equal(first[weight], other[weight])


def test_what_a_run_leaves(tmp_path: Path) -> None:
    run = train(
        [*SMALL, "env=hopper", "total_steps=1000", f"run_dir={tmp_path}/run", "keep_checkpoints=1"]
    )
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "run.json", "log.jsonl", "curves.png"}
    assert (run / "curves.png").stat().st_size > 10_000
    header = json.loads((run / "run.json").read_text())
    assert header["env"] == "hopper" and len(header["reward_hash"]) == 16
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows] == [48.0 * (k + 1) for k in range(21)]
    assert any("episode/term/forward" in row for row in rows)
    assert len(list((run / "checkpoints").iterdir())) == 1


def test_the_reward_hash_follows_the_reward(tmp_path: Path) -> None:
    def hash_of(name: str, *more: str) -> str:
        run = train([*SMALL, "env=hopper", "total_steps=48", f"run_dir={tmp_path}/{name}", *more])
        return str(json.loads((run / "run.json").read_text())["reward_hash"])

    plain = hash_of("a")
    assert hash_of("b", "seed=3", "agent.lr=0.01") == plain
    assert hash_of("c", "reward_model.env.weight=2.0") != plain


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    arguments = [*SMALL, "env=hopper", "total_steps=48", f"run_dir={tmp_path}/run"]
    train(arguments)
    with pytest.raises(UserError, match="holds a run already"):
        train(arguments)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_envs=0", "num_envs=0: give a whole number >= 1"),
        ("total_steps=0", "total_steps=0"),
        ("env.max_steps=0", "env.max_steps=0"),
        ("agent.minibatches=1000", "agent.minibatches"),
        ("env.randomise.mass=[2.0,1.0]", "env.randomise.mass"),
        ("reward_model.env.every=0", "reward_model.env.every"),
        ("reward_model.env.shaping=potential", "gives no potential"),
        ("agent.gamma=1.5", "agent.gamma=1.5"),
        ("agent.lr=-1.0", "agent.lr=-1.0"),
        ("agent.activation=tanhh", "did you mean tanh"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        train([*SMALL, "env=hopper", f"run_dir={tmp_path}/run", override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_resume_refuses_what_would_change_the_run(tmp_path: Path) -> None:
    run = train([*SMALL, "env=hopper", "total_steps=48", f"run_dir={tmp_path}/run"])
    with pytest.raises(UserError, match="agent.lr is fixed by the run"):
        train(["agent.lr=0.1"], resume=run)


def test_a_policy_that_breaks_stops_the_run(tmp_path: Path, monkeypatch) -> None:
    from embodied.agents.ppo import GaussianPolicy

    plain = GaussianPolicy.act

    def broken(self, carry, obs, greedy=False):
        carry, action = plain(self, carry, obs, greedy)
        return carry, np.full_like(action, np.nan)

    monkeypatch.setattr(GaussianPolicy, "act", broken)
    with pytest.raises(UserError, match="action is not finite"):
        train([*SMALL, "env=hopper", "total_steps=480", f"run_dir={tmp_path}/run"])


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch) -> None:
    from embodied import checkpoint

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "write", full)
    with pytest.raises(UserError, match="disk full"):
        train([*SMALL, "env=hopper", "total_steps=48", f"run_dir={tmp_path}/run"])


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*SMALL, "env=hopper", "total_steps=100000000", f"run_dir={run}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "embodied", "train", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for _ in range(600):
        if (run / "log.jsonl").exists() and len((run / "log.jsonl").read_text()) > 1000:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0
    assert f"embodied train --resume {run}" in errors
    saved = load_checkpoint(run / "checkpoints")
    train([f"total_steps={saved.step + 96}"], resume=run)
    assert load_checkpoint(run / "checkpoints").step == saved.step + 96
