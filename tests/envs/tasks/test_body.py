"""What reward code reads of walking bodies is what MuJoCo says of the same state."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from embodied.build import make_env
from embodied.config import compose_config
from embodied.env import TaskEnv


@pytest.mark.parametrize("name", ["half_cheetah", "hopper", "walker2d", "ant", "humanoid"])
def test_the_torso_as_mujoco_has_it(name: str) -> None:
    env = make_env(compose_config([f"env={name}"]), num_envs=4, seed=3)
    assert isinstance(env, TaskEnv)
    env.reset()
    rng = np.random.default_rng(0)
    spec = env.action_spec
    for _ in range(8):
        env.step(rng.uniform(spec.low, spec.high, (4, spec.size)).astype(np.float32))
    world = env.task.world(env.sim, env.memory)
    model = mujoco.MjModel.from_xml_string(env.task.model().xml)
    data = mujoco.MjData(model)
    torso = model.body("torso").id
    for i in range(4):
        data.qpos[:], data.qvel[:] = env.sim.qpos[i], env.sim.qvel[i]
        mujoco.mj_forward(model, data)
        axes = data.xmat[torso].reshape(3, 3)
        speed = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, torso, speed, 0)
        if name in ("ant", "humanoid"):
            np.testing.assert_allclose(world["torso.up"][i], axes[:, 2], atol=1e-6)
            np.testing.assert_allclose(world["torso.forward"][i], axes[:, 0], atol=1e-6)
            np.testing.assert_allclose(world["torso.position"][i], data.xpos[torso], atol=1e-6)
            turning = axes @ world["torso.angular_velocity"][i]
            np.testing.assert_allclose(turning, speed[:3], atol=1e-6)
        else:
            np.testing.assert_allclose(world["torso.height"][i], data.xpos[torso, 2], atol=1e-6)
            pitch = world["torso.pitch"][i]
            lean = [np.sin(pitch), 0.0, np.cos(pitch)]  # its own z axis tips forward
            np.testing.assert_allclose(lean, axes[:, 2], atol=1e-6)
            np.testing.assert_allclose(world["torso.pitch_rate"][i], speed[1], atol=1e-6)
        assert len(world["joints.angles"][i]) == len(world["joints.velocities"][i]) == model.nu
    env.close()
