"""Rollouts that stay on a device: the host hears of them when they are over."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied.agent import Policy
from embodied.collect import Collector
from embodied.graph import Captured, State
from embodied.host_env import HostTaskEnv, to_host
from embodied.rewards import Rewards
from embodied.rollout import no_readout
from embodied.spaces import to_vector
from embodied.types import Array, Obs, Trajectory


def fits(env: Any, agent: Any, rewards: Rewards) -> bool:
    """Whether worlds and policy can stay on one device: images are taken by the host."""
    at_home = isinstance(env, HostTaskEnv) and hasattr(agent.policy, "decide")
    return at_home and agent.device == env.sim.device and not rewards.cameras


class DeviceCollector(Collector):
    """A `Collector` for torch's worlds and policies on one device.

    Act, step, observe, reward and reset are one CUDA graph on a GPU. After the last step what the
    host has to know goes there at once; observations only where a reward model looks at them. What
    comes out equals what a `Collector` gives, but that `obs` may be torch's.
    """

    env: HostTaskEnv
    captures = True
    """Whether steps become a CUDA graph, where there is CUDA: one cannot look into it."""

    def start(self, policy: Policy, stagger: bool = True) -> None:
        super().start(policy, stagger)
        self._begin()

    def _begin(self) -> None:
        """Hand the device what lives between steps."""
        device = self.env.sim.device
        self._now = {
            "is_first": torch.as_tensor(self._is_first, device=device),
            "episode_step": torch.as_tensor(self._episode_step, device=device),
        }
        self._loop: _Loop | None = None
        self._how: tuple[Any, ...] = ()

    def collect(self, policy: Policy, steps: int | None) -> Trajectory:
        if steps is None:
            return self.collect_episodes(policy)
        if self._obs is None:
            self.start(policy)
        loop, how = self._loop, (policy, steps, getattr(policy, "at_random", False))
        if loop is None or self._how != how:  # what branches outside of tensors is captured anew
            wanted = self.rewards.readouts
            loop = _Loop(self.env, policy, steps, wanted, self._now, self.captures)
            self._loop, self._how = loop, how
        loop.run()
        self._now = loop.now
        told = loop.told()
        traj = _trajectory(self.env, loop, told, self.steps, not self.rewards.blind)
        done = traj.terminated | traj.truncated
        for t in range(steps):
            paid = {name[5:]: value[t] for name, value in told.items() if name.startswith("term/")}
            step: Any = SimpleNamespace(
                reward=told["reward"][t], success=told["success"][t], reward_terms=paid
            )
            self.episodes.add(step, done[t])
        seen = _Seen(told["fault"], told["episode_step"], told["success"], told["reward"])
        return self._labelled(traj, seen)

    def state_dict(self) -> dict[str, Any]:
        if self._obs is not None:
            self._obs = to_host({k: v for k, v in self.env._obs.items()})
            self._is_first = to_host(self._now["is_first"])
            self._episode_step = to_host(self._now["episode_step"])
        return super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self._obs is not None:
            self._begin()


@dataclass
class _Seen:
    fault: Array
    episode_step: Array
    success: Array
    env_reward: Array


class _Loop:
    """One step after the other of all worlds, written into buffers `(T, N, ...)`."""

    def __init__(
        self,
        env: HostTaskEnv,
        policy: Any,
        steps: int,
        wanted: frozenset[str],
        now: State,
        captures: bool,
    ) -> None:
        self.env, self.policy, self.steps, self.wanted = env, policy, steps, wanted
        self.now = dict(now)
        self.buffers: State = {}
        self.row = torch.zeros(1, dtype=torch.int64, device=env.sim.device)
        noise = [policy.noise] if hasattr(policy, "noise") else []
        device = env.sim.device if captures else torch.device("cpu")
        around = getattr(env.sim, "capturing", nullcontext)
        self._step = Captured(self._take, self._read, self._write, device, noise, around)

    @torch.inference_mode(False)
    @torch.no_grad()
    def run(self) -> None:
        self.row.zero_()
        for _ in range(self.steps):
            self._step()

    def told(self) -> dict[str, np.ndarray]:
        """All but observations, on the host."""
        names = [name for name in self.buffers if not name.startswith(("obs/", "next/"))]
        return {name: self.buffers[name].cpu().numpy().copy() for name in names}

    def _take(self) -> None:
        env, now = self.env, self.now
        obs = env._obs
        action = self.policy.decide(to_vector(obs, self.policy.keys))
        self._keep(action=action, is_first=now["is_first"], episode_step=now["episode_step"])
        self._keep(**{f"obs/{key}": value for key, value in obs.items()})
        step = env.device_step(action)
        done = step.terminated | step.truncated
        self._keep(**{f"next/{key}": value for key, value in step.obs.items()})
        self._keep(**{f"term/{key}": value for key, value in step.reward_terms.items()})
        self._keep(
            executed=step.action_executed, reward=step.reward, terminated=step.terminated,
            truncated=step.truncated, success=step.success, fault=step.fault,
        )  # fmt: skip
        given = {"reward", "success", *(f"term/{key}" for key in step.reward_terms)}
        if more := self.wanted - given:
            told = env.device_readouts()
            for name in more:
                if name not in told:
                    raise no_readout(name, {*given, *told})
            self._keep(**{f"readout/{name}": told[name] for name in more})
        env.device_reset(done)
        self.now = {
            "is_first": done,
            "episode_step": torch.where(done, 0, now["episode_step"] + 1),
        }
        self.row += 1

    def _keep(self, **rows: Tensor) -> None:
        for name, value in rows.items():
            if name not in self.buffers:
                kind = torch.float32 if value.dtype == torch.float64 else value.dtype
                shape = (self.steps, *value.shape)
                self.buffers[name] = torch.zeros(shape, dtype=kind, device=value.device)
            buffer = self.buffers[name]
            buffer.index_copy_(0, self.row, value[None].to(buffer.dtype))

    def _read(self) -> State:
        return {**self.now, **self.env.carried()}

    def _write(self, state: State) -> None:
        self.now = {name: state[name] for name in self.now}
        self.env.take_up(state)


def _trajectory(
    env: HostTaskEnv, loop: _Loop, told: dict[str, np.ndarray], first_step: int, on_host: bool
) -> Trajectory:
    """The rollout that `loop` has run; its observations on the host where a model wants them."""
    shape = told["reward"].shape
    ended = np.nonzero(told["terminated"] | told["truncated"])
    final_index = np.full(shape, -1, np.int64)
    final_index[ended] = np.arange(len(ended[0]))

    def observed(kind: str) -> Obs:
        named = {k: v for k, v in loop.buffers.items() if k.startswith(kind)}
        return {name[len(kind) :]: value for name, value in named.items()}

    final = {key: value[ended] for key, value in observed("next/").items()}
    obs = {key: value.clone() for key, value in observed("obs/").items()}
    last = {key: env._obs[key].clone().to(obs[key].dtype) for key in obs}
    if on_host:
        obs, last, final = to_host(obs), to_host(last), to_host(final)
    readouts = {"reward": told["reward"], "success": told["success"]}
    readouts |= {name: value for name, value in told.items() if name.startswith("term/")}
    readouts |= {k[8:]: v for k, v in told.items() if k.startswith("readout/")}
    ids = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape)
    return Trajectory(
        obs=obs,
        last_obs=last,
        action=told["action"],
        action_executed=told["executed"],
        reward=np.zeros(shape, np.float32),
        reward_terms={},
        terminated=told["terminated"],
        truncated=told["truncated"],
        is_first=told["is_first"],
        valid=told["fault"] == 0,
        step_id=first_step + ids,
        final_index=final_index,
        final_obs=final,
        instructions=env.instructions,
        readouts={name: value for name, value in readouts.items() if name in loop.wanted},
    )
