"""The GPU backend, on Warp's CPU device, against MuJoCo itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.warp.sim import WarpSim

from embodied.errors import UserError
from embodied.host_env import to_host
from embodied.sim import ModelSource

BOX = ModelSource(
    """<mujoco><option timestep="0.005" integrator="implicitfast" cone="elliptic"/><worldbody>
    <camera name="side" pos="0 -2 0.5" xyaxes="1 0 0 0 0 1"/><light pos="0 -2 3" dir="0 0.5 -1"/>
    <geom type="plane" size="3 3 0.1"/>
    <body name="box" pos="0 0 0.1"><freejoint name="free"/>
      <geom name="cube" type="box" size="0.1 0.1 0.1" mass="1" rgba="1 0 0 1"/>
      <site name="skin" type="box" size="0.11 0.11 0.11"/></body>
    <body name="arm" pos="1 0 1"><joint name="hinge" axis="0 1 0"/>
      <geom name="rod" type="capsule" size="0.05" fromto="0 0 0 0.4 0 0" mass="1"/>
      <site name="tip" pos="0.4 0 0"/></body>
    </worldbody><actuator><motor name="turn" joint="hinge" gear="5" ctrlrange="-1 1"/></actuator>
    <sensor><framepos name="tip_pos" objtype="site" objname="tip"/>
      <touch name="weight" site="skin"/></sensor></mujoco>"""
)
WORLDS = 3


@pytest.fixture(scope="module")
def pair() -> tuple[MujocoSim, WarpSim]:
    return MujocoSim(BOX, WORLDS, threads=1), WarpSim(BOX, WORLDS)


def start(sims: Any) -> None:
    """All worlds anew, each with an arm that hangs at an angle of its own, nominal otherwise."""
    for sim in sims:
        ids = sim.xp.arange(WORLDS)
        qpos = np.tile(sim.parameter("qpos0"), (WORLDS, 1))
        qpos[:, 7] = [0.0, 0.3, -0.6]
        names = ("body_mass", "body_inertia", "geom_size")
        nominal = {n: np.tile(sim.parameter(n), (WORLDS, 1, 1)[: sim.parameter(n).ndim + 1])
                   for n in names}  # fmt: skip
        sim.set_parameters({k: sim.xp.asarray(v) for k, v in nominal.items()}, ids)
        sim.reset({"qpos": sim.xp.asarray(qpos)}, ids)


def both(sims: Any, what: Any) -> tuple[np.ndarray, np.ndarray]:
    """What is asked of both, as NumPy."""
    return tuple(np.array(to_host(what(sim))) for sim in sims)  # type: ignore[return-value]


def push(sims: Any, steps: int) -> None:
    for step in range(steps):
        control = np.sin(0.1 * step + np.arange(WORLDS))[:, None]
        for sim in sims:
            sim.step(sim.xp.asarray(control), 4)


def test_it_moves_as_mujoco_does(pair: Any) -> None:
    start(pair)
    for sim in pair:
        sim.read("sensordata")
    push(pair, 50)
    for read in (lambda s: s.qpos, lambda s: s.qvel, lambda s: s.sensor("tip_pos")):
        mine, theirs = both(pair, read)
        np.testing.assert_allclose(theirs, mine, atol=2e-3)
    assert not pair[1].faults().any()


def test_touch_is_felt_alike(pair: Any) -> None:
    start(pair)
    for sim in pair:
        sim.read("sensordata")
    push(pair, 20)
    mine, theirs = both(pair, lambda s: s.sensor("weight"))
    np.testing.assert_allclose(mine, 9.81, rtol=0.02)
    np.testing.assert_allclose(theirs, mine, rtol=0.02)


def test_a_reset_is_of_the_worlds_named_alone(pair: Any) -> None:
    start(pair)
    for sim in pair:
        sim.read("sensordata")
    push(pair, 20)
    before = both(pair, lambda s: s.qpos)[1]
    felt = both(pair, lambda s: s.sensor("tip_pos"))[1]
    warp = pair[1]
    fresh = torch.as_tensor(warp.parameter("qpos0"))[None]
    warp.reset({"qpos": fresh}, torch.tensor([1]))
    np.testing.assert_array_equal(warp.qpos[[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(warp.qpos[1], fresh[0])
    np.testing.assert_array_equal(warp.sensor("tip_pos")[[0, 2]], felt[[0, 2]])
    np.testing.assert_allclose(warp.sensor("tip_pos")[1], [1.4, 0.0, 1.0], atol=1e-6)
    rows = {"qpos": fresh.expand(WORLDS, -1)}
    warp.reset(rows, torch.tensor([True, False, False]))
    np.testing.assert_array_equal(warp.qpos[2], before[2])
    np.testing.assert_allclose(warp.qpos[0], fresh[0])


def test_worlds_have_parameters_of_their_own(pair: Any) -> None:
    start(pair)
    for sim in pair:
        mass = np.tile(sim.parameter("body_mass"), (WORLDS, 1))
        size = np.tile(sim.parameter("geom_size"), (WORLDS, 1, 1))
        mass[1, sim.body("arm")] *= 3.0
        size[2, sim.geom("cube")] = 0.05
        rows = {"body_mass": sim.xp.asarray(mass), "geom_size": sim.xp.asarray(size)}
        sim.set_parameters(rows, sim.xp.arange(WORLDS))
    push(pair, 60)
    mine, theirs = both(pair, lambda s: s.qpos)
    np.testing.assert_allclose(theirs, mine, atol=5e-3)
    np.testing.assert_allclose(theirs[:, 2], [0.1, 0.1, 0.05], atol=5e-3)  # smaller: it fell


def test_it_goes_on_from_a_snapshot_bit_for_bit(pair: Any) -> None:
    start(pair)
    warp = pair[1]
    push([warp], 10)
    saved = warp.snapshot()
    ends = []
    for _ in range(2):
        warp.restore(saved)
        push([warp], 10)
        ends.append(warp.snapshot())
    for name, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][name], err_msg=name)
    one = warp.snapshot(torch.tensor([2]))
    warp.restore(one, torch.tensor([0]))
    np.testing.assert_array_equal(warp.qpos[0], warp.qpos[2])
    with pytest.raises(UserError, match="another model or another number"):
        warp.restore({**saved, "state/qpos": saved["state/qpos"][:1]})


def test_jacobians_are_mujocos(pair: Any) -> None:
    start(pair)
    for sim in pair:
        sim.read("xpos")
    point = np.tile([1.4, 0.0, 1.0], (WORLDS, 1))
    ours = pair[1].jac("arm", torch.as_tensor(point))
    for a, b in zip(pair[0].jac("arm", point), ours, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_a_broken_world_is_a_fault_and_a_reset_mends_it(pair: Any) -> None:
    start(pair)
    warp = pair[1]
    warp.qvel[1] = torch.nan
    assert warp.faults().tolist() == [False, True, False]
    push([warp], 1)
    assert warp.faults().tolist() == [False, True, False]
    start(pair)
    push([warp], 1)
    assert not warp.faults().any()


def test_what_there_is_no_room_for_is_a_fault() -> None:
    cramped = WarpSim(BOX, WORLDS, contacts=4, constraints=2)
    start([cramped])
    assert not cramped.faults().any()
    push([cramped], 1)
    assert cramped.faults().all()
    assert cramped.needed()[1] > 2


def test_it_sees() -> None:
    warp = WarpSim(BOX, WORLDS)  # of which nothing derived has been read
    start([warp])
    push([warp], 2)
    before = warp.snapshot()
    images = warp.render("side", torch.tensor([0, 2]), 32, 48)
    assert images.shape == (2, 32, 48, 3) and images.dtype == np.uint8
    red = (images[0, ..., 0] > 80) & (images[0, ..., 1] < 60)
    assert 10 < red.sum() < 500
    for name, value in warp.snapshot().items():  # to look disturbs nothing
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "device=cuda: .*device=cpu works everywhere"),
        ({"contacts": 0}, "sim.contacts=0: give a whole number >= 1"),
        ({"constraints": 0}, "sim.constraints=0"),
        ({"num_worlds": 0}, "num_envs=0"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        WarpSim(BOX, **{"num_worlds": WORLDS, **settings})
