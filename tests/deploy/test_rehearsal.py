"""A policy, the guard and a simulated arm together, in lockstep: what the guard costs a policy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from embodied.build import make, make_env
from embodied.config import compose_config
from embodied.deploy.deploy import ROBOTS, SIM
from embodied.deploy.messages import Floats
from embodied.deploy.robot_env import RobotEnv
from embodied.deploy.robot_map import RobotMap, robot_map
from tests.deploy.lockstep import Rehearsal


def plain(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((ROBOTS / "panda_sim.yaml").read_text()), **changes}


class Stage:
    """One task's expert on a simulated arm; every command that was sent is in `sent`."""

    def __init__(self, name: str, mapped: RobotMap, shadow: bool = False) -> None:
        cfg = compose_config([f"env={name}", "sim.threads=1"])
        task = make(cfg.env.task)
        joints = [joint.name for joint in mapped.joints]
        self.sim = make(
            OmegaConf.create(SIM), source=task.model(), num_worlds=1, joints=joints,
            objects=task.tracked, rate_hz=mapped.rate_hz, sleep=lambda seconds: None,
        )  # fmt: skip
        self.env = RobotEnv(task, self.sim, cfg.env.max_steps)
        truth = make_env(cfg, num_envs=1)
        self.rehearsal = Rehearsal(truth, mapped, (1, 1), shadow)
        self.sim.link = self.rehearsal
        self.sent: list[Any] = []
        publish = self.rehearsal.ours.publish

        def note(topic: str, message: Any) -> bool:
            if topic == mapped.command_topic:
                self.sent.append(message)
            return publish(topic, message)

        self.rehearsal.ours.publish = note  # type: ignore[method-assign]

    def play(self, seed: int, steps: int = 150) -> bool:
        self.rehearsal.seed = seed
        self.env.reset(seed=np.array([seed]))
        for _ in range(steps):
            self.env.step(self.env.expert())
            if self.rehearsal.plant.succeeded:
                return True
        return False


def test_an_expert_succeeds_through_the_guard_and_within_its_limits() -> None:
    mapped = robot_map(plain())
    stage = Stage("reach", mapped)
    assert all(stage.play(seed) for seed in range(4))
    rows = np.array([message.data for message in stage.sent])
    low, high, speed = np.array([(j.low, j.high, j.velocity) for j in mapped.joints]).T
    assert ((rows >= low) & (rows <= high)).all()
    resets = 4  # where the simulated arm was put elsewhere
    jumps = np.abs(np.diff(rows, axis=0)) > speed / 200 * (1 + 1e-9)
    assert jumps.any(axis=1).sum() < resets
    assert not stage.rehearsal.guard.trips


def test_a_tracked_cube_is_picked_up_and_its_pose_is_what_was_measured() -> None:
    stage = Stage("pick_cube", robot_map(plain()))
    assert stage.play(4)
    place, _ = stage.sim.joint("cube")
    np.testing.assert_allclose(stage.env.memory["tracked"][0], stage.sim.qpos[0, place])
    assert stage.sim.qpos[0, place][2] > 0.05


def test_another_robots_units_signs_and_order_change_nothing() -> None:
    odd = plain()
    odd["joints"]["joint2"] |= {"unit": "deg", "sign": -1, "offset": 0.3}
    odd["joints"]["joint5"] |= {"scale": 2.0}
    odd["joints"]["finger_left"] |= {"unit": "mm"}
    odd["command"]["joints"] = odd["command"]["joints"][::-1]
    ours, theirs = Stage("reach", robot_map(plain())), Stage("reach", robot_map(odd))
    for stage in (ours, theirs):
        assert stage.play(1)
    assert len(ours.sent) == len(theirs.sent)
    first, other = ours.sent[-1], theirs.sent[-1]
    assert isinstance(first, Floats) and isinstance(other, Floats)
    expected = np.array(first.data)
    expected[1] = -(expected[1] - 0.3) * 180.0 / math.pi
    expected[4] /= 2.0
    expected[7] *= 1000.0
    np.testing.assert_allclose(other.data[::-1], expected, atol=1e-6)


def test_in_shadow_the_robot_stays_where_it_is() -> None:
    stage = Stage("reach", robot_map(plain()), shadow=True)
    assert not stage.play(1, steps=20)
    assert not stage.sent
    held = stage.rehearsal.plant.control
    np.testing.assert_allclose(stage.sim.qpos[0, :7], held[0, :7], atol=0.02)


@pytest.mark.parametrize("wrong", ["swap", "sign"])
def test_a_wrong_map_ends_in_a_trip_and_not_in_a_swing(wrong: str) -> None:
    """The robot's end has the true map; ours has two joints for one another, or a sign wrong."""
    mapped = robot_map(plain())
    stage = Stage("reach", mapped)
    mistaken = plain()
    joints = mistaken["joints"]
    if wrong == "swap":
        joints["joint2"]["name"], joints["joint4"]["name"] = "panda_joint4", "panda_joint2"
    else:
        joints["joint4"]["sign"] = -1
    stage.rehearsal.plant.robot = robot_map(mistaken)
    furthest, start = 0.0, None
    stage.rehearsal.seed = 1
    stage.env.reset(seed=np.array([1]))
    for _ in range(40):
        q = stage.rehearsal.plant.sim.qpos[0, :7].copy()
        start = q if start is None else start
        furthest = max(furthest, float(np.abs(q - start).max()))
        if stage.env.step(stage.env.expert()).fault[0]:
            break
    assert stage.rehearsal.guard.trips == 1
    assert furthest < 0.5
