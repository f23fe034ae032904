"""What cameras see in Bullet is where MuJoCo's cameras see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embodied.build import make_env
from embodied.config import compose_config
from embodied.errors import UserError

SIZE = 96, 128


def worlds(name: str, sim: str) -> Any:
    env: Any = make_env(compose_config([f"env={name}", f"sim={sim}"]), 2)
    env.reset(seed=np.array([3, 4]))
    return env


def shown(sim: str, camera: str) -> list[tuple[np.ndarray, int]]:
    """Where the cube is seen in each of two worlds, (row, column), and how many pixels it covers:
    what changes when it is taken away. For the wrist it lies under the hand."""
    env = worlds("push_cube", sim)
    pose, tool = env.sim.qpos[:, env.task._cube].copy(), env.memory["tool"]
    if camera == "wrist":
        pose[:, :2] = tool[:, :2] + 0.03
    state, images = {"qpos": env.sim.qpos.copy()}, []
    for where in (pose, pose + [9.0, 0, 0, 0, 0, 0, 0]):
        state["qpos"][:, env.task._cube] = where
        env.sim.reset(state, np.arange(2))
        images.append(env.render(camera, np.array([1, 0]), *SIZE).astype(int))
    env.close()
    changed = np.abs(images[0] - images[1]).max(axis=-1) > 12
    return [(np.argwhere(mask).mean(axis=0), int(mask.sum())) for mask in changed]


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_a_cube_is_where_mujoco_shows_it(camera: str) -> None:
    seen, there = shown("mujoco", camera), shown("bullet", camera)
    for (mine, many), (theirs, count) in zip(seen, there, strict=True):
        assert many > 15 and count == pytest.approx(many, rel=0.2)
        assert np.abs(mine - theirs).max() < 1.0


def red(images: np.ndarray) -> int:
    return int((images[..., 0] > 1.7 * images[..., 1:].max(axis=-1)).sum())


def test_pictures_follow_the_state_and_the_size() -> None:
    env = worlds("pick_cube", "bullet")
    ids = np.array([0])
    image = env.render("front", ids, *SIZE)
    assert (image.shape, image.dtype) == ((1, *SIZE, 3), np.uint8) and image.std() > 10.0
    np.testing.assert_array_equal(env.render("front", ids, *SIZE), image)
    sizes = env.sim.snapshot()["model/geom_size"][:1]
    sizes[:, env.sim.geom("cube")] *= 2.0
    env.sim.set_parameters({"geom_size": sizes}, ids)
    grown = env.render("front", ids, *SIZE)
    assert red(grown) > 2 * red(image) > 20
    with pytest.raises(UserError, match="did you mean front"):
        env.render("frnt", ids, *SIZE)
    env.close()


@pytest.mark.parametrize("overrides", [[], ["sim.urdf=null"], ["sim.urdf=null", "robot=iiwa"]])
def test_the_arm_is_seen(overrides: list[str]) -> None:
    env: Any = make_env(compose_config(["env=reach", "sim=bullet", *overrides]), 1)
    ids = np.array([0])
    first = env.render("front", ids, *SIZE)
    for _ in range(10):
        env.step(env.expert())
    moved = env.render("front", ids, *SIZE)
    assert (np.abs(moved.astype(int) - first).max(axis=-1) > 30).sum() > 20
    env.close()
