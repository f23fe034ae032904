"""A Gaussian squashed into the limits of its actions: the policy of SAC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embodied.errors import UserError
from embodied.nets import drawn
from embodied.onnx_graph import Affine
from embodied.spaces import to_vector, vector_keys, vector_size
from embodied.types import ActionSpec, Array, Carry, Obs

LOG_STD = (-20.0, 2.0)


class SquashedPolicy(nn.Module):
    """`centre + scale * tanh(u)`, with u Gaussian given the observation.

    Inside, actions are in [-1, 1]. `at_random` it takes any action, each as likely, except where
    the greedy one is asked for. Raises `UserError` for actions that have no limits.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        action_spec: ActionSpec | None,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        if action_spec is None:
            raise UserError("SAC needs continuous actions (a Box): take another env or agent")
        low, high = action_spec.low, action_spec.high
        if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
            raise UserError("SAC needs actions with limits: take agent=ppo")
        self.action_spec = action_spec
        self.keys = vector_keys(observation_space)
        sizes = [vector_size(observation_space), *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.actor = nn.Sequential(*layers, nn.Linear(sizes[-1], 2 * action_spec.size))
        self.register_buffer("centre", torch.from_numpy(np.float32((low + high) / 2)))
        self.register_buffer("scale", torch.from_numpy(np.float32((high - low) / 2)))
        self.noise = torch.Generator()
        self.at_random = False

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `(B, A)` in [-1, 1] of observations and standard noise, and their log-densities
        `(B,)`, with the change of variables by the tanh taken in."""
        mean, log_std = self.actor(obs).float().chunk(2, -1)
        log_std = log_std.clamp(*LOG_STD)
        u = mean + log_std.exp() * noise
        log_normal = -0.5 * noise * noise - log_std - 0.5 * math.log(2.0 * math.pi)
        log_slope = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
        return torch.tanh(u), (log_normal - log_slope).sum(-1)

    @torch.inference_mode()
    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        x = torch.from_numpy(to_vector(obs, self.keys)).to(self.scale.device)
        return carry, self.decide(x, greedy).cpu().numpy()

    def decide(self, x: Tensor, greedy: bool = False) -> Tensor:
        """Actions `(N, A)` of observations `(N, D)`, on the policy's device."""
        mean, log_std = self.actor(x).chunk(2, -1)
        if greedy:
            action = torch.tanh(mean)
        elif self.at_random:
            unit = torch.rand(mean.shape, generator=self.noise, device=self.noise.device)
            action = 2.0 * unit.to(x.device) - 1.0
        else:
            noise = drawn(mean.shape, self.noise)
            action = torch.tanh(mean + log_std.clamp(*LOG_STD).exp() * noise)
        return self.centre + self.scale * action

    def greedy_layers(self) -> nn.Sequential:
        """What `decide` does where it is greedy, layer by layer, to be exported."""
        actor: Any = self.actor
        last = actor[-1]  # of its outputs the first half are means
        size = self.action_spec.size
        mean = nn.Linear(last.in_features, size)
        mean.weight = nn.Parameter(last.weight[:size].detach())
        mean.bias = nn.Parameter(last.bias[:size].detach())
        return nn.Sequential(*actor[:-1], mean, nn.Tanh(), Affine(self.centre, self.scale))
