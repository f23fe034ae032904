"""Hopper's own rules; test_gymnasium_parity.py compares its numbers with Gymnasium's."""

import gymnasium as gym
import numpy as np
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.hopper import Hopper

Z, ANGLE, X, KNEE = 1, 2, 0, 4

CASES = [  # (row of qpos, of qvel, value)
    *(("qpos", Z, z) for z in (0.69, 0.7, np.nextafter(0.7, 1), 1.3, 50.0)),
    *(("qpos", ANGLE, a) for a in (-0.21, -0.2, -0.199, 0.199, 0.2, 0.21)),
    *(("qpos", KNEE, q) for q in (-101.0, -100.0, -99.0, 99.0, 100.0)),
    *(("qvel", i, v) for i in range(6) for v in (-100.0, -99.9, 99.9, 100.0)),
    ("qpos", X, 1000.0),
]


def test_it_ends_where_gymnasiums_is_unhealthy() -> None:
    task, theirs = Hopper(), gym.make("Hopper-v5").unwrapped
    sim = MujocoSim(task.model(), len(CASES), threads=1)
    task.bind(sim)
    for i, (field, place, value) in enumerate(CASES):
        getattr(sim, field)[i, place] = value
    expected = []
    for i in range(len(CASES)):
        theirs.set_state(sim.qpos[i].copy(), sim.qvel[i].copy())
        expected.append(not theirs.is_healthy)
    ended = task.terminated(sim, {})
    assert ended.tolist() == expected
    assert 5 < ended.sum() < len(CASES) - 5


def test_what_is_not_finite_is_not_healthy() -> None:
    task = Hopper()
    sim = MujocoSim(task.model(), 3, threads=1)
    sim.qpos[0, 3], sim.qvel[1, 2] = np.nan, np.inf
    assert task.terminated(sim, {}).tolist() == [True, True, False]


def test_seen_velocities_are_clipped() -> None:
    task = Hopper()
    sim = MujocoSim(task.model(), 2, threads=1)
    sim.qvel[:] = np.array([[-30.0, -10.0, -9.0, 9.0, 10.0, 30.0]])
    seen = task.observe(sim, {})["state"]
    assert seen.shape == (2, 11)
    assert seen[0, 5:].tolist() == [-10.0, -10.0, -9.0, 9.0, 10.0, 10.0]
    assert sim.qvel[0, 0] == -30.0
