"""Humanoid's own rules; test_gymnasium_parity.py compares its numbers with Gymnasium's."""

import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.humanoid import Humanoid

from embodied.env import TaskEnv
from embodied.randomise import Randomisation

Z = 2
FORCES = slice(270, 348)


def make_env(num_worlds: int, **settings) -> TaskEnv:
    task = Humanoid()
    return TaskEnv(task, MujocoSim(task.model(), num_worlds, threads=1), **settings)


def test_it_ends_outside_one_to_two_metres() -> None:
    heights = [0.9, 1.0, np.nextafter(1.0, 2), 1.4, np.nextafter(2.0, 1), 2.0, np.nan]
    env = make_env(len(heights))
    env.sim.qpos[:, Z] = heights
    ended = env.task.terminated(env.sim, {}).tolist()
    assert ended == [True, True, False, False, False, True, True]


def test_forward_follows_the_centre_of_this_worlds_masses() -> None:
    env = make_env(3, randomise=Randomisation(mass=(0.5, 2.0)))
    mass = env.sim.batch.expanded("body_mass")

    def centre() -> np.ndarray:
        return (mass * env.sim.read("xipos")[:, :, 0]).sum(axis=1) / mass.sum(axis=1)

    env.step(np.zeros((3, 17), np.float32))
    env.sim.read("xipos")  # from here on up to date
    env.step(np.full((3, 17), 0.2, np.float32))
    before = centre()
    step = env.step(np.full((3, 17), 0.2, np.float32))
    expected = (centre() - before) / 0.015
    np.testing.assert_allclose(step.reward_terms["forward"], expected, atol=1e-9)


def test_standing_presses_on_the_ground_and_falling_does_not() -> None:
    env = make_env(2)
    env.sim.qpos[1, Z] += 30.0
    for _ in range(40):
        step = env.step(np.zeros((2, 17), np.float32))
    forces = step.obs["state"][:, FORCES]
    assert np.abs(forces[0]).max() > 50 and step.reward_terms["contact"][0] > 2500
    assert not forces[1].any() and step.reward_terms["contact"][1] == 0


def test_the_contact_cost_is_capped_at_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env(2)
    huge = env.sim.read("cfrc_ext") + 1e6
    read = env.sim.read
    monkeypatch.setattr(env.sim, "read", lambda name: huge if name == "cfrc_ext" else read(name))
    step = env.step(np.zeros((2, 17), np.float32))
    cost = env.task.weights["contact"] * step.reward_terms["contact"]
    np.testing.assert_allclose(cost, -10.0)
