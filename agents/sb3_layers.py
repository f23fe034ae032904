"""What a policy of Stable-Baselines3 does greedily, layer by layer, to be exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from embodied.errors import UserError
from embodied.onnx_graph import Affine, ExactNorm


def greedy_layers(net: Any, normaliser: Any, keys: Sequence[str]) -> nn.Sequential:
    """From the flat vector of observations of `keys` to actions, as `predict` finds them.

    `normaliser` is an `sb3_policy.Normaliser` or None. Raises `UserError` for another network than
    PPO's or A2C's, and for actions that are not continuous.
    """
    if not isinstance(net, ActorCriticPolicy) or not isinstance(net.action_space, Box):
        raise UserError("only a policy of SB3's PPO or A2C with continuous actions can be exported")
    layers: list[nn.Module] = []
    if normaliser is not None:
        seen = [normaliser.obs[key] for key in keys]
        mean, var = (
            np.concatenate([np.ravel(getattr(one, moment)) for one in seen])
            for moment in ("mean", "var")
        )
        layers.append(ExactNorm(mean, var, normaliser.epsilon, normaliser.limit))
    mlp: Any = net.mlp_extractor
    layers += [*mlp.policy_net, net.action_net]
    if net.squash_output:
        space = net.action_space
        low, high = (torch.from_numpy(np.ravel(x)) for x in (space.low, space.high))
        layers += [nn.Tanh(), Affine((low + high) / 2, (high - low) / 2)]
    return nn.Sequential(*layers)
