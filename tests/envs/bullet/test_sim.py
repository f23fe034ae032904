from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.envs.bullet.sim import BulletSim
from omegaconf import OmegaConf

from embodied.build import make, make_env
from embodied.cli import main
from embodied.config import compose_config
from embodied.errors import UserError
from embodied.sim import ModelSource

SLOPE = """<mujoco><option timestep="0.005"/><worldbody>
  <geom name="floor" type="plane" size="5 5 0.1" friction="{floor}"/>
  <body name="block" pos="0 0 0.0501"><freejoint name="block"/>
    <geom name="block" type="box" size="0.05 0.05 0.05" mass="{mass}" friction="{block}"/></body>
  <body name="cart" pos="2 0 0.2"><joint name="cart" type="slide" axis="0 1 0" damping="1"/>
    <geom name="cart" type="box" size="0.05 0.05 0.05" mass="1"/></body>
  <body name="wall" mocap="true" pos="-2 0 1"><geom type="box" size="0.1 0.1 0.1"/></body>
</worldbody><actuator><position name="cart" joint="cart" kp="100" kv="20" ctrlrange="-1 1"/>
</actuator></mujoco>"""
"""A block on a floor, a cart on a rail with a servo, a wall that is put somewhere."""
G = 9.81


def blocks(worlds: int = 1, floor: float = 0.5, block: float = 0.5, mass: float = 1.0) -> BulletSim:
    sim = BulletSim(ModelSource(SLOPE.format(floor=floor, block=block, mass=mass)), worlds)
    everywhere = np.arange(worlds)
    sim.reset({}, everywhere)
    return sim


def arm(name: str, worlds: int = 1, seed: int = 0, **overrides: str) -> Any:
    more = [f"{key}={value}" for key, value in overrides.items()]
    cfg = compose_config([f"env={name}", "sim=bullet", *more])
    return make_env(cfg, num_envs=worlds, seed=seed)


def shove(sim: BulletSim, speed: float) -> float:
    """How far the block slides that is pushed off at a speed."""
    qvel = np.zeros((1, 7))
    qvel[0, 0] = speed
    sim.reset({"qvel": qvel}, np.array([0]))
    sim.step(np.zeros((1, 1)), 300)
    return float(sim.qpos[0, 0])


@pytest.mark.parametrize(
    ("floor", "block", "rubs"), [(0.5, 0.5, 0.5), (0.3, 0.7, 0.7), (0.6, 0.2, 0.6)]
)
def test_two_things_rub_as_the_rougher_of_them_does(
    floor: float, block: float, rubs: float
) -> None:
    """As in MuJoCo, where Bullet would multiply; it slides v^2 / (2 mu g)."""
    far = shove(blocks(floor=floor, block=block), 1.0)
    assert far == pytest.approx(1.0 / (2.0 * rubs * G), rel=0.06)


def test_a_world_may_have_a_friction_and_a_size_of_its_own() -> None:
    sim = blocks(2)
    friction = np.repeat(sim.parameter("geom_friction")[None], 2, axis=0)
    friction[1, :, 0] = 0.25
    sizes = np.repeat(sim.parameter("geom_size")[None], 2, axis=0)
    sizes[1, sim.geom("block")] = 0.03
    both = np.arange(2)
    sim.set_parameters({"geom_friction": friction, "geom_size": sizes}, both)
    qpos, qvel = np.repeat(sim.qpos[:1], 2, axis=0), np.zeros((2, 7))
    qpos[1, 2], qvel[:, 0] = 0.0301, 1.0
    sim.reset({"qpos": qpos, "qvel": qvel}, both)
    sim.step(np.zeros((2, 1)), 300)
    np.testing.assert_allclose(sim.qpos[:, 2], [0.05, 0.03], atol=1e-3)
    np.testing.assert_allclose(sim.qpos[:, 0], 1.0 / (2 * G * np.array([0.5, 0.25])), rtol=0.06)


def test_a_servo_comes_to_its_target_as_a_damped_spring_does() -> None:
    """kp 100, kv 20 and 1 for damping on 1 kg: x'' = 100 (u - x) - 21 x'."""
    sim = blocks()
    position, speed, x = 0.0, 0.0, []
    for _ in range(60):
        sim.step(np.full((1, 1), 0.3), 1)
        for _ in range(50):
            speed += 1e-4 * (100.0 * (0.3 - position) - 21.0 * speed)
            position += 1e-4 * speed
        x.append((sim.qpos[0, 7], position))
    ours, theirs = np.array(x).T
    assert np.abs(ours - theirs).max() < 0.015
    assert ours[-1] == pytest.approx(theirs[-1], abs=0.01)


def test_a_reset_is_to_the_digit_and_leaves_nothing_of_the_episode_before() -> None:
    env = arm("pick_cube", 2)

    def episode(seed: int) -> tuple[np.ndarray, np.ndarray]:
        env.reset(seed=np.array([seed, seed + 1]))
        start = env.sim.qpos.copy()
        rows, _, _ = env.task.reset(env.sim, env._draw().__class__(env._seed, env._episode))
        np.testing.assert_array_equal(start, rows["qpos"])
        for _ in range(25):
            env.step(env.expert())
        return start, env.sim.qpos.copy()

    first, end = episode(3)
    episode(50)
    again, end_again = episode(3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(end, end_again)
    env.close()


def test_a_world_depends_on_its_own_seed_alone() -> None:
    alone, among = arm("pick_cube"), arm("pick_cube", 3)
    alone.reset(seed=np.array([7]))
    among.reset(seed=np.array([1, 7, 9]))
    for _ in range(30):
        alone.step(alone.expert())
        among.step(among.expert())
    np.testing.assert_array_equal(among.sim.qpos[1], alone.sim.qpos[0])
    for env in (alone, among):
        env.close()


def test_the_panda_of_pybullet_has_its_tool_where_the_models_is() -> None:
    """What the task computes from joint angles is where Bullet's own arm has its fingers."""
    from embodied.envs.bullet.engine import p

    env = arm("reach")
    sim, task, rng = env.sim, env.task, np.random.default_rng(0)
    sim.step(np.zeros((1, 9)), 1)
    world = sim._worlds[0]
    names = {
        p.getJointInfo(world.bodies[0], j, physicsClientId=world.client)[12].decode(): j
        for j in range(p.getNumJoints(world.bodies[0], physicsClientId=world.client))
    }
    for _ in range(10):
        q = rng.uniform(*task.robot.joint_range.T)
        qpos = sim.qpos.copy()
        qpos[0, task._q] = q
        sim.reset({"qpos": qpos}, np.array([0]))
        sim._build()
        tool, hand = task._chain.fk(q[None])
        told = p.getLinkState(
            world.bodies[0], names["panda_grasptarget"], computeForwardKinematics=1,
            physicsClientId=world.client,
        )  # fmt: skip
        np.testing.assert_allclose(told[4], tool[0], atol=2e-3)
        turn = np.array(p.getMatrixFromQuaternion(told[5])).reshape(3, 3)
        np.testing.assert_allclose(turn[:, 2], hand[0, :, 2], atol=1e-3)
    env.close()


def test_an_arm_without_a_map_is_built_from_the_model_or_refused() -> None:
    with pytest.raises(UserError, match="sim.urdf=null"):
        arm("reach", robot="iiwa")
    cfg = compose_config(["env=reach", "sim=bullet", "robot=iiwa", "sim.urdf=null"])
    env: Any = make_env(cfg, num_envs=4)
    env.reset(seed=0)
    won = np.zeros(4, bool)
    for _ in range(80):
        won |= env.step(env.expert()).success
    assert won.all()
    env.close()


def test_mass_is_felt_and_a_drawer_slides() -> None:
    env = arm("open_drawer")
    env.reset(seed=1)
    drawer, _ = env.sim.joint("drawer")
    before = float(env.sim.qpos[0, drawer][0])
    for _ in range(90):
        env.step(env.expert())
    assert env.sim.qpos[0, drawer][0] > before + 0.05
    env.close()


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda sim: sim.read("cinert"), "no readout 'cinert'"),
        (lambda sim: sim.sensor("touch"), "no sensor 'touch'"),
        (lambda sim: sim.jac("block", np.zeros((1, 3))), "no Jacobian of 'block'"),
        (lambda sim: sim.joint("nothing"), "unknown joint"),
        (lambda sim: sim.set_parameters({"dof_armature": 1}, np.array([0])), "no dof_armature"),
        (lambda sim: sim.restore({"state/qpos": np.zeros((1, 2))}), "another model"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_it_says_by_name(call: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        call(blocks())


@pytest.mark.parametrize("name", ["ant", "line_reach"])
def test_a_task_it_cannot_run_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "random", f"env={name}", "sim=bullet", "episodes=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "bullet" in said.lower()


def test_a_world_that_comes_apart_is_a_fault_and_the_others_go_on() -> None:
    sim = blocks(2)
    qvel = np.zeros((2, 7))
    qvel[1, 0] = np.nan
    sim.reset({"qvel": qvel}, np.arange(2))
    sim.step(np.zeros((2, 1)), 5)
    assert sim.faults().tolist() == [False, True]
    sim.reset({}, np.array([1]))
    sim.step(np.zeros((2, 1)), 5)
    assert not sim.faults().any()


def test_a_saved_state_goes_on_from_where_it_was() -> None:
    env = arm("pick_cube")
    assert not env.exact_resume
    env.reset(seed=2)
    for _ in range(20):
        env.step(env.expert())
    saved = env.state_dict()
    other = arm("pick_cube")
    other.load_state_dict(saved)
    np.testing.assert_array_equal(other.sim.qpos, env.sim.qpos)
    env.step(env.expert())
    other.step(other.expert())
    np.testing.assert_allclose(other.sim.qpos, env.sim.qpos, atol=2e-3)
    for one in (env, other):
        one.close()


def test_bad_settings_are_said() -> None:
    source = ModelSource(SLOPE.format(floor=1, block=1, mass=1))
    for given, what in (({"finer": 0}, "sim.finer=0"), ({"num_worlds": 5000}, "1 to 1000")):
        with pytest.raises(UserError, match=what):
            node = OmegaConf.create({"_target_": "embodied.envs.bullet.sim.BulletSim"})
            make(node, source=source, **{"num_worlds": 1, **given})


def test_a_camera_sees_the_red_cube() -> None:
    env = arm("pick_cube")
    env.reset(seed=3)
    image = env.render("front", np.array([0]), 120, 160)[0].astype(int)
    assert image.shape == (120, 160, 3)
    red = (image[..., 0] > 120) & (image[..., 1] < 90) & (image[..., 2] < 90)
    assert 5 < red.sum() < 400
    env.close()
