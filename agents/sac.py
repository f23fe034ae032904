"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), with many worlds feeding one learner.

    y      = r + discount * (min_i Q'_i(s', a') - alpha log pi(a'|s'))
    critic : sum_i (Q_i(s, a) - y)^2 / 2
    actor  : alpha log pi(a|s) - min_i Q_i(s, a)
    alpha  : -log_alpha * (log pi(a|s) + target_entropy)

Where we differ: critics are one stack of networks, so that all of them are one matrix product a
layer; `n_step` rewards count before the critic's word is taken; a truncated episode is bootstrapped
from its true last observation; losses are compiled where they can be. Rewards are formed when a
step is drawn (see `embodied.replay`), so their labels may come late; and demonstrations, where
there are any, are a fixed share of every batch (RLPD, Ball et al. 2023, arXiv 2302.02948).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embodied import processes
from embodied.adam import Adam
from embodied.errors import check_range, unknown
from embodied.nets import (
    compiled,
    load_weights,
    seeded,
    torch_threads,
    usable_device,
)
from embodied.replay import Batch, Replay
from embodied.spaces import to_vector, vector_size
from embodied.types import ActionSpec, Array, Obs, Trajectory

from .policy_state import load_policy_state, policy_state
from .squashed import SquashedPolicy
from .stack import Stack

PRECISIONS = ("float32", "bfloat16")


class SAC:
    """The agent. `hidden` sizes the policy and each of `critics` value networks alike.

    After every rollout of `rollout_steps` steps in all worlds it learns from `updates` batches of
    `batch` steps of its replay, which holds the last `capacity`. The first `warm_up` steps of a run
    are taken at random. The temperature alpha begins at `init_alpha` and is led to where the
    policy's entropy is `target_entropy`, by default minus the number of actions. `shown_share` of
    every batch are demonstrations, where it was given any. With `precision=bfloat16` the matrix
    products of an update are taken in that, in half the time where a processor knows it; weights
    and losses stay float32. `threads` are torch's during an update: more than one is faster only
    where no other process is busy.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        action_spec: ActionSpec | None,
        num_worlds: int,
        seed: int = 0,
        rollout_steps: int = 1,
        updates: int = 1,
        batch: int = 256,
        capacity: int = 1_000_000,
        warm_up: int = 5_000,
        lr: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        n_step: int = 1,
        critics: int = 2,
        hidden: Sequence[int] = (256, 256),
        init_alpha: float = 1.0,
        target_entropy: float | None = None,
        shown_share: float = 0.5,
        precision: str = "float32",
        compile: bool = True,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        counts = {"rollout_steps": rollout_steps, "updates": updates, "batch": batch}
        check_range("agent", 1, **counts, n_step=n_step, critics=critics, threads=threads)
        check_range("agent", 0, lr=lr, warm_up=warm_up)
        check_range("agent", 1e-6, init_alpha=init_alpha)
        check_range("agent", 0, 1, gamma=gamma, tau=tau, shown_share=shown_share)
        self.rollout_steps, self.updates, self.batch = rollout_steps, updates, batch
        self.gamma, self.tau, self.n_step, self.warm_up = gamma, tau, n_step, warm_up
        if precision not in PRECISIONS:
            raise unknown("agent.precision", precision, PRECISIONS)
        self.shown_share, self.precision = shown_share, precision
        self.device, self.threads, self.progress = usable_device(device), threads, 0.0
        torch.set_num_threads(1)  # acting is little work, beside the threads of the physics
        torch.manual_seed(seed)
        self.policy = SquashedPolicy(observation_space, action_spec, hidden)
        self.policy.noise = seeded(seed, self.device)
        self.policy.at_random = warm_up > 0
        size, actions = vector_size(observation_space), self.policy.action_spec.size
        self.target_entropy = -float(actions) if target_entropy is None else target_entropy
        self.critic = Stack(critics, size + actions, hidden)
        self.target = Stack(critics, size + actions, hidden).requires_grad_(False)
        self.target.load_state_dict(self.critic.state_dict())
        for part in (self.policy, self.critic, self.target):
            part.to(self.device)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(init_alpha), device=self.device))
        self.optimisers = {
            name: Adam(parameters, lr)
            for name, parameters in (
                ("critic", [*self.critic.parameters()]),
                ("actor", [*self.policy.actor.parameters()]),
                ("alpha", [self.log_alpha]),
            )
        }
        self.replay = Replay(capacity, num_worlds, size, actions, self.device)
        self.shown: Replay | None = None
        self.noise = seeded(seed)
        self.weights: dict[str, float] = {}
        self._learn_from = compiled(self.learn_from, self.device) if compile else self.learn_from

    # --- learning

    def update(self, traj: Trajectory) -> dict[str, float]:
        """Take in a rollout `(T, N)`, then learn from `updates` batches once warm."""
        self._remember(self.replay, traj)
        if len(self.replay) < self.warm_up:
            return {}
        self.policy.at_random = False
        with torch_threads(self.threads):
            figures = self.improve(self.updates)
        names = ("critic_loss", "actor_loss", "q", "entropy", "alpha")
        return dict(zip(names, figures.mean(0).tolist(), strict=True))

    def relabel(self, step_ids: Array, channels: Mapping[str, Array]) -> int:
        """Labels `(K,)` of steps `(K,)` that came late; how many steps were still in the replay."""
        told = {name: torch.as_tensor(np.asarray(value)) for name, value in channels.items()}
        return self.replay.relabel(torch.as_tensor(np.asarray(step_ids)), told)

    def begin_with(self, traj: Trajectory) -> None:
        """Take demonstrations `(T, N)`, labelled, to learn from beside what it does itself."""
        self.shown = self._room_for(*traj.shape)
        self._remember(self.shown, traj)

    def _room_for(self, steps: int, worlds: int) -> Replay:
        sizes = self.replay.sizes
        room = max(2, steps) * worlds
        return Replay(room, worlds, sizes["obs"], sizes["action"], self.device)

    def _remember(self, replay: Replay, traj: Trajectory) -> None:
        policy = self.policy
        action = self._tensor(traj.action)
        self.weights = dict(traj.weights)
        replay.add(
            step_id=self._tensor(traj.step_id),
            obs=self._vector(traj.obs),
            action=((action - policy.centre) / policy.scale).clamp(-1.0, 1.0),
            next_obs=self._vector(traj.next_obs),
            channels={name: self._tensor(term) for name, term in traj.reward_terms.items()},
            terminated=self._tensor(traj.terminated),
            is_first=self._tensor(traj.is_first),
            valid=self._tensor(traj.valid),
        )

    def improve(self, updates: int = 1) -> Tensor:
        """Learn from that many new batches, drawn at once; figures `(updates, 5)`."""
        drawn = self._draw(updates * self.batch)
        shape = (2, *drawn.action.shape)
        now, following = torch.randn(shape, generator=self.noise).to(self.device)
        rows = (value.split(self.batch) for value in (*vars(drawn).values(), now, following))
        return torch.stack([self._learn_from(*batch).clone() for batch in zip(*rows, strict=True)])

    def learn_from(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        next_obs: Tensor,
        now: Tensor,
        following: Tensor,
    ) -> Tensor:
        """One step of critics, actor, temperature and target from a batch, as `Batch` has it, and
        the noise `(B, A)` of the actions that it asks for; figures `(5,)`."""
        alpha = self.log_alpha.detach().exp()
        target = reward + discount * self.following_value(next_obs, following, alpha)
        critic_loss, q = self.critic_loss(obs, action, target)
        self._step("critic", critic_loss)
        actor_loss, log_prob = self.actor_loss(obs, now, alpha)
        self._step("actor", actor_loss)
        self._step("alpha", -self.log_alpha * (log_prob + self.target_entropy))
        with torch.no_grad():
            for kept, new in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                kept.lerp_(new, self.tau)
        return torch.stack([critic_loss.detach(), actor_loss.detach(), q, -log_prob, alpha])

    def _draw(self, count: int) -> Batch:
        """Steps of the replay, so mixed that every batch of them has its share of those shown."""
        how = (self.noise, self.weights, self.gamma, self.n_step)
        if self.shown is None:
            return self.replay.draw(count, *how)
        batches = count // self.batch
        shown = round(self.shown_share * self.batch)
        parts = (
            self.replay.draw(batches * (self.batch - shown), *how),
            self.shown.draw(batches * shown, *how),
        )
        rows = zip(*(vars(part).values() for part in parts), strict=True)
        apart = ([v.unflatten(0, (batches, len(v) // batches)) for v in both] for both in rows)
        return Batch(*(torch.cat(both, 1).flatten(0, 1) for both in apart))

    @torch.no_grad()
    def following_value(self, next_obs: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        """What the policy's next actions are worth `(B,)`, by the targets and their entropy."""
        with self._products():
            action, log_prob = self.policy.sample(next_obs, noise)
            q = self.target(torch.cat([next_obs, action], -1)).amin(0)
        return q - alpha * log_prob

    def critic_loss(self, obs: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Of a batch `(B, ...)`, and the mean value, for the log."""
        with self._products():
            q = self.critic(torch.cat([obs, action], -1))
        return 0.5 * functional.mse_loss(q, target.expand_as(q)) * len(q), q.detach().mean()

    def actor_loss(self, obs: Tensor, noise: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Of a batch `(B, ...)`, and the mean log-probability."""
        with self._products():
            action, log_prob = self.policy.sample(obs, noise)
            q = self.critic(torch.cat([obs, action], -1), frozen=True).amin(0)
        return (alpha * log_prob - q).mean(), log_prob.detach().mean()

    def _products(self) -> torch.autocast:
        """How matrix products are taken."""
        half = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def _step(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        gradients = torch.autograd.grad(loss, optimiser.parameters)
        optimiser.step(processes.averaged(gradients))

    def _vector(self, obs: Obs) -> Tensor:
        return torch.as_tensor(to_vector(obs, self.policy.keys, 2)).to(self.device)

    def _tensor(self, value: Array) -> Tensor:
        return torch.as_tensor(value).to(self.device)

    # --- files

    def state_dict(self) -> dict[str, Any]:
        return {
            **policy_state(self.policy),
            "at_random": self.policy.at_random,
            "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "log_alpha": self.log_alpha.detach().clone(),
            "optimisers": {name: one.state_dict() for name, one in self.optimisers.items()},
            "replay": self.replay.state_dict(),
            "shown": None if self.shown is None else self.shown.state_dict(),
            "weights": dict(self.weights),
            "draws": self.noise.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_policy_state(self.policy, state)
        self.policy.at_random = bool(state["at_random"])
        load_weights(self.critic, state["critic"])
        load_weights(self.target, state["target"])
        self.log_alpha.data.copy_(torch.as_tensor(state["log_alpha"]))
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.replay.load_state_dict(state["replay"])
        self.shown = None
        if (shown := state.get("shown")) is not None:
            self.shown = self._room_for(*shown["rows"]["valid"].shape)
            self.shown.load_state_dict(shown)
        self.weights = {name: float(value) for name, value in state["weights"].items()}
        self.noise.set_state(torch.as_tensor(state["draws"]))
