"""`embodied export`: the graph acts as the policy does, and says what its numbers mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from embodied.build import make_agent, make_env
from embodied.checkpoint import save_checkpoint
from embodied.config import compose_config, resolved
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.export import export, joint_map, report, write_policy
from embodied.exported import GRAPH, RECORD, Session, finite, read_exported
from embodied.nets import RunningNorm
from embodied.parity import TOLERANCE
from embodied.types import ActionSpec, Carry, Obs
from tests.toys import PointSim, Reach, Wander, conf_of_toys, reach

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ORIGIN = {"checkpoint": {"step": 3}}
AGENTS = {
    "ppo_elu": ["agent=ppo", "agent.compile=false", "agent.hidden=[9,7]", "agent.activation=elu"],
    "ppo_tanh": ["agent=ppo", "agent.compile=false", "agent.hidden=[9]"],
    "ppo_silu": ["agent=ppo", "agent.compile=false", "agent.hidden=[9]", "agent.activation=silu"],
    "sac": ["agent=sac", "agent.compile=false", "agent.hidden=[9,7]", "agent.capacity=100"],
    "bc": ["agent=bc", "agent.hidden=[9]", "agent.activation=relu"],
    "sb3_ppo": ["agent=sb3_ppo", "agent.net_arch=[9,7]"],
    "sb3_plain": ["agent=sb3_ppo", "agent.net_arch=[9]", "agent.normalise_obs=false"],
}


class Parts(Reach):
    """Observations of two names, one of them of two axes."""

    def observe(self, sim: Any, memory: Carry) -> Obs:
        return {"points": np.stack([sim.qpos, sim.goal], axis=1), "apart": sim.goal - sim.qpos}


def worlds(parts: bool = False) -> TaskEnv:
    task = Parts(2) if parts else Reach(2)
    return TaskEnv(task, PointSim(task.model(), 8))


def trained(name: str, env: TaskEnv, scale: float = 0.3) -> Any:
    """A policy with weights and statistics that say something."""
    agent = make_agent(compose_config(["env=hopper", *AGENTS[name], "~tuned"]), env)
    policy: Any = agent.policy
    torch.manual_seed(0)
    net = policy if isinstance(policy, nn.Module) else policy.net
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(scale * torch.randn_like(weight))
    rng = np.random.default_rng(0)
    if isinstance(getattr(policy, "norm", None), RunningNorm):
        size = len(policy.norm.mean)
        rows = rng.normal(3.0, rng.uniform(1e-3, 20.0, size), (50, size))
        policy.norm.update(torch.from_numpy(np.float32(rows)))
    for seen in getattr(getattr(policy, "normaliser", None), "obs", {}).values():
        seen.update(
            rng.normal(1e3, rng.uniform(1e-3, 20.0, seen.mean.shape), (50, *seen.mean.shape))
        )
    return policy


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("name", AGENTS)
def test_a_graph_acts_as_its_policy_does(name: str, parts: bool, tmp_path: Path) -> None:
    env = worlds(parts)
    policy = trained(name, env)
    figures = write_policy(policy, env, tmp_path / "out", ORIGIN)
    assert 0.0 < figures["parity"]["largest"] <= TOLERANCE
    exported = read_exported(tmp_path / "out")
    session, spec = exported.session(), exported.action_spec
    assert exported.inputs == ({"apart": (2,), "points": (2, 2)} if parts else {"state": (4,)})
    rng, moved = np.random.default_rng(1), []
    for count in (1, 7):
        obs = {
            key: rng.normal(0.0, 50.0, (count, *shape)).astype(np.float32)
            for key, shape in exported.inputs.items()
        }
        want = np.clip(policy.act({}, obs, greedy=True)[1], spec.low, spec.high)
        action = session(obs)
        assert action.shape == (count, 2) and action.dtype == np.float32
        np.testing.assert_allclose(action, want, atol=TOLERANCE * 2.0, rtol=0)
        moved.append(action)
    assert np.ptp(np.concatenate(moved)) > 0.01  # the weights do say something


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    env = worlds()
    for name in ("a", "b"):
        write_policy(trained("ppo_elu", env), env, tmp_path / name, ORIGIN, seed=len(name))
    assert (tmp_path / "a" / GRAPH).read_bytes() == (tmp_path / "b" / GRAPH).read_bytes()


def test_the_record_says_what_the_numbers_mean(tmp_path: Path) -> None:
    env, out = worlds(), tmp_path / "out"
    policy = trained("ppo_tanh", env)
    write_policy(policy, env, out, ORIGIN)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", RECORD, GRAPH]
    record, graph = json.loads((out / RECORD).read_text()), (out / GRAPH).read_bytes()
    assert record["onnx"]["sha256"] == hashlib.sha256(graph).hexdigest()
    assert record["inputs"] == [{"name": "state", "shape": [4], "dtype": "float32"}]
    assert record["output"] == {"name": "action", "shape": [2], "dtype": "float32"}
    assert record["action_spec"] == env.action_spec.to_dict()
    assert record["normaliser"]["mean"] == policy.norm.mean.tolist()
    assert record["normaliser"]["var"] == policy.norm.var.tolist()
    assert (record["env"], record["rate_hz"]) == ("reach_point", 10.0)
    assert record["checkpoint"] == {"step": 3}
    assert record["robot"] is None and record["control"] is None
    assert record["parity"]["observations"] > 500 and "torch" in record["versions"]


def test_the_record_names_every_joint_of_a_robot(tmp_path: Path) -> None:
    env = make_env(compose_config(["env=reach"]), num_envs=8)
    agent = make_agent(compose_config(["env=reach", *AGENTS["ppo_elu"], "~tuned"]), env)
    write_policy(agent.policy, env, tmp_path / "out", ORIGIN)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    robot, names = record["robot"], [f"joint{k}" for k in range(1, 8)]
    assert [joint["name"] for joint in robot["joints"]] == names
    assert [finger["name"] for finger in robot["fingers"]] == ["finger_left", "finger_right"]
    assert record["action_spec"]["names"] == [*names, "gripper"]
    assert record["action_spec"]["kind"] == "joint_delta"
    limits = np.array([[joint["low"], joint["high"]] for joint in robot["joints"]])
    assert (limits == env.task.robot.joint_range).all()  # type: ignore[attr-defined]
    assert {joint["unit"] for joint in robot["joints"]} == {"rad"}
    assert [f["high"] for f in robot["fingers"]] == [0.04, 0.04]
    assert robot["joints"][0]["max_speed_rad_s"] == 2.175
    assert record["control"]["commands"] == [*names, "finger_left", "finger_right"]
    assert record["control"]["lead_rad"] == 0.2
    env.close()


def test_a_task_may_say_how_it_commands() -> None:
    class Told(Reach):
        def control_rule(self) -> dict[str, Any]:
            return {"lead_rad": 0.2}

    assert joint_map(Told()) == {"robot": None, "control": {"lead_rad": 0.2}}


def test_actions_without_limits_are_exported_without(tmp_path: Path) -> None:
    class Free(Reach):
        def action_spec(self, sim: Any) -> ActionSpec:
            spec, free = super().action_spec(sim), np.full(2, np.inf, np.float32)
            return ActionSpec(spec.names, spec.units, -free, free, spec.kind, spec.rate_hz)

    task = Free(2)
    env = TaskEnv(task, PointSim(task.model(), 8))
    write_policy(trained("ppo_tanh", env), env, tmp_path / "out", ORIGIN)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["action_spec"]["low"] == record["action_spec"]["high"] == [None, None]
    assert np.isposinf(read_exported(tmp_path / "out").action_spec.high).all()


def test_numbers_that_are_not_finite_are_null() -> None:
    assert finite({"a": [1.0, float("-inf")], "b": (float("nan"), "x", 2)}) == {
        "a": [1.0, None],
        "b": [None, "x", 2],
    }


# --- what is refused, and leaves nothing


class Speaker:
    """A policy of language."""

    action_spec, speaks = None, True

    def carry(self, num_worlds: int) -> Carry:
        return {}


class Rememberer:
    """A policy that would be a function of its observations but for its memory."""

    keys = ("state",)

    def carry(self, num_worlds: int) -> Carry:
        return {"hidden": np.zeros((num_worlds, 2))}

    def greedy_layers(self) -> nn.Sequential:
        return nn.Sequential()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Speaker(), "Speaker cannot be exported: a policy of agent=ppo, sac, bc or sb3_ppo can"),
        (Wander(reach()), "Wander cannot be exported"),
        (Rememberer(), "Rememberer cannot be exported: it remembers hidden"),
    ],
)
def test_a_policy_that_cannot_be_exported(policy: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_policy(policy, worlds(), tmp_path / "out", ORIGIN)
    assert list(tmp_path.iterdir()) == []


class Squared(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda policy: [*policy.greedy_layers(), Squared()], "cannot export a layer Squared"),
        (lambda policy: [*policy.greedy_layers(), nn.Tanh()], "acts otherwise than the policy"),
    ],
)
def test_a_graph_that_would_act_otherwise(layers: Any, message: str, tmp_path: Path) -> None:
    env = worlds()
    policy = trained("ppo_tanh", env)
    wrong = nn.Sequential(*layers(policy))
    policy.greedy_layers = lambda: wrong
    with pytest.raises(UserError, match=message):
        write_policy(policy, env, tmp_path / "out", ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_a_policy_whose_weights_are_broken(tmp_path: Path) -> None:
    env = worlds()
    policy = trained("sac", env)
    with torch.no_grad():
        policy.actor[0].bias[0] = float("nan")
    with pytest.raises(UserError, match="acts otherwise than the policy, by inf"):
        write_policy(policy, env, tmp_path / "out", ORIGIN)
    assert list(tmp_path.iterdir()) == []


# --- the verb


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EMBODIED_TRUST", "tests")
    chosen = ["env=point", "sim=points", "num_envs=4", "agent.compile=false", "agent.hidden=[8]"]
    conf = conf_of_toys(tmp_path / "conf")
    cfg = OmegaConf.create(resolved(compose_config(chosen, config_dir=conf)))
    path = tmp_path / "run"
    path.mkdir()
    OmegaConf.save(cfg, path / "config.yaml")
    state = {"agent": make_agent(cfg, make_env(cfg)).state_dict()}
    config: Any = OmegaConf.to_container(cfg)
    save_checkpoint(path / "checkpoints", state, step=40, config=config)
    yield path


def test_a_run_is_exported(run: Path, tmp_path: Path, capsys) -> None:
    out, figures = export([str(run), f"out={tmp_path}/left/policy"])
    report(out, figures)
    said = capsys.readouterr().out
    assert "(N, 4)" in said and "of an action's range at most, over" in said
    manifest = json.loads(
        next((run / "checkpoints").iterdir()).joinpath("manifest.json").read_text()
    )
    assert read_exported(out).record["checkpoint"] == {
        "run": "run",
        "step": 40,
        "sha256": manifest["sha256"],
        "agent": "embodied.agents.ppo.PPO",
    }


def test_that_it_was_not_compared_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("embodied.parity.find_spec", lambda name: None)
    out, figures = export([str(run), f"out={tmp_path}/out"])
    report(out, figures)
    assert "not compared     onnxruntime is missing" in capsys.readouterr().out
    assert read_exported(out).record["parity"] is None


def test_an_empty_folder_is_used_and_a_full_one_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export([str(run), f"out={out}"])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="out exists: choose another out="):
        export([str(run), f"out={out}"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_full_disk_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embodied.export.os.rename", fail)
    with pytest.raises(UserError, match="cannot write .*out: No space left on device"):
        export([str(run), f"out={tmp_path}/new/out"])
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which run: embodied export RUN out=FOLDER"),
        (["out=x"], "say which run"),
        (["runs/none"], "say where to export to: out=FOLDER"),
        (["runs/none", "out=x"], "no run at runs/none"),
        (["expert", "env=hopper", "out=x"], "expert is no run"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export(arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_the_graph_takes_must_be_what_the_record_says(tmp_path: Path) -> None:
    env = worlds()
    write_policy(trained("ppo_tanh", env), env, tmp_path / "out", ORIGIN)
    graph = (tmp_path / "out" / GRAPH).read_bytes()
    with pytest.raises(UserError, match="not what policy.json says"):
        Session(graph, {"state": (5,)}, 2)
