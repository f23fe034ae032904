"""What reward code may know, as text: made from the env, its success withheld."""

from __future__ import annotations

import ast

import pytest

from embodied.abstraction import abstraction
from embodied.build import make_env
from embodied.config import compose_config
from embodied.errors import UserError


def about(*overrides: str):
    env = make_env(compose_config([*overrides]), num_envs=2)
    told = abstraction(env)
    env.close()
    return told


def test_it_is_python_that_names_shapes_units_and_what_is_not_real() -> None:
    told = about("env=pick_cube")
    text = str(told)
    (world, *_) = ast.parse(text).body
    assert isinstance(world, ast.ClassDef) and world.name == "World"
    assert "position: Array  # (N, 3) m: the cube's middle" in text
    assert "opening: Array  # (N,) m: how far apart the fingers are" in text
    assert "velocity: Array  # (N, 3) m/s: of its middle [not on a real robot]" in text
    assert "action[:, 7] gripper, -0.02 to 0.02 m" in text and "dt: float = 0.05" in text
    assert "the table is at z = 0." in text and "150 steps" in text
    assert all(word not in text for word in ("success", "progress", "stage"))
    assert told.unreal == ("red_cube.velocity",)
    assert told.inputs["red_cube.half_size"] == [] and told.inputs["action"] == [8]


def test_it_follows_the_robot_and_the_actions() -> None:
    told = about("env=reach", "robot=iiwa", "env.task.action=ee_delta")
    assert told.inputs["action"] == [5] and told.inputs["arm.joint_angles"] == [7]
    assert told.units["gripper.position"] == "m" and told.units["action"] == ""
    assert about("env=half_cheetah").units["action"] == ""
    assert about("env=line_reach").units["action"] == "m/s"


def test_an_env_that_names_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="names nothing that reward code could read"):
        about("env=gym", "env.id=Pendulum-v1")
