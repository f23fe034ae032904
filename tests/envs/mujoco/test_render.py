"""Camera images of single worlds (skipped where there is no OpenGL)."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from embodied.envs.mujoco.render import Camera, choose_gl
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.half_cheetah import HalfCheetah

from embodied.errors import UserError
from embodied.sim import ModelSource

SCENE = ModelSource(
    """<mujoco><asset><texture name="sky" type="skybox" builtin="flat" rgb1="0 0 0" rgb2="0 0 0"
    width="8" height="8"/></asset><worldbody>
    <camera name="top" pos="0 0 4"/><camera name="front" pos="0 -4 0.5" xyaxes="1 0 0 0 0 1"/>
    <camera name="follow" mode="trackcom" pos="0 -4 0.5" xyaxes="1 0 0 0 0 1"/>
    <light pos="1 1 4" dir="-0.3 -0.3 -1" castshadow="true"/>
    <geom type="plane" size="4 4 0.1"/>
    <body name="ball" pos="0 0 0.5"><freejoint/><geom name="ball" size="0.3" rgba="1 0 0 1"/></body>
    </worldbody></mujoco>"""
)
needs_gl = pytest.mark.skipif(choose_gl() == "none", reason="there is no OpenGL here")


@pytest.fixture
def sim():
    sim = MujocoSim(SCENE, 3, 1)
    qpos = np.tile(sim.parameter("qpos0"), (3, 1))
    qpos[:, 0] = [0.0, 0.8, -0.8]
    sim.reset({"qpos": qpos}, np.arange(3))
    yield sim
    sim.close()


def redness(image: np.ndarray) -> np.ndarray:
    """Mean column of what is red, 0 at the left edge and 1 at the right."""
    red = (image[..., 0].astype(int) - image[..., 1]) > 60
    return np.nonzero(red)[1].mean() / image.shape[1]


@needs_gl
def test_every_world_has_its_own_image(sim: MujocoSim) -> None:
    images = sim.render("front", np.arange(3), 48, 64)
    assert images.shape == (3, 48, 64, 3) and images.dtype == np.uint8
    left, middle, right = (redness(images[i]) for i in (2, 0, 1))
    assert left < middle - 0.1 < middle + 0.1 < right
    some = sim.render("front", np.array([2, 0]), 48, 64)
    assert np.array_equal(some, images[[2, 0]])
    assert np.array_equal(images, sim.render("front", np.arange(3), 48, 64))


@needs_gl
def test_cameras_and_sizes_differ(sim: MujocoSim) -> None:
    front, top = (sim.render(name, np.arange(1), 32, 32) for name in ("front", "top"))
    assert not np.array_equal(front, top)
    assert sim.render("top", np.arange(2), 700, 900).shape == (2, 700, 900, 3)
    assert np.array_equal(top, sim.render("top", np.arange(1), 32, 32))


@needs_gl
def test_rendering_does_not_disturb(sim: MujocoSim) -> None:
    before = sim.batch.state.copy()
    sim.render("follow", np.arange(3), 16, 16)
    assert np.array_equal(before, sim.batch.state)


@needs_gl
def test_a_worlds_own_parameters_show(sim: MujocoSim) -> None:
    size = np.repeat(sim.parameter("geom_size")[None], 2, 0)
    size[1] *= 0.5
    sim.set_parameters({"geom_size": size}, np.array([0, 1]))
    sim.reset({}, np.arange(3))
    images = sim.render("front", np.arange(3), 64, 64).astype(int)
    red = [(image[..., 0] - image[..., 1] > 60).sum() for image in images]
    assert red[1] < 0.5 * red[0] and red[0] == red[2]


@needs_gl
def test_shadows_are_off_unless_asked_for(sim: MujocoSim) -> None:
    plain = sim.render("top", np.arange(1), 64, 64)[0]
    fancy = Camera(sim.batch.get_model(0), 64, 64, fancy=True)
    shadowed = fancy.image(sim.batch, 0, "top")
    fancy.close()
    grey = np.ptp(plain.astype(int), axis=-1) < 10
    assert grey.mean() > 0.5, "most of it is floor"
    assert plain[grey].min() > shadowed[grey].min() + 10


@needs_gl
def test_a_tracking_camera_follows_as_in_mujoco() -> None:
    """The image equals that of MuJoCo's own renderer after a full `mj_forward`."""
    task = HalfCheetah()
    sim = MujocoSim(task.model(), 2, 1)
    qpos = np.tile(sim.parameter("qpos0"), (2, 1))
    qpos[1, 0] = 5.0
    sim.reset({"qpos": qpos}, np.arange(2))
    images = sim.render("track", np.arange(2), 144, 144)  # smaller ones have fewer triangles
    model = sim.batch.get_model(0)
    model.vis.quality.offsamples = 0
    data, renderer = mujoco.MjData(model), mujoco.Renderer(model, 144, 144)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    for i in range(2):
        data.qpos = qpos[i]
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, "track")
        assert np.array_equal(images[i], renderer.render())
    renderer.close()
    sim.close()


def test_an_unknown_camera_is_named_with_those_there_are(sim: MujocoSim) -> None:
    with pytest.raises(UserError, match="unknown camera 'frnt': did you mean front"):
        sim.render("frnt", np.arange(1), 16, 16)
    with pytest.raises(UserError, match="unknown camera 'qq': known: follow, front, top"):
        sim.render("qq", np.arange(1), 16, 16)


def test_a_gl_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert choose_gl() == "osmesa"


def test_without_any_gl_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert choose_gl() == "none"
    assert os.environ["MUJOCO_GL"] == "disable"


def test_without_gl_one_line_says_what_to_install() -> None:
    result = _python(_RENDER, MUJOCO_GL="disable")
    assert "UserError: cannot render without OpenGL" in result.stderr
    assert "install libegl1" in result.stderr


@needs_gl
def test_mujoco_may_be_imported_first() -> None:
    result = _python("import mujoco\n" + _RENDER, MUJOCO_GL="")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "(1, 8, 8, 3)\n"


_RENDER = """
import numpy
from embodied.envs.mujoco.sim import MujocoSim
from embodied.sim import ModelSource
sim = MujocoSim(ModelSource('<mujoco><worldbody><camera name="c"/></worldbody></mujoco>'), 1)
print(sim.render("c", numpy.arange(1), 8, 8).shape)
"""


def _python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}
    )
