"""Bullet's physics of a model that MuJoCo compiles, and the contract of a simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.envs.bullet import world
from embodied.envs.mujoco.sim import MujocoSim

from embodied.build import make_env
from embodied.config import compose_config
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.types import PHYSICS_FAULT

from .worlds import ARM, box, made, model, run, start

G = 9.81


def env(name: str, num_worlds: int, *overrides: str) -> Any:
    return make_env(compose_config([f"env={name}", "sim=bullet", *overrides]), num_worlds)


def parameters(sim: Any, **changes: Any) -> dict[str, np.ndarray]:
    """Nominal rows of all worlds, with entries replaced: `geom_size={index: values}`."""
    rows = {}
    for name, entries in changes.items():
        nominal = sim.parameter(name)
        rows[name] = np.repeat(nominal[None], sim.num_worlds, axis=0)
        for index, values in entries.items():
            rows[name][:, index] = values
    return rows


def test_a_reset_gives_what_it_was_told() -> None:
    worlds = env("tidy_table", 2)
    sim = worlds.sim
    rows = {"qpos": sim.qpos.copy(), "qvel": np.full(sim.qvel.shape, 0.1)}
    rows["mocap_pos"] = np.repeat(sim.parameter("body_pos")[None, -1:], 2, axis=0) + 0.1
    shape = sim.snapshot()["state/mocap_pos"].shape
    rows["mocap_pos"] = np.broadcast_to(rows["mocap_pos"][:, :1], shape)
    sim.reset({k: v[1:] for k, v in rows.items()}, np.array([1]))
    np.testing.assert_array_equal(sim.qpos, rows["qpos"])
    np.testing.assert_array_equal(sim.qvel[1], rows["qvel"][1])
    np.testing.assert_array_equal(sim.snapshot()["state/mocap_pos"][1], rows["mocap_pos"][1])
    sim.reset({}, np.array([1]))
    np.testing.assert_array_equal(sim.qpos[1], sim.parameter("qpos0"))
    worlds.close()


@pytest.mark.parametrize(("friction", "slides"), [(0.3, True), (0.5, False)])
def test_a_box_slides_down_a_slope_as_its_friction_says(friction: float, slides: bool) -> None:
    angle = 0.4  # its tangent is 0.42
    slope = f"""<body name="slope" euler="0 {angle} 0" pos="0 0 1"><geom name="slope" type="box"
        size="3 1 0.1" friction="{friction}"/></body>"""
    at = 0.1 + 0.05
    place = f"{at * np.sin(angle)} 0 {1 + at * np.cos(angle)}"
    turned = f'euler="0 {angle} 0"'
    extra = '<compiler angle="radian"/>'
    sim = made(model(slope + box("b", place, 0.05, f'friction="{friction}"', turned), extra))
    first = sim.qpos[0, sim.joint("b")[0]].copy()
    run(sim, 0.5)
    way = np.linalg.norm(sim.qpos[0, sim.joint("b")[0]][:3] - first[:3])
    free = 0.5 * G * (np.sin(angle) - friction * np.cos(angle)) * 0.5**2
    assert way == pytest.approx(free, rel=0.1) if slides else way < 2e-3
    sim.close()


def test_the_rougher_of_two_sets_the_friction() -> None:
    """As in MuJoCo; a box that is shot across the floor stops after v^2 / (2 mu g)."""
    sim = made(model(box("b", "0 0 0.05", 0.05)), 2)
    rows = parameters(sim, geom_friction={sim.geom("b"): [0.3, 0.005, 0.0001]})
    rows["geom_friction"][1, sim.geom("floor"), 0] = 0.6  # rougher than the box
    sim.set_parameters(rows, np.arange(2))
    qvel = np.zeros((2, sim.model.nv))
    qvel[:, sim.joint("b")[1].start] = 1.0
    start(sim, qvel=qvel)
    run(sim, 0.6)
    way = sim.qpos[:, sim.joint("b")[0].start]
    assert way == pytest.approx([1 / (2 * 0.3 * G), 1 / (2 * 0.6 * G)], rel=0.06)
    sim.close()


def test_mass_and_the_stiffness_of_a_servo_set_how_far_it_sags() -> None:
    arm = ARM.replace(' gravcomp="1"', "")
    sim = made(model("", arm=arm), 3)
    rows = parameters(sim, body_mass={}, body_inertia={}, actuator_gainprm={}, actuator_biasprm={})
    rows["body_mass"][1] *= 3.0
    for name in ("actuator_gainprm", "actuator_biasprm"):
        rows[name][2] *= 0.5
    sim.set_parameters(rows, np.arange(3))
    start(sim)
    run(sim, 2.0)
    sag = -sim.qpos[:, 0]
    assert sag == pytest.approx([G / 1000, 3 * G / 1000, G / 500], rel=0.02)
    sim.close()


def test_a_new_size_is_a_new_shape() -> None:
    sim = made(model(box("b", "0 0 0.3", 0.1)), 2)
    rows = parameters(sim, geom_size={})
    rows["geom_size"][1, sim.geom("b")] = 0.05
    sim.set_parameters(rows, np.arange(2))
    start(sim)
    run(sim, 1.0)
    height = sim.qpos[:, sim.joint("b")[0]][:, 2]
    assert height == pytest.approx([0.1, 0.05], abs=1e-3)
    sim.close()


def test_parameters_count_from_the_next_step_on() -> None:
    sim = made(model(box("b", "0 0 0.1", 0.1)))
    run(sim, 0.2)
    sim.set_parameters(parameters(sim, geom_size={sim.geom("b"): 0.05}), np.arange(1))
    run(sim, 0.5)
    assert sim.qpos[0, sim.joint("b")[0]][2] == pytest.approx(0.05, abs=1e-3)  # it fell
    sim.close()


def test_free_fall_and_spin_are_mujocos() -> None:
    """A body whose centre of mass is off its origin, and whose axes of inertia are turned."""
    body = """<body name="b" pos="0 0 3"><freejoint name="b"/>
        <inertial pos="0.1 0.05 -0.2" mass="2" fullinertia="0.05 0.055 0.03 0.01 0.005 -0.004"/>
        <geom name="b" type="sphere" size="0.05"/></body>"""
    source = model(body)
    sims: list[Any] = [made(source, finer=4), MujocoSim(source, 1, threads=1)]
    qvel = np.zeros((1, sims[0].model.nv))
    qvel[0, sims[0].joint("b")[1]] = [0.5, -0.2, 1.0, 1.0, 2.0, -1.0]
    for sim in sims:
        sim.reset({"qvel": qvel}, np.arange(1))
        sim.step(np.zeros((1, 1)), 40)
    where, how = sims[0].joint("b")
    np.testing.assert_allclose(sims[0].qpos[0, where], sims[1].qpos[0, where], atol=0.02)
    np.testing.assert_allclose(sims[0].qvel[0, how], sims[1].qvel[0, how], atol=0.06)
    sims[0].close()


def test_what_is_posed_stands_where_it_was_put() -> None:
    shelf = '<body name="shelf" mocap="true"><geom type="box" size="0.3 0.3 0.02"/></body>'
    sim = made(model(shelf + box("b", "0 0 1.2", 0.05)))
    start(sim, mocap_pos=np.array([[[0.0, 0.0, 1.0]]]))
    run(sim, 0.6)
    assert sim.qpos[0, sim.joint("b")[0]][2] == pytest.approx(1.07, abs=2e-3)
    start(sim, mocap_pos=np.array([[[1.0, 0.0, 1.0]]]))
    run(sim, 0.6)
    assert sim.qpos[0, sim.joint("b")[0]][2] < 0.1
    sim.close()


def test_a_drawer_slides_brakes_and_stops_at_its_ends() -> None:
    worlds = env("open_drawer", 2)
    sim = worlds.sim
    where, how = sim.joint("drawer")
    rows = {k.partition("/")[2]: v for k, v in sim.snapshot().items() if k.startswith("state/")}
    rows["qpos"][:, where], rows["qvel"][:, how] = 0.05, [[0.3], [5.0]]
    sim.reset(rows, np.arange(2))
    hold, ways = rows["qpos"][:, :9].copy(), []
    for _ in range(120):
        sim.step(hold, 1)
        ways.append(sim.qpos[:, where.start].copy())
    way = ways[-1]
    # Braked by 15 N/(m/s) it goes v m / c, its rotor's 0.1 kg included; the other hits the end.
    assert way[0] == pytest.approx(0.05 + 0.3 * 0.6 / 15.0, abs=1e-3)
    assert way[1] == pytest.approx(0.13, abs=1e-3) and np.max(ways) < 0.145
    assert np.abs(sim.qvel[:, how.start]).max() < 0.01
    worlds.close()


def test_servos_respond_as_mujocos_do() -> None:
    """Each joint of the arm in a world of its own, a step of 0.08 rad or 1 cm."""
    task = env("reach", 1).task
    home = np.array([*task.robot.home, 0.02, 0.02])
    size, ids = np.diag([0.08] * 7 + [0.01] * 2), np.arange(9)
    cfg = compose_config(["env=reach", "sim=bullet"])
    joints = dict(cfg.sim.joints)
    sims: list[Any] = [
        made(task.model(), 9, urdf=cfg.sim.urdf, joints=joints),
        MujocoSim(task.model(), 9, threads=1),
    ]
    shares = []
    for sim in sims:
        qpos = np.tile(sim.parameter("qpos0"), (9, 1))
        qpos[:, :9] = home
        sim.reset({"qpos": qpos}, ids)
        told = []
        for _ in range(8):
            sim.step(home + size, 10)
            told.append((sim.qpos[ids, ids] - home) / size.diagonal())
        shares.append(np.stack(told))
    assert np.abs(shares[0] - shares[1]).max() < 0.07
    assert (shares[0][-1] > 0.98).all() and shares[0].max() < 1.005  # there, without overshoot
    sims[0].close()


def test_it_holds_what_it_lifts() -> None:
    """The expert's grip on the cube does not slip while the arm rests."""
    worlds = env("pick_cube", 4)
    worlds.reset(seed=np.arange(4))
    cube = worlds.task._cube
    for t in range(90):
        action = worlds.expert()
        if t == 60:
            held = worlds.sim.qpos[:, cube][:, :3] - worlds.memory["tool"]
        if t > 60:
            action[:, :7] = 0.0
        worlds.step(action)
    lifted = worlds.sim.qpos[:, cube][:, 2] > 0.06
    slip = worlds.sim.qpos[:, cube][:, :3] - worlds.memory["tool"] - held
    assert lifted.all() and np.abs(slip).max() < 0.01
    worlds.close()


def follow(worlds: Any, seed: list[int], steps: int) -> np.ndarray:
    """All states of some episodes, with the same random actions for the same seeds."""
    worlds.reset(seed=np.array(seed))
    spec, out = worlds.action_spec, []
    noise = [np.random.default_rng(s) for s in seed]
    for t in range(steps):
        unit = np.stack([rng.uniform(-1, 1, spec.size) for rng in noise])
        random = 0.5 * (spec.low + spec.high) + 0.5 * (spec.high - spec.low) * unit
        worlds.step(worlds.expert() if t < steps // 2 else random)
        out.append(np.concatenate([worlds.sim.qpos, worlds.sim.qvel], axis=1))
    return np.stack(out, axis=1)


@pytest.mark.parametrize("name", ["peg_insert", "stack_cube"])
def test_an_episode_depends_on_its_seed_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on its neighbours, nor on what its world did before, nor on when the arm was renewed."""
    monkeypatch.setattr(world, "RENEWED", 3)
    several, one = env(name, 3), env(name, 1)
    together = follow(several, [4, 5, 6], 60)
    for seed, row in ((5, 1), (8, None), (4, 0), (6, 2), (5, 1)):
        alone = follow(one, [seed], 60)
        if row is not None:
            np.testing.assert_array_equal(alone[0], together[row])
    several.close()
    one.close()


def test_a_world_that_comes_apart_is_a_fault_and_a_reset_mends_it() -> None:
    worlds, calm = env("push_cube", 2), env("push_cube", 2)
    for one in (worlds, calm):
        one.reset(seed=np.array([1, 2]))
    action = np.zeros((2, worlds.action_spec.size), np.float32)
    worlds.step(action)
    calm.step(action)
    sim = worlds.sim
    body = sim._plan.free[0][0]
    sim._worlds[0].place(body, [0.5, 0, np.nan, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    step, expected = worlds.step(action), calm.step(action)
    assert step.fault.tolist() == [PHYSICS_FAULT, 0] and step.truncated.tolist() == [True, False]
    np.testing.assert_array_equal(step.obs["state"][1], expected.obs["state"][1])
    worlds.step(action)
    assert sim.faults().tolist() == [True, False]
    both = (worlds.reset(seed=np.array([3, 4])), calm.reset(seed=np.array([3, 4])))
    np.testing.assert_array_equal(both[0]["state"], both[1]["state"])
    again, wanted = worlds.step(action), calm.step(action)
    assert not again.fault.any()
    np.testing.assert_array_equal(again.obs["state"], wanted.obs["state"])
    worlds.close()
    calm.close()


def test_worlds_can_be_forked() -> None:
    worlds = env("pick_cube", 3)
    worlds.reset(seed=np.array([1, 2, 3]))
    for _ in range(25):
        worlds.step(worlds.expert())
    sim = worlds.sim
    one = sim.snapshot(np.array([1]))
    sim.restore({k: np.repeat(v, 2, axis=0) for k, v in one.items()}, np.array([0, 2]))
    np.testing.assert_array_equal(sim.qpos[0], sim.qpos[1])
    ahead = np.tile(worlds.task.robot.home, (3, 1))
    control = np.concatenate([ahead, np.full((3, 2), 0.015)], axis=1)
    sim.step(control, 10)
    np.testing.assert_array_equal(sim.qpos[0], sim.qpos[2])  # of one snapshot: equal
    np.testing.assert_allclose(sim.qpos[0], sim.qpos[1], atol=5e-3)  # its source: nearly
    with pytest.raises(UserError, match="another number of worlds"):
        sim.restore(one, np.array([0, 1]))
    worlds.close()


def test_a_saved_state_is_as_good_and_it_says_so() -> None:
    worlds, other = env("pick_cube", 2), env("pick_cube", 2)
    for _ in range(5):
        worlds.step(worlds.expert())
    assert worlds.exact_resume is False
    other.load_state_dict(worlds.state_dict())
    np.testing.assert_array_equal(other.sim.qpos, worlds.sim.qpos)
    action = worlds.expert()
    mine, theirs = worlds.step(action), other.step(action)
    np.testing.assert_allclose(theirs.obs["state"], mine.obs["state"], atol=1e-3)
    worlds.close()
    other.close()


@pytest.mark.parametrize("name", ["reach", "pick_cube", "stack_cube", "peg_insert", "tidy_table"])
def test_fingers_rub_as_in_the_model(name: str) -> None:
    """Exactly for what is grasped; near it for what lies on something, but for cube on cube."""
    worlds = env(name, 1)
    sim = worlds.sim
    contacts, friction = sim._plan.contacts, sim.snapshot()["model/geom_friction"][0]
    links = contacts.links(friction)
    products = {(i, j): links[i] * links[j] for i, j in contacts.pairs}
    wanted = dict(zip(contacts.pairs, contacts.wanted(friction), strict=True))
    assert bool(contacts.grasps) == (name != "reach")
    for pair in contacts.grasps:
        assert products[pair] == pytest.approx(wanted[pair], rel=0.01)
    names = [sim.model.body(sim._plan.forms[f].bodies[i]).name for f, i in contacts.places]
    lies = {frozenset((names[i], names[j])): pair for pair in products for i, j in [pair]}
    for thing, on in (("cube", "world"), ("peg", "stand"), ("peg", "socket")):
        pair = lies.get(frozenset((thing, on)))
        if pair is not None and name != "reach":
            assert products[pair] == pytest.approx(wanted[pair], rel=0.1)
    worlds.close()


class Feels:
    """A task, of which only its readouts matter."""

    name, readouts = "feels", frozenset({"qpos", "cfrc_ext"})


def test_readouts_that_it_lacks_are_refused_by_name() -> None:
    sim = made(model(box("b", "0 0 1", 0.1)))
    task: Any = Feels()
    with pytest.raises(UserError, match=r"feels needs readouts this sim lacks: \['cfrc_ext'\]"):
        TaskEnv(task, sim)
    for ask, name in (
        (lambda: sim.read("xpos"), "xpos"),
        (lambda: sim.sensor("grip"), "grip"),
        (lambda: sim.jac("tool", np.zeros((1, 3))), "tool"),
        (lambda: sim.set_parameters({"jnt_range": np.zeros((1, 2))}, np.arange(1)), "jnt_range"),
    ):
        with pytest.raises(UserError, match=name):
            ask()
    sim.close()


def test_names_are_looked_up_as_in_mujoco() -> None:
    source = model(box("b", "0 0 1", 0.1))
    sim, other = made(source), MujocoSim(source, 1)
    assert sim.joint("b") == other.joint("b") and sim.body("b") == other.body("b")
    assert sim.geom("b") == other.geom("b") and sim.actuator("lift") == 0
    np.testing.assert_array_equal(sim.control_range, other.control_range)
    np.testing.assert_array_equal(sim.qpos, np.tile(other.parameter("qpos0"), (1, 1)))
    assert sim.timestep_s == 0.005 and not sim.masked and sim.device is None
    sim.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sim.finer=0"], "finer=0"),
        (["sim.urdf=nowhere.urdf"], "no such file"),
        (["sim.joints.joint3=panda_joint33"], "did you mean panda_joint3"),
        (["sim.joints.joint3=panda_joint4", "sim.joints.joint4=panda_joint3"], "another arm"),
        (["robot=iiwa"], "sim.urdf=null"),
        (["sim.urdf=kuka_iiwa/model.urdf"], "unknown joint of model.urdf"),
    ],
)
def test_an_arm_that_does_not_fit(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        env("reach", 1, *overrides)


@pytest.mark.parametrize("count", [0, 1001])
def test_too_many_worlds(count: int) -> None:
    with pytest.raises(UserError, match=f"num_envs={count}"):
        made(model(""), count)


def test_what_moves_by_other_means_is_refused() -> None:
    with pytest.raises(UserError, match="actuator 0 is no position servo"):
        env("ant", 1)
