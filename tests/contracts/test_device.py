"""Every task can be captured in a CUDA graph: nothing that it does waits for a number.

Tensors on torch's device "meta" have a shape but no contents, so a Python branch on one raises, as
does a mask used as an index, and a tensor that was made on another device.
"""

from __future__ import annotations

from typing import Any

import mujoco
import pytest
import torch
from array_api_compat import torch as xp
from embodied.envs.named import Named
from omegaconf import OmegaConf

from embodied.build import make
from embodied.config import CONF, compose_config, options
from embodied.env import TaskEnv
from embodied.randomise import Randomisation
from embodied.sim import ModelSource

TASKS = [name for name in options("env") if "task" in OmegaConf.load(CONF / f"env/{name}.yaml")]
VARIED = Randomisation((0.9, 1.1), (0.9, 1.1), (0.9, 1.1), (0, 2), 0.01)


class FakeSim(Named):
    """The shapes of a simulation on a GPU."""

    xp, device, masked, missing = xp, torch.device("meta"), True, frozenset[str]()

    def __init__(self, source: ModelSource, num_worlds: int) -> None:
        self.model = mujoco.MjModel.from_xml_string(source.xml, dict(source.assets or {}))
        self.data = mujoco.MjData(self.model)
        self.num_worlds, self.timestep_s = num_worlds, self.model.opt.timestep
        self.qpos, self.qvel = self.read("qpos"), self.read("qvel")

    def read(self, field: str) -> torch.Tensor:
        return torch.zeros((self.num_worlds, *getattr(self.data, field).shape), device=self.device)

    def sensor(self, name: str) -> torch.Tensor:
        return self.read("sensordata")[:, self._columns(name)]

    def step(self, control: torch.Tensor, substeps: int) -> None:
        assert control.shape == (self.num_worlds, self.model.nu) and control.is_meta

    def reset(self, rows: dict[str, torch.Tensor], ids: torch.Tensor) -> None:
        assert ids.shape == (self.num_worlds,) and ids.dtype == torch.bool
        assert all(value.is_meta for value in rows.values())

    def set_parameters(self, rows: dict[str, torch.Tensor], ids: torch.Tensor) -> None:
        self.reset(rows, ids)

    def faults(self) -> torch.Tensor:
        return torch.zeros(self.num_worlds, dtype=torch.bool, device=self.device)


@pytest.mark.parametrize("name", TASKS)
def test_a_step_and_a_reset_can_be_captured(name: str) -> None:
    task = make(compose_config([f"env={name}"]).env.task)
    sim: Any = FakeSim(task.model(), 4)
    env = TaskEnv(task, sim, randomise=VARIED)
    action = torch.zeros(4, env.action_spec.size, device=sim.device)
    for _ in range(2):
        step = env.step(action)
        obs = env.reset(step.done)
        assert all(value.is_meta for value in obs.values())
    for told in (step.reward, step.success, step.fault, *env.readouts().values()):
        assert told.is_meta and told.shape[0] == 4
    if task.flaws:
        for flaw in (None, *(flaw.name for flaw in task.flaws)):
            assert env.expert(flaw).shape == action.shape


def test_what_needs_a_number_is_caught() -> None:
    values = torch.zeros(4, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        bool(values.any())
    with pytest.raises(NotImplementedError, match="meta"):
        values[values > 0.0]
    with pytest.raises(RuntimeError, match="meta"):
        values + torch.zeros(4)
