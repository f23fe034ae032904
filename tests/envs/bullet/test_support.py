"""Models that Bullet would run otherwise than they are meant are refused, by name."""

from __future__ import annotations

import mujoco
import pytest
from embodied.envs.bullet.support import check_model

from embodied.errors import UserError

from .worlds import SERVO, box, model

ALONE = '<body name="b"><joint name="j" type="hinge"{}/><geom name="g" size="0.1"/></body>'


def of(bodies: str = "", extra: str = "", actuators: str = SERVO) -> None:
    check_model(mujoco.MjModel.from_xml_string(model(bodies, extra, actuators=actuators).xml))


def test_what_arm_tasks_are_made_of_is_taken() -> None:
    text = model(box("cube", "0 0 1", 0.1) + ALONE.format(""), "", actuators=SERVO).xml
    assert check_model(mujoco.MjModel.from_xml_string(text)) is None, "it raises nothing"


@pytest.mark.parametrize(
    ("bodies", "message"),
    [
        ('<body><joint name="j" type="ball"/><geom size="0.1"/></body>', "'j' is a ball joint"),
        (ALONE.format(' pos="0 0 1"'), "'j' is not at its body's origin"),
        (ALONE.format(' ref="0.5"'), "'j' is not 0 as the model is drawn"),
        (ALONE.format(' frictionloss="0.5"'), "'j' has dry friction"),
        ('<geom name="e" type="ellipsoid" size="1 2 3"/>', "'e' has a shape that Bullet lacks"),
        (
            '<body mocap="true"><geom name="s" type="plane" size="1 1 1"/></body>',
            "'s' is a plane that moves",
        ),
    ],
)
def test_what_is_refused(bodies: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(bodies)


@pytest.mark.parametrize(
    ("actuators", "message"),
    [
        ("", "nothing moves it"),
        ('<actuator><motor name="m" joint="lift"/></actuator>', "'m' is no position servo"),
        ('<actuator><velocity joint="lift" kv="1"/></actuator>', "actuator 0 is no position"),
        (SERVO + '<equality><weld body1="tool"/></equality>', "it has equality constraints"),
    ],
)
def test_what_moves_it_otherwise_is_refused(actuators: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(actuators=actuators)


def test_physics_that_is_switched_off_is_refused() -> None:
    with pytest.raises(UserError, match="parts of the physics off"):
        of(extra='<option><flag contact="disable"/></option>')
