"""Images taken by several processes: the same ones, whatever becomes of a process."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from embodied.envs.mujoco.photographer import receive, send
from embodied.envs.mujoco.render import choose_gl
from embodied.envs.mujoco.sim import MujocoSim

from embodied.build import make_env
from embodied.config import compose_config
from embodied.errors import UserError
from embodied.sim import ModelSource

SCENE = ModelSource(
    """<mujoco><worldbody><camera name="front" pos="0 -4 0.5" xyaxes="1 0 0 0 0 1"/>
    <light pos="1 1 4" dir="-0.3 -0.3 -1"/><geom type="plane" size="4 4 0.1"/>
    <body name="ball" pos="0 0 0.5"><freejoint/><geom name="ball" size="0.3" rgba="1 0 0 1"/></body>
    </worldbody></mujoco>"""
)
WORLDS = 13
pytestmark = pytest.mark.skipif(choose_gl() == "none", reason="there is no OpenGL here")


def worlds(threads: int) -> MujocoSim:
    """Balls in a row, each of a size of its own."""
    sim = MujocoSim(SCENE, WORLDS, threads)
    qpos = np.tile(sim.parameter("qpos0"), (WORLDS, 1))
    qpos[:, 0] = np.linspace(-1.0, 1.0, WORLDS)
    size = np.repeat(sim.parameter("geom_size")[None], WORLDS, 0)
    size[:, sim.geom("ball"), 0] = np.linspace(0.1, 0.4, WORLDS)
    sim.set_parameters({"geom_size": size}, np.arange(WORLDS))
    sim.reset({"qpos": qpos}, np.arange(WORLDS))
    return sim


def photographers(sim: MujocoSim) -> list:
    (studio,) = sim._studios.values()
    return studio._photographers


def test_processes_take_the_same_images_as_one_camera() -> None:
    alone, together = worlds(1), worlds(3)
    expected = alone.render("front", np.arange(WORLDS), 32, 32)
    assert len(np.unique(expected.reshape(WORLDS, -1), axis=0)) == WORLDS
    np.testing.assert_array_equal(together.render("front", np.arange(WORLDS), 32, 32), expected)
    assert len(photographers(together)) == 3 and not photographers(alone)
    some = np.array([7, 2, 11, 3, 0])
    np.testing.assert_array_equal(together.render("front", some, 32, 32), expected[some])
    together.close()
    np.testing.assert_array_equal(together.render("front", np.arange(WORLDS), 32, 32), expected)
    for sim in (alone, together):
        sim.close()


def test_a_scene_with_all_its_objects_is_no_different() -> None:
    images = []
    for threads in (1, 2):
        env: Any = make_env(compose_config(["env=pick_cube", f"sim.threads={threads}"]), 9, seed=4)
        env.reset()
        env.step(env.expert())
        images.append(env.render("wrist", np.arange(9), 48, 48))
        env.close()
    np.testing.assert_array_equal(*images)
    assert len(np.unique(images[0].reshape(9, -1), axis=0)) == 9


def test_one_that_dies_is_replaced_and_nothing_is_lost() -> None:
    sim = worlds(2)
    before = sim.render("front", np.arange(WORLDS), 32, 32)
    one = photographers(sim)[0]
    os.kill(one._process.pid, signal.SIGSEGV)
    with pytest.warns(UserWarning, match="SIGSEGV.*another takes over"):
        after = sim.render("front", np.arange(WORLDS), 32, 32)
    np.testing.assert_array_equal(before, after)
    (studio,) = sim._studios.values()
    assert studio.replaced == one.replaced == 1
    sim.close()


def test_after_too_many_deaths_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = worlds(2)

    def stillborn() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "pass"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr("embodied.envs.mujoco.studio._start", stillborn)
    with pytest.warns(UserWarning, match="exit code 0"):
        with pytest.raises(UserError, match="rendering died 3 times"):
            sim.render("front", np.arange(WORLDS), 32, 32)
    sim.close()


def test_what_a_process_lacks_is_said_where_the_image_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sim = worlds(2)
    sim.render("front", np.arange(2), 16, 16)  # by the camera in this process
    monkeypatch.setenv("MUJOCO_GL", "disable")
    for _ in range(2):
        with pytest.raises(UserError, match="cannot render without OpenGL"):
            (studio,) = sim._studios.values()
            studio.images(sim.batch, np.arange(WORLDS), "front")
    sim.close()


def test_what_nobody_closed_ends_quietly() -> None:
    code = """if True:
        import numpy
        from tests.envs.mujoco.test_studio import WORLDS, worlds
        sim = worlds(2)
        print(sim.render("front", numpy.arange(WORLDS), 8, 8).shape)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(13, 8, 8, 3)\n", "")


def test_a_message_comes_through_whole_or_not_at_all() -> None:
    pipe = io.BytesIO()
    rows = {"state": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 4), np.int32)}
    send(pipe, {"camera": "front"}, rows)
    whole = pipe.getvalue()
    said, arrays = receive(io.BytesIO(whole)) or ({}, {})
    assert said == {"camera": "front"} and arrays.keys() == rows.keys()
    for name, value in rows.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].dtype == value.dtype
    for cut in (0, 5, len(whole) - 1):
        assert receive(io.BytesIO(whole[:cut])) is None
