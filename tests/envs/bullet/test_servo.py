"""The law of the motors, by hand."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from embodied.envs.bullet.servo import DEAD, STIFF, Servos

MODEL = """<mujoco><compiler autolimits="true"/><worldbody>
  <body name="a"><joint name="driven" type="slide" range="-1 1" armature="0.5" damping="3"/>
    <geom type="sphere" size="0.1" mass="1"/>
    <body name="b"><joint name="loose" type="slide" damping="2" stiffness="7" springref="0.1"/>
      <geom type="sphere" size="0.1" mass="1"/></body></body>
  </worldbody><actuator>
  <position name="driven" joint="driven" kp="100" kv="20" ctrlrange="-0.5 0.5"
    forcerange="-30 30"/></actuator></mujoco>"""
DT, MASS = 0.01, np.array([[1.5, 4.0]])


def servos(num_worlds: int = 1) -> Servos:
    model: Any = mujoco.MjModel.from_xml_string(MODEL)
    return Servos(model, [0, 1], num_worlds, DT)


def command(q: list[float], v: list[float], control: float) -> tuple[np.ndarray, np.ndarray]:
    law = servos()
    target = law.targets(np.array([[control]]))
    speed, force = law.command(np.arange(1), MASS, np.array([q]), np.array([v]), target)
    return speed[0], force[0]


def test_the_velocity_is_that_of_an_implicit_step() -> None:
    speed, _ = command([0.1, 0.2], [0.3, -0.4], 0.4)
    # driven: mass 1.5 + 0.5 of the rotor, drag 20 + 3, spring 100 toward 0.4
    assert speed[0] == pytest.approx((2.0 * 0.3 + DT * 100 * 0.3) / (2.0 + DT * 23 + DT**2 * 100))
    # loose: mass 4, drag 2, spring 7 toward 0.1
    assert speed[1] == pytest.approx((4.0 * -0.4 + DT * 7 * -0.1) / (4.0 + DT * 2 + DT**2 * 7))


def test_the_force_is_what_the_law_gives_now() -> None:
    _, force = command([0.1, 0.2], [0.3, -0.4], 0.4)
    assert force[0] == pytest.approx(100 * 0.3 - 20 * 0.3 - 3 * 0.3)
    assert force[1] == pytest.approx(abs(7 * -0.1 + 2 * 0.4))


def test_forces_and_controls_are_limited_as_in_the_model() -> None:
    _, force = command([-0.4, 0.1], [0.0, 0.0], 0.5)
    assert force[0] == pytest.approx(30.0)
    assert servos().targets(np.array([[2.0]]))[0] == pytest.approx([0.5, 0.0])


def test_a_limit_pushes_back_from_beyond_it_alone() -> None:
    _, inside = command([0.999, 0.1], [0.0, 0.0], 0.5)
    beyond, force = command([1.002, 0.1], [0.4, 0.0], 0.5)
    wall, dead = STIFF / DT**2 * 2.0, DEAD / DT * 2.0
    assert inside[0] == pytest.approx(30.0)  # the servo alone
    assert -0.1 < beyond[0] < 0.0  # stopped in a step, and on its way back
    assert force[0] == pytest.approx(30.0 + wall * 0.002 + (dead + 3) * 0.4)


def test_worlds_have_gains_of_their_own() -> None:
    law = servos(2)
    gain, bias = np.zeros((1, 1, 10)), np.zeros((1, 1, 10))
    gain[..., 0], bias[..., 1], bias[..., 2] = 50.0, -50.0, -10.0
    law.set_gains(np.array([1]), gain, bias)
    q, v = np.zeros((2, 2)), np.zeros((2, 2))
    target = law.targets(np.full((2, 1), 0.2))
    _, force = law.command(np.arange(2), MASS.repeat(2, axis=0), q, v, target)
    assert force[:, 0] == pytest.approx([20.0, 10.0])
