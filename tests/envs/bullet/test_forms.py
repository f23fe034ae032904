"""Which link of Bullet stands for which body, and that it is where the body is."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from embodied.envs.bullet.engine import p

from embodied.build import make_env
from embodied.config import compose_config

TARGET_M = 0.105
"""From the URDF's hand to its `panda_grasptarget`; the task's tool is 1.6 mm nearer."""


def env(name: str, *overrides: str) -> Any:
    return make_env(compose_config([f"env={name}", "sim=bullet", *overrides]), 1)


def still(sim: Any, qpos: np.ndarray) -> None:
    """Build the world in a state, without a step."""
    sim.reset({"qpos": qpos}, np.arange(1))
    sim._build()


def test_the_urdfs_tool_is_where_the_tasks_kinematics_say() -> None:
    worlds = env("reach")
    sim, robot = worlds.sim, worlds.task.robot
    chain = robot.kinematics(np)
    rng = np.random.default_rng(0)
    for _ in range(8):
        q = rng.uniform(*robot.joint_range.T)
        qpos = sim.parameter("qpos0")[None].copy()
        qpos[0, :7], qpos[0, 7:9] = q, [0.03, 0.01]
        still(sim, qpos)
        arm = sim._worlds[0].bodies[0]
        client = {"physicsClientId": sim._worlds[0].client}
        links = {p.getJointInfo(arm, i, **client)[12].decode(): i for i in range(12)}
        state = {
            name: p.getLinkState(arm, i, computeForwardKinematics=1, **client)[4:6]
            for name, i in links.items()
        }
        where, quat = state["panda_grasptarget"]
        axes = np.reshape(p.getMatrixFromQuaternion(quat), (3, 3))
        tool, hand = chain.fk(q[None])
        np.testing.assert_allclose(axes, hand[0], atol=1e-4)
        np.testing.assert_allclose(where - (TARGET_M - 0.1034) * axes[:, 2], tool[0], atol=2e-4)
        between = np.subtract(state["panda_leftfinger"][0], state["panda_rightfinger"][0])
        np.testing.assert_allclose(between @ axes, [0.0, 0.04, 0.0], atol=2e-4)  # along y
    worlds.close()


@pytest.mark.parametrize(
    "overrides", [(), ("sim.urdf=null",), ("sim.urdf=null", "robot=iiwa")], ids=str
)
@pytest.mark.parametrize("name", ["pick_cube", "tidy_table", "peg_insert"])
def test_every_body_is_where_mujoco_has_it(name: str, overrides: tuple[str, ...]) -> None:
    worlds = env(name, *overrides)
    worlds.reset(seed=np.array([3]))
    sim, state = worlds.sim, worlds.sim.snapshot()
    sim._build()
    data = mujoco.MjData(sim.model)
    data.qpos[:] = state["state/qpos"][0]
    data.mocap_pos[:], data.mocap_quat[:] = (state[f"state/mocap_{k}"][0] for k in ("pos", "quat"))
    mujoco.mj_kinematics(sim.model, data)
    seen, client = set(), {"physicsClientId": sim._worlds[0].client}
    for body, form in zip(sim._worlds[0].bodies, sim._plan.forms, strict=True):
        for i, stands_for in enumerate(form.bodies[1:]):
            if len(form.bodies) == len(form.tree.limbs) and not form.tree.limbs[i + 1].heavy:
                continue
            if i in form.links or len(form.bodies) == len(form.tree.limbs):
                told = p.getLinkState(body, i, computeForwardKinematics=1, **client)[4]
                np.testing.assert_allclose(told, data.xpos[stands_for], atol=1e-3)
                seen.add(sim.model.body(stands_for).name)
        if form.tree.free:
            told = p.getBasePositionAndOrientation(body, **client)[0]
            np.testing.assert_allclose(told, data.xipos[form.tree.root], atol=1e-9)
            seen.add(sim.model.body(form.tree.root).name)
        elif form.tree.root and sim.model.body_mocapid[form.tree.root] >= 0:
            told = p.getBasePositionAndOrientation(body, **client)[0]
            np.testing.assert_allclose(told, data.xpos[form.tree.root], atol=1e-9)
    wanted = {"pick_cube": {"cube", "blue_cube"}, "tidy_table": {"cube", "blue_cube", "drawer"}}
    assert seen >= wanted.get(name, {"peg"}) | {"finger_left", "finger_right"}
    worlds.close()


def test_a_link_without_a_joint_stands_for_its_parents_body() -> None:
    worlds = env("reach")
    sim, form = worlds.sim, worlds.sim._plan.arm.form
    names = [sim.model.body(body).name for body in form.bodies]
    assert names[:8] == [f"link{i}" for i in range(8)]
    assert names[8:] == ["link7", "link7", "finger_left", "finger_right", "link7"]
    assert [bool(geoms) for geoms in form.geoms] == [True] * 8 + [False, True, True, True, False]
    worlds.close()


def test_masses_are_the_makers_times_the_models_share() -> None:
    worlds = env("reach")
    sim = worlds.sim
    rows = np.repeat(sim.parameter("body_mass")[None], 1, axis=0)
    rows[:, sim.body("link3")] *= 2.0
    sim.set_parameters({"body_mass": rows}, np.arange(1))
    sim.reset({}, np.arange(1))
    sim._build()
    arm, client = sim._worlds[0].bodies[0], {"physicsClientId": sim._worlds[0].client}
    mass = [p.getDynamicsInfo(arm, i, **client)[0] for i in range(7)]
    assert mass == pytest.approx([2.7, 2.73, 2 * 2.04, 2.08, 3.0, 1.3, 0.2])
    worlds.close()
