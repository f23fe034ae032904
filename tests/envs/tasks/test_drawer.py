"""The drawer itself: where its handle is, that it stays put, and how it is seen."""

from __future__ import annotations

import numpy as np
from embodied.envs.tasks.scene import OBJECTS

from .arm_worlds import make

IDLE = np.zeros((64, 8), np.float32)


def test_the_handle_is_where_the_simulator_has_it() -> None:
    env = make("open_drawer", 64)
    opening = np.linspace(0.0, 0.13, 64)
    env.sim.qpos[:, 9] = opening
    geom, field = env.sim.geom("handle"), env.sim.read("geom_xpos")
    np.testing.assert_allclose(env.task.handle(env.sim, env.memory), field[:, geom], atol=1e-9)
    np.testing.assert_allclose(env.task.out(env.sim), opening)


def test_a_drawer_stays_where_it_is_left() -> None:
    env = make("open_drawer", 64)
    opening = np.linspace(0.0, 0.13, 64)
    env.sim.qpos[:, 9] = opening
    for _ in range(40):
        env.step(IDLE)
    np.testing.assert_allclose(env.task.out(env.sim), opening, atol=1e-4)
    np.testing.assert_array_less(opening - 1e-3, env.memory["widest"])


def test_cabinets_stand_and_turn_differently() -> None:
    env = make("open_drawer", 64)
    cabinet = env.memory["poses"][:, OBJECTS.index("cabinet")]
    assert np.ptp(cabinet[:, 0]) > 0.03 and np.ptp(cabinet[:, 1]) > 0.015
    turn = 2.0 * np.arctan2(cabinet[:, 6], cabinet[:, 3])
    assert np.ptp(turn) > 0.1
    np.testing.assert_allclose(env.memory["ahead"][:, 0], -np.sin(turn), atol=1e-12)
    np.testing.assert_allclose(env.memory["ahead"][:, 1], np.cos(turn), atol=1e-12)
    assert (env.task.out(env.sim) < 0.01).all() and np.ptp(env.task.out(env.sim)) > 0.005


def test_the_handle_is_seen_only_through_a_tracker() -> None:
    """Noise of a millimetre or so, and half of the worlds see it a step late."""
    env = make("open_drawer", 64)
    errors = []
    for _ in range(30):
        env.step(IDLE)
        errors.append(env.memory["handle_tracked"][:, :3] - env.task.handle(env.sim, env.memory))
    assert 0.0007 < np.std(errors) < 0.0015
    before = env.task.handle(env.sim, env.memory)
    env.sim.qpos[:, 9] += 0.1
    env.step(IDLE)
    late = np.linalg.norm(env.memory["handle_tracked"][:, :3] - before, axis=1) < 0.01
    lost = late & ~env.memory["handle_track_delayed"]
    assert lost.sum() <= 4 and (late == env.memory["handle_track_delayed"])[~lost].all()
