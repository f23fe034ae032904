"""Walker2d's own rules; test_gymnasium_parity.py compares its numbers with Gymnasium's."""

import gymnasium as gym
import numpy as np
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.walker2d import Walker2d

Z, ANGLE, KNEE = 1, 2, 4

CASES = [
    *(("qpos", Z, z) for z in (0.79, 0.8, np.nextafter(0.8, 1), 1.25, np.nextafter(2, 1), 2.0)),
    *(("qpos", ANGLE, a) for a in (-1.1, -1.0, -0.99, 0.99, 1.0, 1.1)),
    *(("qpos", KNEE, q) for q in (-101.0, 101.0)),
    *(("qvel", 3, v) for v in (-200.0, 200.0)),
]


def test_it_ends_where_gymnasiums_is_unhealthy() -> None:
    task, theirs = Walker2d(), gym.make("Walker2d-v5").unwrapped
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
    task = Walker2d()
    sim = MujocoSim(task.model(), 2, threads=1)
    sim.qpos[0, Z] = np.nan
    assert task.terminated(sim, {}).tolist() == [True, False]


def test_the_body_differs_from_hoppers_and_so_does_the_name() -> None:
    task = Walker2d()
    assert task.name == "walker2d" and "walk" in task.instructions[0]
    sim = MujocoSim(task.model(), 1, threads=1)
    assert task.action_spec(sim).size == 6
    assert task.observe(sim, {})["state"].shape == (1, 17)
