"""PPO for a policy that speaks: a critic of turns, on the language model's own states.

Schulman et al. 2017, arXiv 1707.06347. Where we differ: a turn is one action, whatever its number
of tokens, so values and advantages are those of turns, and each token of a turn has its turn's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.causal_lm import CausalLM
from embodied.errors import check_range
from embodied.returns import gae
from embodied.transcripts import Transcripts
from embodied.types import Array, Trajectory

from .language import LanguageAgent


class LanguagePPO(LanguageAgent):
    """Advantages are generalised ones (`lam`) over turns.

    The critic is one linear layer on the state from which a reply begins. It starts at zero.
    """

    def __init__(
        self, lam: float = 0.95, value_weight: float = 0.5, critic_lr: float = 1e-3, **settings: Any
    ) -> None:
        super().__init__(**settings)
        check_range("agent", 0, 1, lam=lam)
        check_range("agent", 0, value_weight=value_weight, critic_lr=critic_lr)
        self.lam, self.value_weight, self.head_lr = lam, value_weight, critic_lr
        self.critic: nn.Linear | None = None

    def heads(self, lm: CausalLM) -> list[nn.Parameter]:
        if self.critic is None:
            size = lm.model.get_output_embeddings().in_features
            self.critic = nn.Linear(size, 1).to(lm.device)
            nn.init.zeros_(self.critic.weight)
            nn.init.zeros_(self.critic.bias)
        return list(self.critic.parameters())

    def prepared(self, traj: Trajectory, data: Transcripts, reward: Array) -> dict[str, Tensor]:
        with torch.no_grad():
            value = data.gathered(self._values(data) * data.begins, traj.shape)
        advantage, target = self._turns(traj, value, torch.as_tensor(reward, dtype=torch.float32))
        worth = self.weighed(data.spread(advantage), data.turn >= 0)
        return {"advantage": worth, "target": data.spread(target)}

    def _turns(self, traj: Trajectory, value: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """GAE over the turns of whole episodes: one that its limit ended ends in nothing.

        A limit of turns is part of the task here, and its end is in sight.
        """
        valid = np.asarray(traj.valid)
        order = np.argsort(~valid, axis=0, kind="stable")  # valid turns first: each to its next
        real = torch.as_tensor(np.take_along_axis(valid, order, 0))
        place = torch.as_tensor(order)
        value, reward = (part.cpu().gather(0, place) for part in (value, reward))
        following = torch.cat([value[1:], torch.zeros_like(value[:1])])
        ended = real & ~torch.cat([real[1:], torch.zeros_like(real[:1])])
        none = torch.zeros_like(ended)
        found = gae(reward, value, following, ended, none, real, self.gamma, self.lam)
        advantage, target = (torch.zeros_like(one).scatter(0, place, one) for one in found)
        return advantage, target

    def _values(self, data: Transcripts, hidden: Tensor | None = None) -> Tensor:
        """The critic's value before every token, `(B, L)`."""
        assert self.critic is not None
        hidden = self.policy.lm.hidden(data.ids) if hidden is None else hidden
        value = self.critic(hidden.float()).squeeze(-1)
        return torch.cat([torch.zeros_like(value[:, :1]), value[:, :-1]], 1)

    def head_loss(
        self, part: Transcripts, hidden: Tensor, given: Mapping[str, Tensor]
    ) -> Tensor | float:
        begins = part.begins.float()
        error = (self._values(part, hidden) - given["target"]) ** 2
        return self.value_weight * (error * begins).sum() / begins.sum().clamp(min=1.0)
