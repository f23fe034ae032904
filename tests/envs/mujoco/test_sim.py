"""N worlds on native threads are N plain MuJoCo simulations, to the last bit."""

import logging
from pathlib import Path

import mujoco
import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.gymnasium_model import gymnasium_model

from embodied.errors import UserError
from embodied.sim import ModelSource

CHEETAH, ANT = gymnasium_model("half_cheetah.xml"), gymnasium_model("ant.xml", contact_forces=True)
models = pytest.mark.parametrize("source", [CHEETAH, ANT], ids=["half_cheetah", "ant"])

PENDULUM = ModelSource(
    """<mujoco><option timestep="0.01"/><worldbody>
    <camera name="side" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/><light pos="0 -2 3" dir="0 0.5 -1"/>
    <geom type="plane" size="3 3 0.1" pos="0 0 -1"/>
    <body name="arm"><joint name="hinge" axis="0 1 0"/>
      <geom name="rod" type="capsule" size="0.1" fromto="0 0 0 0.8 0 0" mass="1"/>
      <site name="tip" pos="0.8 0 0"/></body>
    </worldbody><actuator><motor name="turn" joint="hinge" gear="5" ctrlrange="-1 1"/></actuator>
    <sensor><framepos name="tip_pos" objtype="site" objname="tip"/></sensor></mujoco>"""
)


def make_sim(source: ModelSource, num_worlds: int, threads: int = 1, **settings) -> MujocoSim:
    """Worlds that start apart, each from a state of its own that its index alone decides."""
    sim = MujocoSim(source, num_worlds, threads, **settings)
    sim.reset(start_rows(sim, range(num_worlds)), np.arange(num_worlds))
    return sim


def start_rows(sim: MujocoSim, seeds) -> dict[str, np.ndarray]:
    rngs = [np.random.default_rng(seed) for seed in seeds]
    qpos = [sim.model.qpos0 + rng.uniform(-0.05, 0.05, sim.model.nq) for rng in rngs]
    qvel = [rng.uniform(-0.1, 0.1, sim.model.nv) for rng in rngs]
    return {"qpos": np.stack(qpos), "qvel": np.stack(qvel)}


def controls(sim: MujocoSim, step: int) -> np.ndarray:
    return np.stack(
        [
            np.random.default_rng((step, i)).uniform(-1, 1, sim.model.nu)
            for i in range(sim.num_worlds)
        ]
    )


def run(sim: MujocoSim, start: int, stop: int, substeps: int = 5) -> None:
    for step in range(start, stop):
        sim.step(controls(sim, step), substeps)


@models
def test_equals_a_plain_loop_bit_for_bit(source: ModelSource) -> None:
    sim = make_sim(source, 3, threads=2)
    force = sim.read("cfrc_ext")
    model = mujoco.MjModel.from_xml_string(source.xml)
    worlds = [mujoco.MjData(model) for _ in range(3)]
    for i, data in enumerate(worlds):
        data.qpos, data.qvel = sim.qpos[i], sim.qvel[i]
    for step in range(1000):
        control = controls(sim, step)
        sim.step(control, 2)
        for i, data in enumerate(worlds):
            data.ctrl = control[i]
            mujoco.mj_step(model, data, 2)
            assert np.array_equal(sim.qpos[i], data.qpos)
            assert np.array_equal(sim.qvel[i], data.qvel)
            assert np.array_equal(force[i], data.cfrc_ext)
    assert not sim.faults().any()


@models
def test_one_and_two_threads_agree(source: ModelSource) -> None:
    sims = [make_sim(source, 6, threads) for threads in (1, 2)]
    for sim in sims:
        sim.read("xpos")
        run(sim, 0, 60)
    for field in ("qpos", "qvel", "qacc_warmstart", "xpos"):
        one, two = (sim.batch.bind(field) for sim in sims)
        assert np.array_equal(one, two), field


@models
def test_a_world_does_not_depend_on_its_neighbours(source: ModelSource) -> None:
    large, small = make_sim(source, 7, threads=2), MujocoSim(source, 2, 1)
    rows = {"qpos": large.qpos[[4, 6]], "qvel": large.qvel[[4, 6]]}
    small.reset(rows, np.arange(2))
    for step in range(60):
        control = controls(large, step)
        large.step(control, 5)
        small.step(control[[4, 6]], 5)
        if step == 20:  # and not on when they are reset
            large.reset(start_rows(large, [9]), np.array([5]))
    assert np.array_equal(large.qpos[[4, 6]], small.qpos)
    assert np.array_equal(large.qvel[[4, 6]], small.qvel)


@pytest.mark.parametrize("reads", [(), ("xpos", "cfrc_ext")], ids=["plain", "lagged"])
def test_reset_touches_only_its_worlds(reads: tuple[str, ...]) -> None:
    sim, untouched = make_sim(ANT, 4), make_sim(ANT, 4)
    for each in (sim, untouched):
        for field in reads:
            each.read(field)
        run(each, 0, 30)
    before = {name: value.copy() for name, value in sim.snapshot().items()}
    ids = np.array([0, 2])
    sim.reset(rows := start_rows(sim, [10, 11]), ids)
    after = sim.snapshot()
    for name, value in before.items():
        assert np.array_equal(after[name][[1, 3]], value[[1, 3]]), name
    assert np.array_equal(sim.qpos[ids], rows["qpos"])
    assert np.array_equal(sim.qvel[ids], rows["qvel"])
    assert not sim.batch.bind("qacc_warmstart")[ids].any()
    assert not sim.batch.bind("time")[ids].any()
    if reads:
        fresh = MujocoSim(ANT, 2, 1)
        fresh.reset(rows, np.arange(2))
        assert np.array_equal(sim.read("xpos")[ids], fresh.read("xpos"))
    run(sim, 30, 40)
    run(untouched, 30, 40)
    assert np.array_equal(sim.qpos[[1, 3]], untouched.qpos[[1, 3]])


def test_reading_does_not_disturb() -> None:
    """A readout taken up in the middle computes `forward`; the trajectory stays the same."""
    reader, plain = make_sim(ANT, 2), make_sim(ANT, 2)
    for step in range(40):
        for sim in (reader, plain):
            sim.step(controls(sim, step), 5)
        if step == 20:
            reader.read("xpos")
    assert np.array_equal(reader.qpos, plain.qpos)
    with pytest.raises(ValueError, match="read-only"):
        reader.read("xpos")[:] = 0


def test_fresh_readouts_describe_the_new_state() -> None:
    lagged, fresh = make_sim(PENDULUM, 2), make_sim(PENDULUM, 2, fresh=True)
    for sim in (lagged, fresh):
        sim.sensor("tip_pos")
        run(sim, 0, 20)
    assert np.array_equal(lagged.qpos, fresh.qpos)
    angle = fresh.qpos[:, 0]
    tip = 0.8 * np.stack([np.cos(angle), 0 * angle, -np.sin(angle)], axis=-1)
    np.testing.assert_allclose(fresh.sensor("tip_pos"), tip, atol=1e-12)
    assert np.abs(lagged.sensor("tip_pos") - tip).max() > 1e-4


@pytest.mark.parametrize("randomised", [False, True])
@models
def test_forks_are_bit_exact(source: ModelSource, randomised: bool) -> None:
    """Worlds 2, 3 go on as copies of 0, 1 and equal them ever after, readouts included."""
    sim = make_sim(source, 4)
    for field in ("xpos", "cfrc_ext"):
        sim.read(field)
    if randomised:
        mass = sim.parameter("body_mass") * np.linspace(0.7, 1.3, 4)[:, None]
        sim.set_parameters({"body_mass": mass}, np.arange(4))
    run(sim, 0, 40)
    ids, sources = np.array([2, 3]), np.array([0, 1])
    sim.restore(sim.snapshot(sources), ids)
    assert np.array_equal(sim.read("xpos")[ids], sim.read("xpos")[sources])
    assert np.array_equal(sim.read("cfrc_ext")[ids], sim.read("cfrc_ext")[sources])
    for step in range(40, 80):
        sim.step(np.tile(controls(sim, step)[:2], (2, 1)), 5)
    assert np.array_equal(sim.qpos[ids], sim.qpos[sources])
    assert np.array_equal(sim.qvel[ids], sim.qvel[sources])
    assert not np.array_equal(sim.qpos[0], sim.qpos[1])


@models
def test_another_sim_goes_on_from_a_state_dict(source: ModelSource) -> None:
    first = make_sim(source, 3)
    first.read("xpos"), first.read("cfrc_ext")
    gains = first.parameter("actuator_gainprm") * np.array([0.5, 1.0, 1.5])[:, None, None]
    first.set_parameters({"actuator_gainprm": gains}, np.arange(3))
    run(first, 0, 40)
    state = {name: value.copy() for name, value in first.state_dict().items()}
    lagged = {name: first.read(name).copy() for name in ("xpos", "cfrc_ext")}
    run(first, 40, 60)
    second = MujocoSim(source, 3, threads=2)
    second.load_state_dict(state)
    for name, value in lagged.items():
        assert np.array_equal(second.read(name), value), f"{name} is not what was saved"
    run(second, 40, 60)
    assert np.array_equal(first.batch.state, second.batch.state)
    for name in lagged:
        assert np.array_equal(first.read(name), second.read(name)), name


def test_restoring_takes_parameters_back() -> None:
    sim = make_sim(CHEETAH, 2)
    saved = sim.snapshot()
    mass = 3 * sim.parameter("body_mass")[None]
    sim.set_parameters({"body_mass": np.repeat(mass, 2, 0)}, np.arange(2))
    run(sim, 0, 30)
    sim.restore({name: value[:1] for name, value in saved.items()}, np.array([0]))
    untouched = make_sim(CHEETAH, 2)
    run(sim, 0, 30)
    run(untouched, 0, 30)
    assert np.array_equal(sim.qpos[0], untouched.qpos[0])
    assert not np.array_equal(sim.qpos[1], untouched.qpos[1])


def test_a_state_of_another_model_is_refused() -> None:
    for other in (make_sim(ANT, 2), make_sim(CHEETAH, 3)):
        with pytest.raises(UserError, match="another model or another number of worlds"):
            make_sim(CHEETAH, 2).load_state_dict(other.state_dict())


@pytest.mark.parametrize("field", ["qpos", "qvel"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_a_broken_state_is_a_fault(field: str, value: float) -> None:
    sim, healthy = make_sim(CHEETAH, 4, threads=2), make_sim(CHEETAH, 4)
    sim.batch.bind(field)[2, 3] = value
    for each in (sim, healthy):
        each.step(np.zeros((4, 6)), 5)
    assert sim.faults().tolist() == [False, False, True, False]
    assert np.array_equal(sim.qpos[[0, 1, 3]], healthy.qpos[[0, 1, 3]])
    sim.step(np.zeros((4, 6)), 5)
    assert sim.faults()[2], "a fault lasts until the reset"
    sim.reset(start_rows(sim, [2]), np.array([2]))
    healthy.reset(start_rows(sim, [2]), np.array([2]))
    assert not sim.faults().any()
    for each in (sim, healthy):
        each.step(np.zeros((4, 6)), 5)
    assert np.array_equal(sim.qpos[2], healthy.qpos[2])


@pytest.mark.parametrize(("limited", "value"), [(True, np.nan), (False, np.inf), (False, 1e30)])
def test_a_broken_control_is_a_fault(limited: bool, value: float) -> None:
    source = PENDULUM if limited else ModelSource(PENDULUM.xml.replace('ctrlrange="-1 1"', ""))
    sim = make_sim(source, 3)
    sim.step(np.array([[0.5], [value], [0.5]]), 5)
    assert sim.faults().tolist() == [False, True, False]
    assert np.isfinite(sim.qpos).all()


def test_a_control_beyond_its_range_is_clamped() -> None:
    sim = make_sim(PENDULUM, 2)
    sim.reset({}, np.arange(2))
    sim.step(np.array([[1.0], [np.inf]]), 5)
    assert not sim.faults().any()
    assert np.array_equal(sim.qpos[0], sim.qpos[1])


def test_a_blown_up_world_is_a_fault() -> None:
    """A force beyond all bounds diverges within the step, not before it."""
    sim = make_sim(CHEETAH, 2)
    sim.batch.bind("xfrc_applied")[0, 1, :3] = 1e14
    sim.step(np.zeros((2, 6)), 5)
    assert sim.faults().tolist() == [True, False]


WELDED = ModelSource(
    PENDULUM.xml.replace("</mujoco>", '<equality><weld body1="arm"/></equality></mujoco>')
)


def test_a_world_in_which_mujoco_raises() -> None:
    """It keeps its state and is marked until its reset; the others go on."""
    sim, healthy = make_sim(WELDED, 3, threads=2), make_sim(WELDED, 3)
    kind = np.repeat(sim.parameter("eq_type")[None], 3, 0)
    kind[1] = 99  # no such constraint
    sim.set_parameters({"eq_type": kind}, np.arange(3))
    before = sim.qpos[1].copy()
    for each in (sim, healthy):
        run(each, 0, 3)
    assert sim.faults().tolist() == [False, True, False]
    assert np.array_equal(sim.qpos[1], before)
    assert np.array_equal(sim.qpos[[0, 2]], healthy.qpos[[0, 2]])
    sim.restore(sim.snapshot(np.array([1])), np.array([0]))
    assert sim.faults().tolist() == [True, True, False], "a copy is as broken"
    sim.set_parameters({"eq_type": kind[[2, 2]]}, np.array([0, 1]))
    sim.reset(start_rows(sim, [0, 1]), np.array([0, 1]))
    assert not sim.faults().any()
    run(sim, 3, 6)
    assert not sim.faults().any()


def test_a_copy_of_a_broken_world_is_broken_and_of_a_whole_one_whole() -> None:
    sim = make_sim(CHEETAH, 3)
    whole = sim.snapshot(np.array([0]))
    sim.qpos[1] = np.nan
    sim.step(np.zeros((3, 6)), 1)
    sim.restore(sim.snapshot(np.array([1])), np.array([2]))
    assert sim.faults().tolist() == [False, True, True]
    sim.restore(whole, np.array([1]))
    assert sim.faults().tolist() == [False, False, True]


def test_parameters_that_mujoco_refuses() -> None:
    slider = ModelSource(
        '<mujoco><worldbody><body><joint type="slide"/><geom size="0.1" mass="1"/></body>'
        "</worldbody></mujoco>"
    )
    sim = MujocoSim(slider, 2, 1)
    with pytest.raises(UserError, match="body_mass out of range: .*simulation 1"):
        sim.set_parameters({"body_mass": [[0.0, 1.0], [0.0, 0.0]]}, np.arange(2))


def test_faults_are_logged_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "mujoco"):
        sim = make_sim(CHEETAH, 2, threads=2)
        sim.qpos[1] = np.nan
        sim.step(np.zeros((2, 6)), 5)
    assert "QPOS" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_parameters_change_the_physics() -> None:
    """Of two arms under one torque, the one ten times as heavy accelerates a tenth as fast."""
    sim = MujocoSim(PENDULUM, 3, 1)
    sim.model.opt.gravity[:] = 0
    mass, inertia = sim.parameter("body_mass"), sim.parameter("body_inertia")
    factor = np.array([1.0, 10.0])
    rows = {
        "body_mass": mass * factor[:, None],
        "body_inertia": inertia * factor[:, None, None],
        "opt.gravity": np.zeros((2, 3)),
    }
    sim.set_parameters(rows, np.array([0, 2]))
    sim.reset({}, np.arange(3))
    sim.step(np.ones((3, 1)), 1)
    assert sim.qvel[0, 0] == pytest.approx(10 * sim.qvel[2, 0], rel=1e-9)
    assert sim.qvel[0, 0] > 0
    assert sim.qvel[1, 0] > sim.qvel[0, 0], "world 1 has its own gravity still"


def test_gravity_pulls_a_lighter_world_as_fast() -> None:
    """`set_const` has followed the masses: free fall does not depend on them."""
    ball = ModelSource(
        '<mujoco><worldbody><body name="ball"><freejoint/><geom size="0.1"/></body></worldbody>'
        "</mujoco>"
    )
    sim = MujocoSim(ball, 2, 1)
    rows = {name: sim.parameter(name) * np.array([[0.1], [10.0]]) for name in ("body_mass",)}
    rows["body_inertia"] = sim.parameter("body_inertia") * np.array([[[0.1]], [[10.0]]])
    sim.set_parameters(rows, np.arange(2))
    sim.reset({}, np.arange(2))
    sim.step(np.zeros((2, 0)), 50)
    np.testing.assert_allclose(sim.qvel[:, 2], -9.81 * 50 * sim.timestep_s, rtol=1e-9)
    assert not np.array_equal(
        sim.batch.expanded("body_subtreemass")[0], sim.batch.expanded("body_subtreemass")[1]
    )


def test_friction_of_its_own() -> None:
    sledge = ModelSource(
        '<mujoco><worldbody><geom type="plane" size="9 9 1"/><body pos="0 0 0.1"><freejoint/>'
        '<geom type="box" size="0.1 0.1 0.1"/></body></worldbody></mujoco>'
    )
    sim = MujocoSim(sledge, 2, 1)
    friction = np.repeat(sim.parameter("geom_friction")[None], 2, 0)
    friction[1, :, 0] *= 0.1
    sim.set_parameters({"geom_friction": friction}, np.arange(2))
    velocity = np.tile([1.0, 0, 0, 0, 0, 0], (2, 1))
    sim.reset({"qvel": velocity}, np.arange(2))
    sim.step(np.zeros((2, 0)), 100)
    assert sim.qpos[1, 0] > 2 * sim.qpos[0, 0] > 0


def test_names_and_addresses() -> None:
    sim = make_sim(ANT, 2)
    assert sim.joint("root") == (slice(0, 7), slice(0, 6))
    assert sim.joint("ankle_4") == (slice(14, 15), slice(13, 14))
    assert sim.body("torso") == 1
    assert sim.geom("floor") == 0
    assert make_sim(PENDULUM, 1).actuator("turn") == 0
    for kind in ("joint", "body", "geom", "actuator", "sensor"):
        with pytest.raises(UserError, match=f"unknown {kind} 'elbow'"):
            getattr(sim, kind)("elbow")


def test_jacobian_of_a_point() -> None:
    sim = make_sim(PENDULUM, 3)
    angle = sim.qpos[:, 0]
    point = 0.8 * np.stack([np.cos(angle), 0 * angle, -np.sin(angle)], axis=-1)
    linear, angular = sim.jac("arm", point)
    axis = np.tile([0.0, 1.0, 0.0], (3, 1))
    np.testing.assert_allclose(linear[:, :, 0], np.cross(axis, point), atol=1e-12)
    np.testing.assert_allclose(angular[:, :, 0], axis, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_worlds": 0}, "num_envs=0"), ({"num_worlds": 1, "threads": 0}, "sim.threads=0")],
)
def test_settings_out_of_range(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MujocoSim(PENDULUM, **settings)
