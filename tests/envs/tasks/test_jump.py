"""Half a cheetah in the air."""

from __future__ import annotations

import mujoco
import numpy as np
from embodied.envs.tasks.half_cheetah import ankle_heights
from embodied.envs.tasks.jump import Jump

from tests.envs.tasks.behaviours import PITCH, Z, look, sim_of


def test_what_counts_by_hand() -> None:
    # Ankles are 0.31 and 0.28 m above the ground of a body that has not settled yet.
    look(Jump(), True, {"high": 1.0}, qpos={Z: 0.1})
    look(Jump(), False, {"high": (0.28 - 0.2) / 0.15})
    look(Jump(), False, {"high": 0.0}, qpos={Z: -0.15})
    look(Jump(), False, {"high": 0.0}, qpos={Z: 0.4, PITCH: -0.8})  # it rears up
    look(Jump(), False, {}, qpos={Z: 0.1, PITCH: 0.65})  # it stands on its front foot


def test_ankles_are_where_mujoco_has_them() -> None:
    task = Jump()
    sim = sim_of(task, 5)
    sim.qpos[:] += np.random.default_rng(0).uniform(-1.0, 1.0, sim.qpos.shape)
    model = mujoco.MjModel.from_xml_string(task.model().xml)
    data = mujoco.MjData(model)
    for heights, qpos in zip(ankle_heights(sim), sim.qpos, strict=True):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        feet = [data.body(name).xpos[2] for name in ("bfoot", "ffoot")]
        np.testing.assert_allclose(heights, feet, atol=1e-9)
