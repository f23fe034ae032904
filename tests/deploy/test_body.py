from __future__ import annotations

import numpy as np
import pytest
from embodied.envs.tasks.robot import panda
from embodied.envs.tasks.urdf import iiwa

from embodied.deploy.body import MARGINS, Body
from tests.deploy.arms import body


def named(margins: np.ndarray) -> dict[str, float]:
    return dict(zip(MARGINS, margins.tolist(), strict=True))


def test_the_tool_and_the_box_are_as_by_hand() -> None:
    arm = body([[-1.0, 0.9], [-0.2, 1.1], [-0.5, 0.5]])
    assert arm.tool(np.array([0.0, np.pi / 2])) == pytest.approx([0.5, 0.5, 0.0])
    margins = named(arm.margins(np.array([0.0, np.pi / 2])))
    assert margins["x low"] == pytest.approx(1.5) and margins["x high"] == pytest.approx(0.4)
    assert margins["y low"] == pytest.approx(0.7) and margins["y high"] == pytest.approx(0.6)
    assert margins["z low"] == margins["z high"] == pytest.approx(0.5)
    assert arm.slopes() == pytest.approx(np.array([[-0.5, -0.5], [0.5, 0.0], [0.0, 0.0]]))


def test_the_margin_of_a_singularity_is_what_the_jacobian_says() -> None:
    """The tool's Jacobian has rows of translation (x, y) and of the turn about z."""
    q = np.array([0.3, 1.0])
    jacobian = np.array(
        [
            [-(np.sin(0.3) + np.sin(1.3)) / 2, -np.sin(1.3) / 2],
            [(np.cos(0.3) + np.cos(1.3)) / 2, np.cos(1.3) / 2],
            [1.0, 1.0],
        ]
    )
    smallest = np.linalg.svd(jacobian, compute_uv=False)[-1]
    assert named(body(singular=0.05).margins(q))["singularity"] == pytest.approx(smallest - 0.05)


def test_the_hand_folded_onto_the_base_collides() -> None:
    """Both are balls of 5 cm, their middles 2 * 0.5 * sin((pi - b) / 2) apart."""
    arm = body(apart_m=0.02)
    b = np.pi - 2 * np.arcsin(0.15)  # 15 cm between the middles, 5 cm of air
    assert named(arm.margins(np.array([0.7, b])))["self-collision"] == pytest.approx(0.03, abs=1e-6)
    b = np.pi - 2 * np.arcsin(0.11)
    assert named(arm.margins(np.array([0.7, b])))["self-collision"] == pytest.approx(
        -0.01, abs=1e-6
    )


@pytest.mark.parametrize("make", [panda, iiwa])
def test_our_robots_are_well_at_home_and_not_folded_up(make: object) -> None:
    robot = make()  # type: ignore[operator]
    home = np.array([*robot.home, 0.02, 0.02])
    joints = (*robot.joints, *robot.fingers)
    box = [[0.0, 1.0], [-1.0, 1.0], [0.0, 1.0]]
    arm = Body(robot.xml, joints, robot.joints, robot.tool, tuple(home), box, 0.01, 0.02)
    assert (arm.margins(home) > 0.0).all()
    folded = home.copy()
    folded[3] = robot.joint_range[3, 0]
    folded[1] = robot.joint_range[1, 1]
    assert (arm.margins(folded) < 0.0).any()
