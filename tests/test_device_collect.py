"""A rollout on a device is the rollout that the host would have collected, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied.bench import bench
from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.collect import Collector
from embodied.config import compose_config
from embodied.device_collect import DeviceCollector
from embodied.graph import Captured
from embodied.host_env import to_host
from tests.toys import through_disk

WORLDS, STEPS = 3, 14
COMMON = ["env=line_reach", "sim=warp", "env.max_steps=9", "agent.compile=false", "~tuned"]
SAC = ["agent=sac", "agent.warm_up=20", "agent.batch=16"]


def parts(*overrides: str, plain: bool = False) -> tuple[Any, Any, Any]:
    """An agent, its worlds, and what rolls it out; `plain` takes the host's collector."""
    cfg = compose_config([*COMMON, *overrides])
    env = make_env(cfg, num_envs=WORLDS)
    agent = make_agent(cfg, env)
    rewards = make_rewards(cfg, env, agent.gamma)
    collector = Collector(env, rewards, stagger=True) if plain else None
    return agent, env, collector or make_collector(cfg, env, agent, rewards)


def assert_equal(mine: Any, theirs: Any) -> None:
    for name in ("obs", "last_obs", "final_obs", "readouts", "reward_terms"):
        ours, other = to_host(getattr(mine, name)), getattr(theirs, name)
        assert ours.keys() == other.keys(), name
        for key, value in ours.items():
            np.testing.assert_array_equal(value, other[key], err_msg=f"{name} {key}")
    for name in ("action", "action_executed", "reward", "terminated", "truncated", "is_first",
                 "valid", "step_id", "final_index"):  # fmt: skip
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)
    np.testing.assert_array_equal(to_host(mine.next_obs)["state"], theirs.next_obs["state"])


@pytest.mark.parametrize("agent", [["agent=ppo"], SAC], ids=["ppo", "sac"])
def test_it_is_what_the_host_would_have_collected(agent: list[str]) -> None:
    ours, _, device = parts(*agent)
    theirs, _, host = parts(*agent, plain=True)
    assert type(device) is DeviceCollector and type(host) is Collector
    for _ in range(4):
        mine = device.collect(ours.policy, STEPS)
        reference = host.collect(theirs.policy, STEPS)
        assert isinstance(mine.obs["state"], torch.Tensor)
        assert_equal(mine, reference)
        assert ours.update(mine) == theirs.update(reference)
    a, b = device.episodes.drain(), host.episodes.drain()
    assert a.keys() == b.keys() and len(a["return"]) > 5
    for name, value in a.items():
        np.testing.assert_allclose(value, b[name], rtol=1e-6, err_msg=name)


def test_a_judge_of_states_gets_them_on_the_host() -> None:
    own = ["reward_model=[env,clock]", "reward_model.clock.shaping=delta"]
    (mine, _, device), (theirs, _, host) = parts(*own), parts(*own, plain=True)
    for _ in range(2):
        a, b = device.collect(mine.policy, STEPS), host.collect(theirs.policy, STEPS)
        assert isinstance(a.obs["state"], np.ndarray)
        assert_equal(a, b)
    success = ["reward_model.env.readout=success"]
    assert parts(*success)[2].collect(mine.policy, STEPS).readouts.keys() == {"success"}


def test_it_goes_on_from_its_state(tmp_path: Path) -> None:
    agent, _, device = parts()
    for _ in range(2):
        device.collect(agent.policy, STEPS)
    saved = through_disk({"agent": agent.state_dict(), "here": device.state_dict()}, tmp_path)
    expected = device.collect(agent.policy, STEPS)
    other, _, again = parts("seed=9")
    other.load_state_dict(saved["agent"])
    again.load_state_dict(saved["here"])
    assert_equal(again.collect(other.policy, STEPS), _on_host(expected))


def _on_host(traj: Any) -> Any:
    for name in ("obs", "last_obs", "final_obs"):
        setattr(traj, name, to_host(getattr(traj, name)))
    return traj


def test_a_bad_action_is_a_fault_of_its_world() -> None:
    agent, _, device = parts()
    decide = agent.policy.decide

    def spoiled(x: torch.Tensor) -> torch.Tensor:
        action = decide(x)
        action[1] = torch.nan
        return action

    object.__setattr__(agent.policy, "decide", spoiled)
    device.max_fault_rate = 1.0
    traj = device.collect(agent.policy, 3)
    assert traj.valid.tolist() == [[True, False, True]] * 3
    assert device.faults == 3


def test_its_phases_can_be_seen() -> None:
    table = bench([*COMMON, "num_envs=2", "updates=1"])
    assert {"physics", "observe", "act", "reset", "update"} <= table.keys()


def test_on_the_cpu_what_would_be_captured_is_called() -> None:
    calls = []
    step = Captured(lambda: calls.append(1), dict, lambda state: None, torch.device("cpu"))
    for _ in range(5):
        step()
    assert len(calls) == 5
