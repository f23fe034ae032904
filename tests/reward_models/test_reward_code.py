"""Reward code as a reward model: by its graph and in a sandbox it pays the same."""

from __future__ import annotations

import ctypes
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.reward_code import RewardCode

from embodied.build import make_env
from embodied.collect import Collector
from embodied.config import compose_config
from embodied.errors import UserError
from embodied.jail import JailError, landlock_version
from embodied.reward_folder import RewardFile, read_reward
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.sandbox_worker import load, world_of
from embodied.tracing import Trace
from embodied.types import ABSTAINED, SCORED
from tests.toys import Wander

READS = {"puck.position": [2], "red_pad.position": [2], "action": [2]}
CODE = """
def reward(world, action, dt):
    away = np.linalg.norm(world.puck.position - world.red_pad.position, axis=-1)
    return {"reach": np.exp(-away), "cost": -dt * np.sum(action**2, axis=-1)}
"""
needs_landlock = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: no code is run"
)


def folder(path: Path, code: str = CODE, graph: bool = True, **changed: Any) -> str:
    file = RewardFile(code, "line_reach", 0.05, READS, provenance={"origin": "authored"})
    if graph:
        trace = Trace(READS)
        given = trace.inputs()
        terms = load(code)(world_of(given), given["action"], 0.05)
        file = replace(file, graph=trace.graph(terms))
    return str(replace(file, **changed).save(path))


def rollout(model: RewardCode, steps: int = 6) -> Any:
    env = make_env(compose_config(["env=line_reach", "sim.threads=1"]), num_envs=3, seed=1)
    collect = Collector(env, Rewards({"c": Channel("c", model)}, 3, 0.9))
    return collect.collect(Wander(env), steps)


def by_hand(traj: Any) -> np.ndarray:
    r = traj.readouts
    away = np.linalg.norm(r["world.puck.position"] - r["world.red_pad.position"], axis=-1)
    return np.exp(-away) - 0.05 * (traj.action_executed**2).sum(-1)


@needs_landlock
def test_both_tiers_pay_what_the_code_says(tmp_path: Path) -> None:
    path = folder(tmp_path)
    traj = rollout(RewardCode(path))
    np.testing.assert_allclose(traj.reward, by_hand(traj), rtol=1e-5)
    worker = RewardCode(path, tier="worker")
    _, score = worker.score({}, traj)
    np.testing.assert_allclose(score.value, traj.reward, rtol=1e-5)
    assert set(score.terms) == {"reach", "cost"} and score.terms["reach"].shape == traj.shape
    assert (score.status == SCORED).all()
    worker.close()


def test_it_declares_what_it_reads(tmp_path: Path) -> None:
    model = RewardCode(folder(tmp_path, unreal=("red_pad.position",)))
    assert model.needs.readouts == {"world.puck.position", "world.red_pad.position"}
    assert model.needs.privileged == {"world.red_pad.position"}
    assert model.blind and model.learned and model.kind == "reward"


def test_what_is_not_finite_or_too_large_is_not_judged(tmp_path: Path) -> None:
    code = "def reward(world, action, dt):\n    return {'a': %s}\n"
    model = RewardCode(folder(tmp_path / "a", code % "np.log(world.puck.position[:, 0] - 0.13)"))
    traj = rollout(RewardCode(folder(tmp_path / "b")))
    _, score = model.score({}, traj)
    x = traj.readouts["world.puck.position"][..., 0]
    assert ((score.status == ABSTAINED) == (x <= 0.13)).all()
    assert 0 < (x <= 0.13).sum() < x.size
    assert np.isfinite(score.value).all()
    large = RewardCode(folder(tmp_path / "c", code % "1e3 * world.puck.position[:, 0]"), bound=130)
    _, score = large.score({}, traj)
    assert ((score.status == ABSTAINED) == (np.abs(1e3 * x) > 130)).all()
    assert large.value_range == (-130, 130)


@needs_landlock
def test_a_worker_that_fails_judges_nothing(tmp_path: Path) -> None:
    traj = rollout(RewardCode(folder(tmp_path / "a")))
    bad = folder(tmp_path / "b", "def reward(world, action, dt):\n    1 / 0\n", graph=False)
    model = RewardCode(bad, tier="worker")
    _, score = model.score({}, traj)
    assert (score.status == ABSTAINED).all() and not score.value.any() and not score.terms
    with pytest.raises(UserError, match="cannot be traced: give tier=worker"):
        RewardCode(bad)
    model.close()


@needs_landlock
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_pays_the_same(tmp_path: Path) -> None:
    path = folder(tmp_path)
    traj = rollout(RewardCode(path))
    model = RewardCode(path, tier="bubblewrap")
    np.testing.assert_allclose(model.score({}, traj)[1].value, traj.reward, rtol=1e-5)
    model.close()


def test_without_bubblewrap_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traj = rollout(RewardCode(folder(tmp_path)))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="no bwrap"):
        RewardCode(str(tmp_path), tier="bubblewrap").score({}, traj)


def test_without_a_jail_no_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traj = rollout(RewardCode(folder(tmp_path)))

    def cannot(*given: Any, **named: Any) -> None:
        raise JailError("the kernel has no Landlock")

    monkeypatch.setattr("embodied.sandbox.Sandbox.load", cannot)
    with pytest.raises(UserError, match="no Landlock"):
        RewardCode(str(tmp_path), tier="worker").score({}, traj)


@needs_landlock
def test_impure_code_stops_the_run(tmp_path: Path) -> None:
    code = "n = 0\ndef reward(world, action, dt):\n    global n\n    n += 1\n"
    code += "    return {'a': world.puck.position[:, 0] + n}\n"
    traj = rollout(RewardCode(folder(tmp_path / "a")))
    model = RewardCode(folder(tmp_path / "b", code, graph=False), tier="worker")
    with pytest.raises(UserError, match="impure: term 'a'"):
        model.score({}, traj)
    model.close()


def test_code_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = Path(folder(tmp_path))
    assert read_reward(path).provenance == {"origin": "authored"}
    (path / "reward.py").write_text(CODE.replace("0.05", "0.5") + "\n")
    with pytest.raises(UserError, match="was changed since it was checked"):
        RewardCode(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("inputs"), "damaged"),
        (lambda r: r.update(format=0), "not of this version"),
        (lambda r: r.update(dt="x"), "damaged"),
        (lambda r: r["graph"]["nodes"].append(["exec", [], {}]), "was changed"),
    ],
    ids=["no inputs", "old", "no number", "another graph"],
)
def test_a_damaged_folder_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    path = Path(folder(tmp_path)) / "reward.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=said):
        read_reward(path.parent)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no reward: there is no reward.py"):
        RewardCode(str(tmp_path))
    with pytest.raises(UserError, match="give a folder"):
        RewardCode()
    path = folder(tmp_path / "a")
    with pytest.raises(UserError, match="did you mean graph"):
        RewardCode(path, tier="grapf")
    with pytest.raises(UserError, match="not the reward code that the run began with"):
        RewardCode(path).load_state_dict({"fingerprint": "other"})
    wide = folder(tmp_path / "b", graph=False, inputs={"puck.position": [3], "action": [2]})
    traj = rollout(RewardCode(path))
    with pytest.raises(UserError, match=r"puck.position is \(3,\) there and \(2,\) here"):
        RewardCode(wide, tier="worker").score({}, traj)
