"""The arm's scene with markers: a tracker finds the cubes in it, and physics is the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks import marked as markings
from embodied.envs.tasks.marked import CAMERA, HEIGHT, WIDTH, cube, marked, tracker
from embodied.envs.tasks.pick_cube import PickCube
from embodied.envs.tasks.robot import panda
from embodied.envs.tasks.scene import CUBES, scene
from embodied.envs.tasks.urdf import iiwa

from embodied.deploy.markers import MarkerTracker, cube_markers
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.sim import ModelSource

from .arm_worlds import make

HALVES = {"cube": 0.018, "blue_cube": 0.026}
AHEAD = {"cube": (0.5, -0.08), "blue_cube": (0.48, 0.1)}
TURNS = [
    (1.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 1.0),
    (0.5**0.5, 0.0, 0.0, 0.5**0.5),
    (0.5**0.5, 0.0, 0.5**0.5, 0.0),
    (0.5**0.5, 0.0, -(0.5**0.5), 0.0),
    (0.5**0.5, 0.5**0.5, 0.0, 0.0),
    (0.8, 0.3, -0.2, (1.0 - 0.77) ** 0.5),
]
"""Ways to turn a cube, in which each face is seen."""


@pytest.fixture(scope="module")
def sim() -> MujocoSim:
    source = marked(ModelSource(scene(panda(), CUBES)), panda())
    sim = MujocoSim(source, 1, threads=1)
    sim.qpos[:, :7] = (0.0, -1.2, 0.0, -2.6, 0.0, 2.2, 0.785)  # out of the way
    yield sim
    sim.close()


def place(sim: MujocoSim, turn: tuple[float, ...]) -> dict[str, np.ndarray]:
    sizes = np.array(sim.parameter("geom_size"))[None].copy()
    poses = {}
    for name in CUBES:
        poses[name] = np.array([*AHEAD[name], 0.12, *turn])
        sim.qpos[:, sim.joint(name)[0]] = poses[name]
        sizes[:, sim.geom(name)] = HALVES[name]
    sim.set_parameters({"geom_size": sizes}, np.array([0]))
    return poses


@pytest.mark.parametrize("turn", TURNS)
def test_cubes_of_any_size_are_found_where_they_are(
    sim: MujocoSim, turn: tuple[float, ...]
) -> None:
    poses = place(sim, turn)
    image = sim.render(CAMERA, np.array([0]), HEIGHT, WIDTH)[0]
    found = MarkerTracker.from_config(tracker(panda(), HALVES)).track(image)
    assert set(found) == set(CUBES)
    for name, sighting in found.items():
        assert np.linalg.norm(sighting.pose[:3] - poses[name][:3]) < 0.003
        same = abs(float(np.dot(sighting.pose[3:], poses[name][3:])))
        assert 2.0 * math.acos(min(1.0, same)) < 0.02
        assert sighting.error_px < 1.5


def test_every_face_carries_its_own_marker(sim: MujocoSim) -> None:
    seen: set[int] = set()
    for turn in TURNS:
        place(sim, turn)
        image = sim.render(CAMERA, np.array([0]), HEIGHT, WIDTH)[0]
        one = MarkerTracker.from_config(tracker(panda(), HALVES))
        seen |= {id for id, _ in one._detect(image[..., 0])}
    assert seen == set(range(12))


def test_an_expert_is_followed_through_the_whole_task() -> None:
    worlds = marked_worlds(3)
    half = np.array(worlds.memory["half"])
    trackers = [MarkerTracker.from_config(tracker(panda(), {"cube": float(size)})) for size in half]
    where, errors = worlds.sim.joint("cube")[0], []
    done = np.zeros(3, bool)
    for step in range(60):
        if step % 4 == 0:
            images = worlds.sim.render(CAMERA, np.arange(3), HEIGHT, WIDTH)
            for i, one in enumerate(trackers):
                found = one.track(images[i], step * 50_000_000).get("cube")
                assert found is not None and found.age_s < 0.21
                if found.age_s == 0.0:
                    errors.append(np.linalg.norm(found.pose[:3] - worlds.sim.qpos[i, where][:3]))
        done |= worlds.step(worlds.expert(None)).success
    assert done.all()
    assert len(errors) >= 0.95 * 3 * 15
    assert np.sqrt(np.mean(np.square(errors)) / 3) < 0.001 and max(errors) < 0.006
    worlds.close()


def marked_worlds(count: int) -> TaskEnv:
    task = PickCube(panda())
    sim = MujocoSim(marked(task.model(), panda()), count, threads=1)
    env = TaskEnv(task, sim, 150, 0)
    env.reset(seed=np.arange(count))
    return env


def test_markers_change_nothing_but_looks() -> None:
    plain, painted = make("pick_cube", 2), marked_worlds(2)
    first = plain.reset(seed=np.arange(2))["state"]
    np.testing.assert_array_equal(first, painted.reset(seed=np.arange(2))["state"])
    for _ in range(40):
        action = plain.expert(None)
        one, other = plain.step(action), painted.step(action)
        np.testing.assert_array_equal(one.obs["state"], other.obs["state"])
        np.testing.assert_array_equal(one.reward, other.reward)
    np.testing.assert_array_equal(plain.sim.qpos, painted.sim.qpos)
    painted.close()


def test_the_camera_moves_with_the_workspace() -> None:
    near, far = (tracker(robot, HALVES)["camera"]["pose"] for robot in (panda(), iiwa()))
    np.testing.assert_allclose(np.subtract(far, near), [0.08, 0, 0, 0, 0, 0, 0], atol=1e-9)
    sim = MujocoSim(marked(ModelSource(scene(iiwa(), CUBES)), iiwa()), 1, threads=1)
    at = sim.model.camera(CAMERA)
    np.testing.assert_allclose(at.pos, far[:3])
    sim.close()


def test_a_cube_is_told_as_its_markers_are_made() -> None:
    told = cube("blue_cube", 0.02)
    assert told["ids"] == [6, 7, 8, 9, 10, 11] and told["side_m"] == pytest.approx(0.04 * 6 / 7)
    assert len(cube_markers(**told)) == 6


def test_other_cubes_are_refused() -> None:
    source = ModelSource(scene(panda(), CUBES))
    for call in (
        lambda: marked(source, panda(), ("cube", "green_cube")),
        lambda: tracker(panda(), {"peg": 0.02}),
    ):
        with pytest.raises(UserError, match="unknown cube"):
            call()


def test_what_the_source_had_is_kept() -> None:
    source = marked(ModelSource(scene(panda(), CUBES), {"a.png": b"x"}), panda(), ("cube",))
    assert source.assets is not None and source.assets["a.png"] == b"x"
    assert len(source.assets) == 1 + len(markings.FILES)
