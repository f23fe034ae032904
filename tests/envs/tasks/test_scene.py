"""The scene of all arm tasks: the same objects in the same places, and only some can move."""

from __future__ import annotations

import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.layout import APART_M, layout
from embodied.envs.tasks.robot import panda
from embodied.envs.tasks.scene import HALF_M, OBJECTS, scene

from embodied.sim import ModelSource

from .arm_worlds import ARMS, make

MOVABLE = ("cube", "blue_cube", "cabinet", "peg")


def picture(movable: tuple[str, ...]) -> np.ndarray:
    """What the front camera sees of the scene as written, the arm at home, `(96, 96, 3)`."""
    sim = MujocoSim(ModelSource(scene(panda(), movable)), 1, threads=1)
    sim.qpos[:, :7] = panda().home
    image = sim.render("front", np.array([0]), 96, 96)[0].astype(int)
    sim.close()
    return image


def test_scenery_looks_like_what_it_stands_for() -> None:
    assert (np.abs(picture(()) - picture(MOVABLE)).max(axis=2) > 8).mean() < 0.002


def test_all_tasks_show_the_same_layout() -> None:
    worlds = {name: make(name, 8) for name in ARMS}
    poses = {name: env.memory["poses"] for name, env in worlds.items()}
    for name, env in worlds.items():
        np.testing.assert_array_equal(poses[name], poses["reach"])
        env.sim.read("xpos")  # forward
        for k, body in enumerate(OBJECTS):
            if body == "peg":
                continue
            where = env.sim.read("xpos")[:, env.sim.body(body)]
            np.testing.assert_allclose(where, poses[name][:, k, :3], atol=1e-9, err_msg=body)
            turn = env.sim.read("xquat")[:, env.sim.body(body)]
            np.testing.assert_allclose(turn, poses[name][:, k, 3:], atol=1e-9, err_msg=body)
        for k, cube in enumerate(("cube", "blue_cube")):
            size = env.sim.batch.expanded("geom_size")[:, env.sim.geom(cube)]
            np.testing.assert_allclose(size, poses[name][:, k, 2:3] * np.ones(3))


def test_layouts_keep_their_distances_and_fill_their_ranges() -> None:
    unit = np.random.default_rng(0).uniform(size=(4000, 31))
    robot = panda()
    poses = layout(np, robot, unit)
    space = robot.workspace
    for name in ("cube", "blue_cube"):
        for i, axis in enumerate("xy"):
            low, high = space[axis]
            values = poses[name][:, i]
            assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        half = poses[name][:, 2]
        assert HALF_M[0] <= half.min() < 0.0182 and 0.0258 < half.max() <= HALF_M[1]

    def apart(a: str, b: str) -> np.ndarray:
        return np.linalg.norm(poses[a][:, :2] - poses[b][:, :2], axis=1)

    assert (apart("cube", "blue_cube") >= APART_M).mean() > 0.998
    assert apart("cube", "blue_cube").min() > 0.04 * 2**0.5
    for cube in ("cube", "blue_cube"):
        assert min(apart(cube, other).min() for other in ("stand", "socket")) > 0.09
        assert apart(cube, "cabinet").min() > 0.2
    assert poses["cabinet"][:, 0].std() > 0.01 and poses["stand"][:, 6].std() > 0.05


@pytest.mark.parametrize("name", ARMS)
def test_scenery_stays_where_it_is_and_stops_the_hand(name: str) -> None:
    env = make(name, 2)
    cabinet = env.sim.body("cabinet")
    before = env.sim.read("xpos")[:, cabinet].copy()
    top = before + [0.0, 0.0, 0.02]
    aim = np.concatenate([top[:, :2], np.full((2, 1), 0.25)], axis=1)
    for t in range(60):
        if t == 25:
            aim = top
        move = aim - env.memory["tool"]
        env.step(env.task.act(env.sim, env.memory, move, np.zeros(2), np.zeros(2), np.ones(2)))
    assert np.abs(env.memory["tool"][:, :2] - aim[:, :2]).max() < 0.06
    assert (env.memory["tool"][:, 2] > 0.06).all(), "the hand is on the cabinet, not in it"
    np.testing.assert_array_equal(env.sim.read("xpos")[:, cabinet], before)


def test_each_thing_has_its_colour_in_the_picture() -> None:
    """At 64x64 and over many layouts; cubes are five pixels wide, in the median."""
    env = make("reach", 32)
    images = env.render("front", np.arange(32), 64, 64).astype(float)
    red, green, blue = (images[..., i] for i in range(3))
    masks = {
        "red cube": (red > 2.0 * green) & (red > 2.0 * blue),
        "blue cube": (blue > 1.8 * green) & (blue > 2.0 * red),
        "peg": (red > 2.0 * blue) & (green > 1.5 * blue) & (red > green),
    }
    for name, mask in masks.items():
        seen = mask.any(axis=(1, 2))
        assert seen.mean() > 0.9, f"{name}: hidden in {np.flatnonzero(~seen)}"
    for name in ("red cube", "blue cube"):
        width = masks[name].any(axis=1).sum(axis=1)
        assert np.median(width) >= 5, name


def test_the_decoy_can_be_picked_and_falls_back() -> None:
    env = make("pick_cube", 16)
    heights = []
    for _ in range(env.max_steps // 2):
        env.step(env.expert("wrong_object"))
        heights.append(env.sim.qpos[:, env.task._blue[2]].copy())
    decoy = env.task._decoy(env.sim, env.memory)
    assert (np.max(heights, axis=0) > 0.06).mean() > 0.9
    assert np.median(np.linalg.norm(decoy[:, :3] - env.memory["goal"], axis=1)) < 0.03
    env.sim.read("xpos")
    body = env.sim.body("blue_cube")
    env.step(np.zeros((16, 8), np.float32))
    where = env.task._decoy(env.sim, env.memory)[:, :3]
    np.testing.assert_allclose(env.sim.read("xpos")[:, body], where, atol=0.01)
    still = np.zeros((16, 8), np.float32)
    still[:, -1] = 0.02
    for _ in range(60):
        env.step(still)
    high = env.sim.qpos[:, env.task._blue[2]]
    assert (np.abs(high) < 0.002).mean() > 0.8, "on the table again, but for some on the red cube"


@pytest.mark.parametrize("name", ARMS)
def test_true_progress_rises_with_the_expert_to_one(name: str) -> None:
    env = make(name, 24)
    env.reset(seed=0)
    progress, success = [env.task.progress(env.sim, env.memory)], np.zeros(24, bool)
    for _ in range(100):
        step = env.step(env.expert())
        progress.append(np.where(success, 1.0, env.task.progress(env.sim, env.memory)))
        success |= step.success
    seen = np.stack(progress)
    assert success.all() and (seen[-1] == 1.0).all()
    assert (seen >= 0).all() and (seen <= 1).all() and seen[0].max() < 0.6
    assert np.diff(seen, axis=0).min() > -0.15, "small dips only"
    truth = env.readouts()
    np.testing.assert_array_equal(truth["progress"], env.task.progress(env.sim, env.memory))
    np.testing.assert_array_equal(truth["stage"], env.memory["stage"])


@pytest.mark.parametrize("robot", ["panda", "iiwa"])
@pytest.mark.parametrize("name", ARMS)
def test_the_first_columns_seen_are_the_robots_own(name: str, robot: str) -> None:
    env = make(name, 2, f"robot={robot}")
    task = env.task
    posture = np.concatenate(task.posture(env.sim, env.memory), axis=1)
    assert posture.shape[1] == task.proprio_size
    seen = task.observe(env.sim, env.memory)["state"][:, : task.proprio_size]
    np.testing.assert_array_equal(seen, posture.astype(np.float32))


def test_pushes_keep_clear_of_the_blue_cube() -> None:
    env = make("push_cube", 512)
    start, goal = env.sim.qpos[:, 9:11], env.memory["goal"][:, :2]
    blue = env.memory["poses"][:, 1, :2]
    ways = start[None] + np.linspace(0, 1, 50)[:, None, None] * (goal - start)[None]
    nearest = np.linalg.norm(ways - blue, axis=2).min(axis=0)
    assert nearest.min() > 0.07 and (nearest > 0.095).mean() > 0.94


def test_setbacks_are_counted_when_all_is_lost() -> None:
    task = make("pick_cube", 1).task
    memory = {"best": np.array([0, 0]), "setbacks": np.array([0, 0])}
    yes, no = np.array([True, True]), np.array([False, False])
    first_only = np.array([True, False])
    memory = task.advance(np, memory, [yes, yes, first_only, no])
    assert memory["stage"].tolist() == [3, 2] and memory["best"].tolist() == [3, 2]
    memory = task.advance(np, memory, [no, yes, yes, yes])  # nothing counts after a gap
    assert memory["stage"].tolist() == [0, 0]
    assert memory["best"].tolist() == [0, 2] and memory["setbacks"].tolist() == [1, 0]
