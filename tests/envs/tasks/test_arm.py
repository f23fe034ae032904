"""Worlds of the arm are plain MuJoCo simulations of their own cubes, over long trajectories."""

import mujoco
import numpy as np
import pytest

from embodied.build import make_env
from embodied.config import compose_config

from .arm_worlds import ARMS


@pytest.mark.parametrize("name", ARMS)
def test_a_thousand_steps_equal_a_plain_loop_bit_for_bit(name: str) -> None:
    """Through contact, with the expert at work and every world's cube of its own kind."""
    env = make_env(compose_config([f"env={name}", "sim.threads=2", "env.max_steps=1000"]), 3)
    sim = env.sim
    models = [sim.batch.get_model(i) for i in range(3)]
    worlds = [sim.batch.get_data(i) for i in range(3)]
    step, controls = sim.step, []

    def recorded(control: np.ndarray, substeps: int) -> None:
        controls.append(np.array(control))
        step(control, substeps)

    sim.step = recorded
    rng, spec = np.random.default_rng(0), env.action_spec
    for t in range(1000):
        chance = rng.uniform(spec.low, spec.high, (3, spec.size))
        env.step(env.expert() if t % 200 < 120 else 0.5 * chance)
        for model, data, control, qpos, qvel in zip(
            models, worlds, controls[-1], sim.qpos, sim.qvel, strict=True
        ):
            data.ctrl = control
            mujoco.mj_step(model, data, env.substeps)
            assert np.array_equal(qpos, data.qpos), t
            assert np.array_equal(qvel, data.qvel), t
    assert not sim.faults().any()
