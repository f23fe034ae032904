"""Worlds whose arrays are torch's, on whatever device, for callers that speak NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.env import TaskEnv
from embodied.types import Array, Obs, Step


class HostTaskEnv(TaskEnv):
    """A `TaskEnv` that takes and gives NumPy, copied, while task and sim stay on their device."""

    device_step, device_reset, device_readouts = TaskEnv.step, TaskEnv.reset, TaskEnv.readouts
    """The same with torch in and out, as a caller on that device wants it."""

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        if mask is not None:
            mask = self.sim.xp.asarray(mask, device=self.sim.device)
        return to_host(super().reset(mask, seed))

    def step(self, action: Array) -> Step:
        step = super().step(action)
        fields = ((f.name, to_host(getattr(step, f.name))) for f in dataclasses.fields(step))
        return Step(**dict(fields))

    def readouts(self) -> dict[str, Array]:
        return to_host(super().readouts())

    def expert(self, flaw: str | None = None) -> Array:
        return to_host(super().expert(flaw))

    def state_dict(self) -> dict[str, Any]:
        return to_host(super().state_dict())


def to_host(value: Any) -> Any:
    """Arrays of any device as NumPy's own copies, in dicts to any depth."""
    if isinstance(value, Mapping):
        return {key: to_host(one) for key, one in value.items()}
    return np.array(value.cpu().numpy() if hasattr(value, "cpu") else value)
