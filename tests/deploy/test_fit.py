from __future__ import annotations

from typing import Any

import pytest
import yaml

from embodied.build import make_env
from embodied.config import compose_config
from embodied.deploy.deploy import ROBOTS
from embodied.deploy.fit import body_settings, check_fit, start_pose
from embodied.deploy.robot_map import RobotMap, robot_map
from embodied.errors import UserError


def plain() -> dict[str, Any]:
    return yaml.safe_load((ROBOTS / "panda_sim.yaml").read_text())


def world(name: str) -> Any:
    return make_env(compose_config([f"env={name}", "sim.threads=1"]), num_envs=1)


def fitted(name: str, **changes: Any) -> tuple[RobotMap, Any]:
    mapped, env = robot_map({**plain(), **changes}), world(name)
    check_fit(mapped, env.task, env.sim)
    return mapped, env


@pytest.mark.parametrize("name", ["reach", "push_cube", "pick_cube", "stack_cube"])
def test_what_can_be_deployed(name: str) -> None:
    mapped, env = fitted(name)
    settings = body_settings(mapped, env.task)
    assert settings["joints"] == [joint.name for joint in mapped.joints]
    assert start_pose(mapped, env.task)[:7] == list(env.task.robot.home)
    assert start_pose(mapped, env.task)[7:] == [0.04, 0.04]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("peg_insert", "sees where socket is, which a tracker cannot say yet"),
        ("open_drawer", "sees where drawer is"),
        ("ant", "no task of a robot arm"),
    ],
)
def test_what_cannot_says_why(name: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        fitted(name)


def test_all_that_does_not_fit_is_told_at_once() -> None:
    joints = plain()["joints"]
    del joints["joint3"]
    joints["wrist"] = {**joints["joint7"], "name": "wrist"}
    joints["joint1"] = {**joints["joint1"], "position": [-3.5, 2.0]}
    order = [joint.get("name", name) for name, joint in joints.items()]
    command = {"topic": "/c", "joints": order}
    with pytest.raises(UserError) as error:
        fitted("pick_cube", joints=joints, command=command, rate_hz=10, tracker=None)
    for part in (
        "rate_hz is 10, the policy acts at 20", "joints.joint3 is not mapped",
        "joints.wrist: panda has no such joint",
        "joints.joint1.position [-3.5, 2] leaves [-2.8973, 2.8973]",
        "objects.cube is not given",
    ):  # fmt: skip
        assert part in str(error.value), part
