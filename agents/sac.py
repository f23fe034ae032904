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
from embodied.errors import check_range, unknown
from embodied.nets import (
    adam_state,
    compiled,
    load_adam_state,
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
            name: torch.optim.Adam(parameters, lr=lr, fused=True)
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
        self._critic_loss, self._actor_loss = self.critic_loss, self.actor_loss
        if compile:
            self._critic_loss = compiled(self.critic_loss, self.device)
            self._actor_loss = compiled(self.actor_loss, self.device)

    # --- learning

    def update(self, traj: Trajectory) -> dict[str, float]:
        """Take in a rollout `(T, N)`, then learn from `updates` batches once warm."""
        self._remember(self.replay, traj)
        if len(self.replay) < self.warm_up:
            return {}
        self.policy.at_random = False
        with torch_threads(self.threads):
            figures = [self.improve() for _ in range(self.updates)]
        names = ("critic_loss", "actor_loss", "q", "entropy", "alpha")
        means = torch.stack(figures).mean(0).tolist()
        return dict(zip(names, means, strict=True))

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

    def improve(self) -> Tensor:
        """One step of critics, actor, temperature and target on a new batch; figures `(5,)`."""
        drawn = self._draw()
        now, following = (
            torch.randn(drawn.action.shape, generator=self.noise).to(self.device) for _ in range(2)
        )
        return self.learn_from(drawn, now, following)

    def learn_from(self, drawn: Batch, now: Tensor, following: Tensor) -> Tensor:
        """One such step from a batch, with the noise `(B, A)` of the actions that it asks for."""
        alpha = self.log_alpha.detach().exp()
        target = self._aim(drawn, following, alpha)
        critic_loss, q = self._critic_loss(drawn.obs, drawn.action, target)
        self._step("critic", critic_loss)
        actor_loss, log_prob = self._actor_loss(drawn.obs, now, alpha)
        self._step("actor", actor_loss)
        self._step("alpha", -self.log_alpha * (log_prob + self.target_entropy))
        with torch.no_grad():
            torch._foreach_lerp_([*self.target.parameters()], [*self.critic.parameters()], self.tau)
        return torch.stack([critic_loss.detach(), actor_loss.detach(), q, -log_prob, alpha])

    def _draw(self) -> Batch:
        how = (self.noise, self.weights, self.gamma, self.n_step)
        if self.shown is None:
            return self.replay.draw(self.batch, *how)
        count = round(self.shown_share * self.batch)
        parts = (self.replay.draw(self.batch - count, *how), self.shown.draw(count, *how))
        rows = zip(*(vars(part).values() for part in parts), strict=True)
        return Batch(*(torch.cat(both) for both in rows))

    @torch.no_grad()
    def _aim(self, drawn: Batch, noise: Tensor, alpha: Tensor) -> Tensor:
        """What the critics should say `(B,)`."""
        with self._products():
            action, log_prob = self.policy.sample(drawn.next_obs, noise)
            q = self.target(torch.cat([drawn.next_obs, action], -1)).amin(0)
        return drawn.reward + drawn.discount * (q - alpha * log_prob)

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
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(p for group in optimiser.param_groups for p in group["params"])
        optimiser.step()

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
            "optimisers": {name: adam_state(one) for name, one in self.optimisers.items()},
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
            load_adam_state(optimiser, state["optimisers"][name])
        self.replay.load_state_dict(state["replay"])
        self.shown = None
        if (shown := state.get("shown")) is not None:
            self.shown = self._room_for(*shown["rows"]["valid"].shape)
            self.shown.load_state_dict(shown)
        self.weights = {name: float(value) for name, value in state["weights"].items()}
        self.noise.set_state(torch.as_tensor(state["draws"]))
