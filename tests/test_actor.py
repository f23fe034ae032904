"""Another simulator or robot takes its place in the worlds that a run was trained in."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from embodied.actor import Actor
from embodied.config import compose_config, resolved
from embodied.errors import UserError

OWN = ("env=pick_cube", "env.task.action=ee_delta", "env.task.weights.goal=2.5",
       "env.randomise.mass=[0.8,1.2]", "sim.threads=1")  # fmt: skip


def actor(*overrides: str) -> Actor:
    """What a run trained with these leaves, as far as its worlds go."""
    cfg = OmegaConf.create(resolved(compose_config(overrides)))
    run: Any = SimpleNamespace(cfg=cfg)
    return Actor("run", lambda env: pytest.fail("not asked to act"), run)


def test_another_simulator_changes_nothing_else() -> None:
    who = actor(*OWN)
    before = copy.deepcopy(who.run.cfg)  # type: ignore[union-attr]
    cfg = who.worlds(["sim=bullet", "sim.finer=3", "env.max_steps=7"])
    assert cfg.sim._target_.endswith("BulletSim") and cfg.sim.finer == 3
    assert cfg.env.max_steps == 7
    cfg.env.max_steps = before.env.max_steps
    assert cfg.env == before.env  # its action, weights and randomisation
    assert cfg.robot == before.robot
    assert who.run.cfg == before  # type: ignore[union-attr]


def test_options_of_a_simulator_that_point_elsewhere_are_looked_up_in_the_run() -> None:
    cfg = actor(*OWN, "env.room.contacts=5").worlds(["sim=warp"])
    assert cfg.sim.contacts == 5 and cfg.sim.device == cfg.device


def test_another_robot_takes_the_place_of_the_first_wherever_it_is() -> None:
    cfg = actor(*OWN).worlds(["robot=iiwa", "sim=bullet", "sim.urdf=null"])
    assert cfg.robot._target_ == cfg.env.task.robot._target_ == "embodied.envs.tasks.urdf.iiwa"
    assert cfg.env.task.action == "ee_delta" and cfg.sim.urdf is None


def test_randomisation_can_be_switched_off_and_on() -> None:
    who = actor(*OWN)
    off = who.worlds(["sim=bullet", "env.randomise.mass=[1.0,1.0]"]).env.randomise
    assert off.mass == [1.0, 1.0]
    on = who.worlds(["env.randomise.friction=[0.5,2.0]"]).env.randomise
    assert on.friction == [0.5, 2.0] and on.mass == [0.8, 1.2]


def test_another_env_is_composed_anew() -> None:
    cfg = actor(*OWN).worlds(["env=reach", "sim=bullet"])
    assert cfg.env.name == "reach" and cfg.env.task.action == "joint_delta"
    assert cfg.sim._target_.endswith("BulletSim")


@pytest.mark.parametrize(
    ("trained_in", "choice", "message"),
    [
        ("half_cheetah", "robot=iiwa", "half_cheetah takes no robot"),
        ("babyai", "sim=bullet", "babyai takes no sim"),
        ("pick_cube", "sim=bulet", "did you mean bullet"),
        ("pick_cube", "robot=iwa", "did you mean iiwa"),
    ],
)
def test_what_cannot_be_swapped(trained_in: str, choice: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        actor(f"env={trained_in}").worlds([choice])


def test_keys_of_the_new_simulator_alone_are_known() -> None:
    with pytest.raises(UserError, match="sim.threads"):
        actor(*OWN).worlds(["sim=bullet", "sim.threads=2"])
