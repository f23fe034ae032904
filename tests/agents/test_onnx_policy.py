"""An exported policy acts in worlds as the one it came from, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embodied.agents.onnx_policy import OnnxPolicy, load_onnx
from embodied.agents.ppo import GaussianPolicy

from embodied.actor import InBlocks
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.evaluate import run_episodes
from embodied.export import write_policy
from embodied.exported import GRAPH
from tests.toys import Reach, reach

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def gaussian(env: TaskEnv) -> GaussianPolicy:
    """A policy that knows the way: its last layer is made by hand."""
    import torch

    policy = GaussianPolicy(env.observation_space, env.action_spec, [], "tanh", 1.0)
    with torch.no_grad():
        policy.mean[-1].weight.copy_(torch.tensor([[-5.0, 0, 5, 0], [0, -5.0, 0, 5]]))
    return policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    env = reach(8)
    write_policy(gaussian(env), env, tmp_path / "policy", {})
    return tmp_path / "policy"


def test_it_plays_whole_episodes_as_the_policy_does(folder: Path) -> None:
    env = reach(6, ends=True)
    theirs, ours = (
        sorted(run_episodes(env, InBlocks(policy), range(12)), key=lambda row: row["seed"])
        for policy in (gaussian(env), load_onnx(folder, env))
    )
    assert all(row["success"] for row in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("return") == pytest.approx(other.pop("return"), abs=1e-5)
        assert one == other


def test_its_actions_are_the_same_every_time_and_greedy(folder: Path) -> None:
    policy = OnnxPolicy(folder)
    obs = {"state": np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)}
    carry, action = policy.act(policy.carry(7), obs, greedy=True)
    assert carry == {} and action.shape == (7, 2) and action.dtype == np.float32
    assert (np.abs(action) <= 1.0).all()
    assert (policy.act({}, obs, greedy=True)[1] == action).all()
    assert policy.name.startswith("policy@") and policy.action_spec.names == ("ctrl_0", "ctrl_1")
    with pytest.raises(UserError, match="was exported and knows greedy actions alone"):
        policy.act({}, obs)


def test_what_is_no_number_becomes_no_action(folder: Path) -> None:
    obs = np.zeros((3, 4), np.float32)
    obs[1, 2] = np.nan
    action = OnnxPolicy(folder).act({}, {"state": obs}, greedy=True)[1]
    assert np.isnan(action).all(axis=1).tolist() == [False, True, False]


def test_worlds_that_it_does_not_fit(folder: Path) -> None:
    with pytest.raises(UserError, match=r"does not fit reach_point: observations .*\(4,\).* there"):
        load_onnx(folder, reach(dims=3))

    class Other(Reach):
        def action_spec(self, sim):
            spec = super().action_spec(sim)
            return type(spec)(("x", "y"), spec.units, spec.low, spec.high, spec.kind, spec.rate_hz)

    env = reach()
    with pytest.raises(UserError, match=r"actions \('ctrl_0', 'ctrl_1'\) there, \('x', 'y'\) here"):
        load_onnx(folder, TaskEnv(Other(), env.sim))


def test_a_tampered_graph_is_refused(folder: Path) -> None:
    with open(folder / GRAPH, "ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="policy.onnx was changed since it was exported"):
        OnnxPolicy(folder)


def test_it_needs_neither_torch_nor_a_simulator(folder: Path) -> None:
    code = (
        "import sys, numpy as np; from embodied.agents.onnx_policy import OnnxPolicy; "
        "obs = {'state': np.zeros((1, 4), np.float32)}; "
        f"print(OnnxPolicy({str(folder)!r}).act({{}}, obs, True)[1].shape, "
        "*sys.modules.keys() & {'torch', 'mujoco', 'onnx'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(1, 2)\n", done.stderr
