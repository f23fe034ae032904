"""Worlds of the arm's tasks for the tests beside this file."""

from __future__ import annotations

import array_api_compat.torch
import array_api_strict
import numpy as np
import torch
from embodied.envs.mujoco.sim import MujocoSim

from embodied.build import make_env
from embodied.config import compose_config
from embodied.env import TaskEnv
from embodied.task import Task

SEEDS = 48
ARMS = ["reach", "push_cube", "pick_cube", "stack_cube"]
"""Tasks that every general test of an arm's task runs on."""


def make(name: str, num_worlds: int, *overrides: str) -> TaskEnv:
    return make_env(compose_config([f"env={name}", "sim.threads=2", *overrides]), num_worlds)


def experts(env: TaskEnv, names: list[str | None], seeds: int) -> dict[str | None, np.ndarray]:
    """Step at which each seed's episode first succeeded, 0 for never; `names` are its flaws.

    World `k * seeds + i` plays seed i with the k-th flaw, so all play at once.
    """
    seed = np.tile(np.arange(seeds), len(names))
    env.reset(seed=seed)
    first = np.zeros(env.num_worlds, int)
    for t in range(env.max_steps):
        actions = [env.expert(name)[k * seeds : (k + 1) * seeds] for k, name in enumerate(names)]
        step = env.step(np.concatenate(actions))
        assert not step.fault.any()
        first = np.where((first == 0) & step.success, t + 1, first)
    return {name: first[k * seeds : (k + 1) * seeds] for k, name in enumerate(names)}


def check_experts(name: str, *overrides: str, seeds: int = SEEDS, flaws: bool = True) -> None:
    """The expert succeeds, and every flaw fails or is slow as it says."""
    task = make(name, 1, *overrides).task
    named = task.flaws if flaws else ()
    env = make(name, seeds * (1 + len(named)), *overrides)
    first = experts(env, [None, *(flaw.name for flaw in named)], seeds)
    best = first[None]
    assert np.mean(best > 0) >= 0.98, f"{name}: seeds {np.nonzero(best == 0)[0]} failed"
    for flaw in named:
        won = first[flaw.name] > 0
        if flaw.expect == "fails":
            assert np.mean(won) <= 0.1, f"{flaw.name} succeeds"
        else:
            assert np.mean(won) >= 0.9, f"{flaw.name} fails"
            assert np.median(first[flaw.name][won]) >= 1.3 * np.median(best), f"{flaw.name} is fast"


class TorchSim:
    """A CPU simulator seen through torch, as a task sees one on a GPU."""

    xp, device, missing = array_api_compat.torch, torch.device("cpu"), frozenset()

    def __init__(self, sim: MujocoSim) -> None:
        self._sim = sim

    def __getattr__(self, name: str):
        value = getattr(self._sim, name)
        if name in ("qpos", "qvel"):
            return torch.from_numpy(value.copy())
        return value

    def step(self, control: torch.Tensor, substeps: int) -> None:
        self._sim.step(control.numpy(), substeps)

    def reset(self, rows: dict, ids: torch.Tensor) -> None:
        self._sim.reset({k: v.numpy() for k, v in rows.items()}, ids.numpy())

    def set_parameters(self, rows: dict, ids: torch.Tensor) -> None:
        self._sim.set_parameters({k: v.numpy() for k, v in rows.items()}, ids.numpy())

    def faults(self) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self._sim.faults()))


class StrictSim:
    """A simulator whose arrays allow only what the array API standard names."""

    xp, device = array_api_strict, None

    def __init__(self, sim: MujocoSim) -> None:
        self._sim = sim

    def __getattr__(self, name: str):
        value = getattr(self._sim, name)
        if name in ("qpos", "qvel"):
            return array_api_strict.asarray(value.copy())
        return value


def torch_env(task: Task, num_worlds: int) -> TaskEnv:
    return TaskEnv(task, TorchSim(MujocoSim(task.model(), num_worlds, threads=1)))  # type: ignore
