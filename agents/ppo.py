"""Proximal Policy Optimisation (Schulman et al. 2017, arXiv 1707.06347), on many worlds.

Read top to bottom: the policy, the loss, one update. Where we differ from the paper: generalised
advantages bootstrap from the true final observation of a truncated episode, observations and
rewards are normalised by running statistics, and an optional target on the KL divergence adapts
the learning rate (as rsl_rl does).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from embodied import processes
from embodied.errors import UserError, check_range
from embodied.nets import (
    RunningNorm,
    adam_state,
    compiled,
    drawn,
    load_adam_state,
    load_weights,
    mlp,
    seeded,
    torch_threads,
    usable_device,
)
from embodied.onnx_graph import Affine
from embodied.returns import DiscountedReturnScale, gae
from embodied.run import open_run
from embodied.spaces import to_vector, vector_keys, vector_size
from embodied.types import ActionSpec, Array, Carry, Obs, Trajectory

from .policy_state import load_policy_state, policy_state


class GaussianPolicy(nn.Module):
    """A diagonal Gaussian over actions, its mean a network of normalised observations.

    Inside, actions are in units of their limits: `a = (action - centre) / scale`.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        action_spec: ActionSpec,
        hidden: Sequence[int],
        activation: str,
        init_std: float,
    ) -> None:
        super().__init__()
        self.action_spec = action_spec
        self.keys = vector_keys(observation_space)
        size = vector_size(observation_space)
        self.norm = RunningNorm(size)
        self.mean = mlp(size, hidden, action_spec.size, activation, last_gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_spec.size,), math.log(init_std)))
        bounded = np.isfinite(action_spec.low) & np.isfinite(action_spec.high)
        bounded &= action_spec.low < action_spec.high
        low, high = np.where(bounded, [action_spec.low, action_spec.high], [[-1.0], [1.0]])
        self.register_buffer("centre", _float((low + high) / 2))
        self.register_buffer("scale", _float((high - low) / 2))
        self.noise = torch.Generator()

    def carry(self, num_worlds: int) -> Carry:
        return {}

    @torch.inference_mode()
    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        x = torch.from_numpy(to_vector(obs, self.keys)).to(self.scale.device)
        return carry, self.decide(x, greedy).cpu().numpy()

    def decide(self, x: Tensor, greedy: bool = False) -> Tensor:
        """Actions `(N, A)` of observations `(N, D)`, on the policy's device."""
        action = self.mean(self.norm(x))
        if not greedy:
            action = action + torch.exp(self.log_std) * drawn(action.shape, self.noise)
        return self.centre + self.scale * action

    def greedy_layers(self) -> nn.Sequential:
        """What `decide` does where it is greedy, layer by layer, to be exported."""
        return nn.Sequential(self.norm, *self.mean, Affine(self.centre, self.scale))


class PPO:
    """The agent. `hidden` sizes the policy and the value network alike.

    `num_worlds * rollout_steps` samples are learned from `epochs` times in `minibatches` parts.
    With `target_kl` the learning rate is divided or multiplied by 1.5 to stay near it; with
    `anneal` it falls linearly to zero over the run. `threads` are torch's during an
    update, when the physics rests: by default every core, up to four. A new run begins with the
    policy and the normaliser of the run at `start` (of PPO or BC), its deviation `init_std`;
    `anchor` weighs the divergence from that policy (KL, in units of `init_std`), for a reward that
    cannot see all that its demonstrations show.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        action_spec: ActionSpec | None,
        num_worlds: int,
        seed: int = 0,
        rollout_steps: int = 32,
        epochs: int = 4,
        minibatches: int = 4,
        lr: float = 1e-3,
        gamma: float = 0.99,
        lam: float = 0.95,
        clip: float = 0.2,
        entropy: float = 0.0,
        value_weight: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        anneal: bool = False,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        init_std: float = 1.0,
        normalise_obs: bool = True,
        normalise_reward: bool = True,
        compile: bool = True,
        device: str = "cpu",
        threads: int | None = None,
        start: str | None = None,
        anchor: float = 0.0,
    ) -> None:
        if action_spec is None:
            raise UserError("PPO needs continuous actions (a Box): take another env or agent")
        check_range("agent", 1, rollout_steps=rollout_steps, epochs=epochs, minibatches=minibatches)
        threads = min(4, len(os.sched_getaffinity(0))) if threads is None else threads
        check_range("agent", 1, threads=threads)
        check_range("agent", 0, 1, gamma=gamma, lam=lam)
        check_range("agent", 0, lr=lr, clip=clip, entropy=entropy, value_weight=value_weight)
        check_range("agent", 0, anchor=anchor)
        check_range("agent", 1e-6, max_grad_norm=max_grad_norm, init_std=init_std)
        if anchor and start is None:
            raise UserError(f"agent.anchor={anchor:g}: to which policy? give agent.start=RUN")
        if num_worlds * rollout_steps < minibatches:
            raise UserError(f"agent.minibatches={minibatches}: more than the samples of a rollout")
        torch.set_num_threads(1)  # acting is little work, beside the threads of the physics
        torch.manual_seed(seed)
        self.rollout_steps, self.gamma, self.lam = rollout_steps, gamma, lam
        self.epochs, self.minibatches = epochs, minibatches
        self.clip, self.entropy, self.value_weight = clip, entropy, value_weight
        self.max_grad_norm, self.target_kl = max_grad_norm, target_kl
        self.base_lr, self.anneal, self.progress = lr, anneal, 0.0
        # A policy that was learned under a normaliser keeps it: new statistics would undo it.
        self.normalise_obs = normalise_obs and start is None
        self.normalise_reward = normalise_reward
        self.device, self.threads = usable_device(device), threads
        self.start: str | None = None
        self.activation = activation
        self._policy = GaussianPolicy(observation_space, action_spec, hidden, activation, init_std)
        self.policy.noise = seeded(seed, self.device)
        self.critic = mlp(vector_size(observation_space), hidden, 1, activation)
        self.policy.to(self.device)
        self.critic.to(self.device)
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=lr, eps=1e-5, fused=True)
        self.reward_scale = DiscountedReturnScale(num_worlds, gamma)
        self.shuffle = torch.Generator().manual_seed(seed)
        self._loss = compiled(self.loss, self.device) if compile else self.loss
        self.start = start
        self.anchor = anchor / init_std**2
        self._first: nn.Module | None = None
        """What the policy's mean was when it began, where it is to stay near."""

    @property
    def policy(self) -> GaussianPolicy:
        """The policy. A new run's takes the weights of `start` the first time it is asked for: a
        run that is loaded has its own, and needs that other one no more."""
        if self.start is not None:
            self._begin_with(self.start)
            self.start = None
        return self._policy

    def _begin_with(self, start: str) -> None:
        run, policy = open_run(start), self._policy
        state = run.checkpoint.state["agent"]
        if not policy_state(policy).keys() <= state.keys():
            raise UserError(f"agent.start={start}: give a run of PPO or BC")
        if (theirs := run.cfg.agent.activation) != self.activation:
            raise UserError(f"agent.start={start}: it has agent.activation={theirs}, take that")
        log_std, noise = policy.log_std.detach().clone(), policy.noise.get_state()
        load_policy_state(policy, state)
        policy.log_std.data.copy_(log_std)
        policy.noise.set_state(noise)
        if self.anchor:
            self._first = deepcopy(policy.mean).requires_grad_(False)

    def update(self, traj: Trajectory) -> dict[str, float]:
        """Learn from one rollout of the current policy, `(T, N)`."""
        with torch_threads(self.threads):
            return self._update(traj)

    def _update(self, traj: Trajectory) -> dict[str, float]:
        obs = self._vector(traj.obs)
        action = self._tensor(traj.action)
        action = (action - self.policy.centre) / self.policy.scale
        valid = self._tensor(traj.valid)
        with torch.no_grad():
            x = self.policy.norm(obs)
            log_prob = self._log_prob(x, action)
            value = self.critic(x).squeeze(-1)
            advantage, target = self._advantages(traj, value, valid)
            first = x[..., :0] if self._first is None else self._first(x)
        batch = [
            part.flatten(0, 1)
            for part in (x, action, first, log_prob, advantage, target, valid.float())
        ]
        metrics = self._epochs(batch)
        if self.normalise_obs:
            self.policy.norm.update(obs.reshape(-1, obs.shape[-1]))
        spread = (target - value)[valid].var() / target[valid].var().clamp(min=1e-8)
        metrics["explained_variance"] = 1.0 - float(spread)
        metrics["std"] = float(self.policy.log_std.detach().exp().mean())
        return metrics

    def _advantages(self, traj: Trajectory, value: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """GAE with every step's true successor, `(T, N)` each."""
        reward = self._tensor(traj.reward)
        terminated, truncated = self._tensor(traj.terminated), self._tensor(traj.truncated)
        if self.normalise_reward:
            self.reward_scale.update(reward.cpu(), (terminated | truncated).cpu(), valid.cpu())
            reward = reward / self.reward_scale.std
        last = self._value(traj.last_obs, lead=1)
        next_value = torch.cat([value[1:], last[None]])
        if len(traj.final_index) and (traj.final_index >= 0).any():
            ends = self._tensor(traj.final_index >= 0)
            next_value[ends] = self._value(traj.final_obs, lead=1)[
                self._tensor(traj.final_index)[ends]
            ]
        return gae(reward, value, next_value, terminated, truncated, valid, self.gamma, self.lam)

    def loss(
        self,
        x: Tensor,
        action: Tensor,
        first: Tensor,
        log_prob: Tensor,
        advantage: Tensor,
        target: Tensor,
        valid: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The clipped surrogate loss of a minibatch `(B, ...)`, and figures for the log.

        Advantages are standardised, and `count` is by how many valid rows to divide. `first` are
        the means of the policy that it is to stay near, if any.
        """
        log_ratio = self._log_prob(x, action) - log_prob
        ratio = log_ratio.exp()
        surrogate = torch.minimum(
            advantage * ratio, advantage * ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        )
        policy_loss = -(surrogate * valid).sum() / count
        value_loss = ((self.critic(x).squeeze(-1) - target) ** 2 * valid).sum() / count
        entropy = self.policy.log_std.sum() + 0.5 * len(self.policy.log_std) * math.log(
            2 * math.pi * math.e
        )
        loss = policy_loss + self.value_weight * value_loss - self.entropy * entropy
        if self.anchor:
            away = ((self.policy.mean(x) - first) ** 2).sum(-1)
            loss = loss + 0.5 * self.anchor * (away * valid).sum() / count
        kl = ((ratio - 1.0 - log_ratio) * valid).sum() / count
        clipped = (((ratio - 1.0).abs() > self.clip) * valid).sum() / count
        figures = torch.stack([policy_loss, value_loss, entropy, kl, clipped])
        return loss, figures.detach()

    def _epochs(self, batch: list[Tensor]) -> dict[str, float]:
        size = batch[0].shape[0] // self.minibatches
        figures = []
        x, action, first, log_prob, advantage, target, valid = batch
        self._set_lr()
        for _ in range(self.epochs):
            order = torch.randperm(len(x), generator=self.shuffle).to(self.device)
            parts = order[: self.minibatches * size].view(self.minibatches, size)
            scaled, count = standardise(advantage[parts], valid[parts])
            for k, rows in enumerate(parts):
                loss, report = self._loss(
                    x[rows], action[rows], first[rows], log_prob[rows], scaled[k], target[rows],
                    valid[rows], count[k],
                )  # fmt: skip
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                processes.average_gradients(self.parameters)
                nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm, foreach=True)
                self.optimiser.step()
                figures.append(report.clone())
            if self.target_kl is not None:
                self._adapt_lr(float(processes.total(figures[-1][3])) / processes.count())
        names = ("policy_loss", "value_loss", "entropy", "kl", "clipped")
        means = torch.stack(figures).mean(0).tolist()
        return dict(zip(names, means, strict=True)) | {"lr": self._lr()}

    def _lr(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    def _set_lr(self) -> None:
        if self.anneal:
            self.optimiser.param_groups[0]["lr"] = self.base_lr * max(1e-3, 1.0 - self.progress)

    def _adapt_lr(self, kl: float) -> None:
        lr, target = self._lr(), self.target_kl
        assert target is not None
        if kl > 2.0 * target:
            lr = max(1e-5, lr / 1.5)
        elif kl < 0.5 * target:
            lr = min(1e-2, lr * 1.5)
        self.optimiser.param_groups[0]["lr"] = lr

    def _log_prob(self, x: Tensor, action: Tensor) -> Tensor:
        z = (action - self.policy.mean(x)) * torch.exp(-self.policy.log_std)
        constant = self.policy.log_std.sum() + 0.5 * action.shape[-1] * math.log(2 * math.pi)
        return -0.5 * (z * z).sum(-1) - constant

    def _value(self, obs: Obs, lead: int) -> Tensor:
        return self.critic(self.policy.norm(self._vector(obs, lead))).squeeze(-1)

    def _vector(self, obs: Obs, lead: int = 2) -> Tensor:
        return torch.as_tensor(to_vector(obs, self.policy.keys, lead)).to(self.device)

    def _tensor(self, value: Array) -> Tensor:
        return torch.as_tensor(value).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        return {
            **policy_state(self.policy),
            "critic": self.critic.state_dict(),
            "optimiser": adam_state(self.optimiser),
            "reward_scale": self.reward_scale.state_dict(),
            "shuffle": self.shuffle.get_state(),
            "progress": self.progress,
            "first": None if self._first is None else self._first.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.start = None
        load_policy_state(self.policy, state)
        load_weights(self.critic, state["critic"])
        load_adam_state(self.optimiser, state["optimiser"])
        self.reward_scale.load_state_dict(state["reward_scale"])
        self.shuffle.set_state(torch.as_tensor(state["shuffle"]))
        self.progress = state["progress"]
        if (first := state.get("first")) is not None:
            self._first = deepcopy(self.policy.mean).requires_grad_(False)
            load_weights(self._first, first)
        elif self.anchor:
            raise UserError("agent.anchor: this run began without one, and knows no policy to keep")


def standardise(advantage: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages `(M, B)` of M minibatches, each of mean 0 and deviation 1 over its valid rows in
    all processes; and how many those are in one process, on average, `(M,)`."""
    count = processes.total(valid.sum(1)).clamp(min=1.0)
    mean = processes.total((advantage * valid).sum(1)) / count
    apart = advantage - mean[:, None]
    std = (processes.total((apart**2 * valid).sum(1)) / count).sqrt()
    return apart / (std[:, None] + 1e-8), count / processes.count()


def _float(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(value, np.float32))
