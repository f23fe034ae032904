"""Worlds on a device, for callers that speak NumPy: on Warp's CPU device here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied.build import make_env
from embodied.config import compose_config
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.host_env import HostTaskEnv, to_host
from embodied.record import record
from embodied.train import train
from tests.toys import through_disk

WORLDS = 3


def make(sim: str, name: str = "line_reach", *overrides: str) -> Any:
    return make_env(compose_config([f"env={name}", f"sim={sim}", *overrides]), num_envs=WORLDS)


@pytest.fixture(scope="module")
def pair() -> tuple[TaskEnv, HostTaskEnv]:
    return make("mujoco"), make("warp")


def test_it_is_what_sim_warp_gives(pair: Any) -> None:
    cpu, warp = pair
    assert type(cpu) is TaskEnv and type(warp) is HostTaskEnv
    assert warp.observation_space.keys() == cpu.observation_space.keys()
    assert warp.action_space == cpu.action_space


def test_all_it_gives_is_numpy_and_its_own(pair: Any) -> None:
    cpu, warp = pair
    rows = []
    for env in pair:
        obs = env.reset(seed=3)
        step = env.step(np.full((WORLDS, env.action_spec.size), 0.1, np.float32))
        again = env.reset(np.array([True, False, False]))
        rows.append([obs, vars(step), again, env.readouts(), {"expert": env.expert()}])
    for mine, theirs in zip(*rows, strict=True):
        for name, value in mine.items():
            for part in value.values() if isinstance(value, dict) else [value]:
                assert isinstance(part, np.ndarray)
            for a, b in zip(leaves(value), leaves(theirs[name]), strict=True):
                assert isinstance(b, np.ndarray) and a.shape == b.shape
                np.testing.assert_allclose(b, a, atol=1e-3, err_msg=name)
    assert not np.shares_memory(warp.reset()["state"], warp.sim.qpos.numpy())


def leaves(value: Any) -> list[Any]:
    return [*value.values()] if isinstance(value, dict) else [value]


def test_bad_actions_are_faults_of_their_world_alone(pair: Any) -> None:
    warp = pair[1]
    warp.reset(seed=1)
    action = np.zeros((WORLDS, warp.action_spec.size), np.float32)
    action[1] = np.nan
    step = warp.step(action)
    assert step.fault.tolist() == [0, 1, 0] and step.truncated.tolist() == [False, True, False]


def test_its_state_goes_through_a_checkpoint(pair: Any, tmp_path: Path) -> None:
    warp = pair[1]
    warp.reset(seed=5)
    action = np.full((WORLDS, warp.action_spec.size), 0.05, np.float32)
    warp.step(action)
    saved = through_disk(warp.state_dict(), tmp_path)
    after = [warp.step(action).obs["state"] for _ in range(3)]
    other = make("warp")
    other.load_state_dict(saved)
    for expected in after:
        np.testing.assert_array_equal(other.step(action).obs["state"], expected)


def test_the_expert_can_be_recorded(pair: Any) -> None:
    shown = record(pair[1], ["expert"] * WORLDS, range(WORLDS))
    assert all(one.succeeded for one in shown.episodes) and len(shown) == WORLDS


def test_a_run_is_one_override_away(tmp_path: Path) -> None:
    common = ["env=line_reach", "sim=warp", "num_envs=4", "agent.compile=false", "video=false"]
    common += ["total_steps=256", "tensorboard=false", "agent.minibatches=1"]
    run = train([*common, f"run_dir={tmp_path}/run"])
    train(["total_steps=512"], resume=run)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device=cuda: .*device=cpu works everywhere"):
            train([*common, "device=cuda", f"run_dir={tmp_path}/other"])
    assert not (tmp_path / "other").exists()


def test_to_host_copies() -> None:
    tensor = torch.zeros(3)
    out = to_host({"a": tensor, "b": {"c": tensor}})
    tensor += 1.0
    assert out["a"].tolist() == out["b"]["c"].tolist() == [0.0, 0.0, 0.0]
