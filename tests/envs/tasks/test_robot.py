"""Robots: kinematics against MuJoCo, published tables and PyBullet; shapes; actions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import array_api_compat.numpy as xp
import array_api_compat.torch
import mujoco
import numpy as np
import pytest
import torch
from embodied.envs.tasks.reach import Reach
from embodied.envs.tasks.robot import Robot, panda, read_chain
from embodied.envs.tasks.urdf import arm_from_urdf, iiwa

from embodied.errors import UserError

from .arm_worlds import make

ROBOTS = {"panda": panda, "iiwa": iiwa}


def postures(robot: Robot, count: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(*robot.joint_range.T, (count, 7))


@pytest.mark.parametrize("name", ROBOTS)
def test_kinematics_agree_with_mujoco(name: str) -> None:
    robot = ROBOTS[name]()
    model = mujoco.MjModel.from_xml_string(robot.xml)
    data, site = mujoco.MjData(model), model.site(robot.tool).id
    angles = postures(robot)
    position, rotation, jacobian = robot.kinematics(xp).jacobian(angles)
    columns = [int(model.joint(joint).dofadr[0]) for joint in robot.joints]
    for i, q in enumerate(angles):
        data.qpos[[int(model.joint(joint).qposadr[0]) for joint in robot.joints]] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, data, linear, angular, site)
        np.testing.assert_allclose(position[i], data.site_xpos[site], atol=1e-9)
        np.testing.assert_allclose(rotation[i], data.site_xmat[site].reshape(3, 3), atol=1e-9)
        both = np.concatenate([linear, angular])[:, columns]
        np.testing.assert_allclose(jacobian[i], both, atol=1e-9)


def test_kinematics_are_the_same_in_torch() -> None:
    robot = panda()
    angles = postures(robot)
    chain = robot.kinematics(array_api_compat.torch, torch.device("cpu"))
    for ours, theirs in zip(
        robot.kinematics(xp).jacobian(angles), chain.jacobian(torch.tensor(angles)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


def test_panda_follows_the_published_table() -> None:
    """The manufacturer's modified Denavit-Hartenberg parameters: a, d, alpha of each joint."""
    table = [
        (0, 0.333, 0),
        (0, 0, -np.pi / 2),
        (0, 0.316, np.pi / 2),
        (0.0825, 0, np.pi / 2),
        (-0.0825, 0.384, -np.pi / 2),
        (0, 0, np.pi / 2),
        (0.088, 0, np.pi / 2),
    ]
    robot = panda()
    for q in postures(robot, 16):
        pose = np.eye(4)
        for (a, d, alpha), theta in zip(table, q, strict=True):
            ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
            pose = pose @ [
                [ct, -st, 0, a],
                [st * ca, ct * ca, -sa, -d * sa],
                [st * sa, ct * sa, ca, d * ca],
                [0, 0, 0, 1],
            ]
        tool = pose @ [0, 0, 0.107 + 0.1034, 1]  # flange, then the hand's grasp point
        np.testing.assert_allclose(robot.kinematics(xp).fk(q[None])[0][0], tool[:3], atol=1e-9)


def test_iiwa_follows_its_urdf_as_pybullet_reads_it() -> None:
    bullet = pytest.importorskip("pybullet")
    robot, folder = iiwa(), importlib.util.find_spec("pybullet_data").origin
    client = bullet.connect(bullet.DIRECT)
    path = str(Path(folder).parent / "kuka_iiwa" / "model.urdf")
    arm = bullet.loadURDF(path, useFixedBase=True, physicsClientId=client)
    model = mujoco.MjModel.from_xml_string(robot.xml)
    for i, joint in enumerate(robot.joints):
        info = bullet.getJointInfo(arm, i, physicsClientId=client)
        assert info[1].decode() == joint
        np.testing.assert_allclose(robot.joint_range[i], info[8:10])
        assert model.actuator(joint).forcerange[1] == info[10]
        assert robot.velocity_limit[i] == info[11]
        mass = bullet.getDynamicsInfo(arm, i, physicsClientId=client)[0]
        body = model.joint(joint).bodyid[0]
        assert model.body_mass[body] == mass
    for q in postures(robot, 8):
        for i in range(7):
            bullet.resetJointState(arm, i, q[i], physicsClientId=client)
        state = bullet.getLinkState(arm, 6, computeForwardKinematics=True, physicsClientId=client)
        frame = np.reshape(bullet.getMatrixFromQuaternion(state[5]), (3, 3))
        tool = np.array(state[4]) + frame @ [0, 0, 0.045 + 0.1034]
        np.testing.assert_allclose(robot.kinematics(xp).fk(q[None])[0][0], tool, atol=1e-6)
    bullet.disconnect(client)


@pytest.mark.parametrize("name", ROBOTS)
def test_resolved_steps_bring_the_tool_where_they_should(name: str) -> None:
    robot = ROBOTS[name]()
    chain = robot.kinematics(xp)
    q = np.array([robot.home]) + np.random.default_rng(0).uniform(-0.2, 0.2, (32, 7))
    start, _ = chain.fk(q)
    want = start + [0.05, -0.04, 0.03]
    for _ in range(30):
        twist = np.concatenate([want - chain.fk(q)[0], np.zeros((32, 3))], axis=1)
        q = q + chain.resolve(q, twist, np.zeros_like(q))
    assert np.abs(chain.fk(q)[0] - want).max() < 1e-3


@pytest.mark.parametrize("name", ROBOTS)
def test_home_points_down_over_the_workspace_and_touches_nothing(name: str) -> None:
    env = make("pick_cube", 1, f"robot={name}")
    robot, model = env.task.robot, env.sim.model
    data = mujoco.MjData(model)
    data.qpos[:7] = robot.home
    data.qpos[7:9] = 0.04
    mujoco.mj_forward(model, data)
    names = {model.geom(g).name for c in data.contact for g in (c.geom1, c.geom2)}
    assert names <= {"cube", "table"}
    np.testing.assert_allclose(data.site(robot.tool).xmat[8], -1, atol=1e-3)
    for axis, value in zip("xy", data.site(robot.tool).xpos, strict=False):
        low, high = robot.workspace[axis]
        assert low <= value <= high


@pytest.mark.parametrize("name", ROBOTS)
def test_every_link_and_the_hand_collide_with_the_table_and_the_cube(name: str) -> None:
    model = make("pick_cube", 1, f"robot={name}").sim.model
    solid = {}
    for i in range(model.ngeom):
        geom = model.geom(i)
        if geom.contype[0] or geom.conaffinity[0]:
            solid.setdefault(model.body(geom.bodyid[0]).name, geom)
    moving = [model.body(model.jnt_bodyid[j]).name for j in range(9)]
    assert {*moving, "hand", "cube"} <= set(solid)
    for body in (*moving, "hand"):
        for other in (model.geom("table"), model.geom("cube")):
            mine = solid[body]
            hits = (mine.contype & other.conaffinity) | (other.contype & mine.conaffinity)
            assert hits[0], f"{body} passes through {other.name}"


def test_the_arm_hits_itself_and_the_table() -> None:
    env = make("reach", 1)
    model = env.sim.model
    data = mujoco.MjData(model)

    def contacts(q: list[float]) -> set[frozenset[str]]:
        data.qpos[:7] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        pairs = [(model.geom(c.geom1).name, model.geom(c.geom2).name) for c in data.contact]
        return {frozenset(pair) for pair in pairs}

    assert contacts([0, 0.9, 0, -2.3, 0, 3.2, 0.8]) >= {frozenset({"table", "hand"})}
    folded = contacts([0, -0.4, 0, -3.07, 0, 0.0, 0.8])
    assert any("table" not in pair for pair in folded)


@pytest.mark.parametrize("name", ROBOTS)
def test_position_control_follows_its_targets(name: str) -> None:
    env = make("reach", 4, f"robot={name}")
    start = env.sim.qpos[:, :7].copy()
    action = np.zeros((4, 8), np.float32)
    action[:, :7] = [0.05, -0.04, 0.05, 0.05, -0.05, 0.05, 0.05]
    for _ in range(6):
        env.step(action)
    for _ in range(14):
        env.step(np.zeros((4, 8), np.float32))
    np.testing.assert_allclose(env.sim.qpos[:, :7] - start, 6 * action[:, :7], atol=2e-3)
    assert np.abs(env.sim.qvel[:, :7]).max() < 0.02


def test_targets_never_run_far_ahead_or_out_of_limits() -> None:
    env = make("reach", 4)
    for _ in range(60):
        env.step(np.tile(env.action_spec.high, (4, 1)))
    target, q = env.memory["target"], env.sim.qpos[:, :7]
    limits = env.task.robot.joint_range
    assert (target <= limits[:, 1]).all()
    assert np.abs(target - q).max() <= 0.2 + 0.1  # measured a step later


def test_tool_steps_move_the_tool_along_the_tables_axes() -> None:
    env = make("reach", 8, "env.task.action=ee_delta")
    assert env.action_spec.names == ("x", "y", "z", "yaw", "gripper")
    for axis, step in ((0, 0.01), (1, -0.01), (2, 0.01)):
        env.reset(seed=axis)
        idle = np.zeros((8, 5), np.float32)
        for _ in range(15):  # it levels itself first
            env.step(idle)
        before, action = env.memory["tool"].copy(), idle.copy()
        action[:, axis] = step
        for _ in range(8):
            env.step(action)
        for _ in range(10):
            env.step(idle)
        moved = env.memory["tool"] - before
        np.testing.assert_allclose(moved[:, axis], 8 * step, atol=0.01)
        assert np.abs(np.delete(moved, axis, axis=1)).max() < 0.015
        assert (env.memory["hand"][:, 2, 2] < -0.99).all()


def test_the_gripper_opens_and_closes() -> None:
    env = make("reach", 2)
    action = np.zeros((2, 8), np.float32)
    for sign, width in ((1, 0.08), (-1, 0.0)):
        action[:, -1] = sign * 0.02
        for _ in range(20):
            env.step(action)
        np.testing.assert_allclose(env.sim.qpos[:, 7:9].sum(axis=1), width, atol=2e-3)


def test_wrong_settings_are_said_in_one_line() -> None:
    with pytest.raises(UserError, match=r"env\.task\.action=torque: give joint_delta or ee_delta"):
        Reach(panda(), "torque")
    with pytest.raises(UserError, match=r"env\.task\.weights\.lift: reach has no such reward term"):
        Reach(panda(), weights={"lift": 2.0})


def test_a_robot_with_a_broken_chain_is_refused() -> None:
    model = mujoco.MjModel.from_xml_string(panda().xml)
    with pytest.raises(ValueError, match="do not lead to"):
        read_chain(model, (*panda().joints, "finger_left"), "flange")


def test_a_urdf_that_is_no_serial_arm_is_refused() -> None:
    urdf = """<robot name="two"><link name="a"/><link name="b"/><link name="c"/><link name="d"/>
      <joint name="j" type="revolute"><parent link="a"/><child link="b"/></joint>
      <joint name="k" type="revolute"><parent link="c"/><child link="d"/></joint></robot>"""
    with pytest.raises(ValueError, match="one base, this URDF has 2"):
        arm_from_urdf(urdf, [0.1] * 2, [(1, 1)], 0.1)
    assert ElementTree.fromstring(iiwa().xml).get("model") == "lbr_iiwa"


@pytest.mark.parametrize("name", ROBOTS)
def test_both_cameras_see_something(name: str) -> None:
    env = make("pick_cube", 1, f"robot={name}")
    for camera in env.task.cameras:
        image = env.render(camera, np.array([0]), 64, 64)[0].astype(float)
        assert image.std() > 15
        red = (image[..., 0] > 1.5 * image[..., 1]) & (image[..., 0] > 1.5 * image[..., 2])
        assert red.any(), f"the cube is not in sight of {camera}"
