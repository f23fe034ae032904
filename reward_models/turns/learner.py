"""A copy of a policy's language model that a reward model trains apart from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.causal_lm import CausalLM, padded
from embodied.nets import adam_state, load_adam_state, load_weights

from .episodes import Marked, together

MAX_GRAD_NORM = 1.0
AT_ONCE = 32
"""Sequences that are read at once where nothing is learned."""


class Learner:
    """A clone of `policy` and its optimiser; with `head_lr`, a linear head on its states.

    The head starts at zero, so it says 0 of everything. Without `body` it alone learns.
    """

    def __init__(
        self, policy: CausalLM, lr: float, head_lr: float | None = None, body: bool = True
    ) -> None:
        self.lm, self.body = policy.clone(), body
        self.head: nn.Linear | None = None
        groups = [{"params": list(self.lm.trained().values()), "lr": lr}] if body else []
        if head_lr is not None:
            size = self.lm.model.get_output_embeddings().in_features
            self.head = nn.Linear(size, 1).to(self.lm.device)
            for p in self.head.parameters():
                nn.init.zeros_(p)
            groups.append({"params": list(self.head.parameters()), "lr": head_lr})
        self.optimiser = torch.optim.AdamW(groups, weight_decay=0.0)

    def values(self, data: Marked) -> Tensor:
        """What the head says of every place, `(K,)`."""
        assert self.head is not None
        ids = padded(data.rows, self.lm.pad, self.lm.device)
        lengths = torch.as_tensor(data.lengths, device=ids.device)
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        with torch.set_grad_enabled(self.body and torch.is_grad_enabled()):
            hidden = self.lm.hidden(ids)
        places = torch.as_tensor(data.places, device=ids.device)
        return self.head(hidden[real][places].float()).squeeze(-1)

    def judge(self, parts: Sequence[Marked]) -> list[np.ndarray]:
        """What the head says of the places of every episode, `(K,)` each; nothing is learned."""
        out: list[np.ndarray] = []
        with torch.no_grad():
            for k in range(0, len(parts), AT_ONCE):
                some = parts[k : k + AT_ONCE]
                values = self.values(together(some)).cpu().numpy()
                out += np.split(values, np.cumsum([len(part.places) for part in some])[:-1])
        return out

    def step(self, loss: Tensor) -> float:
        """One step down a loss."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        learned = [p for group in self.optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(learned, MAX_GRAD_NORM)
        self.optimiser.step()
        self.lm.version += 1
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        head = {} if self.head is None else self.head.state_dict()
        return {
            "lm": self.lm.state_dict(), "head": head, "optimiser": adam_state(self.optimiser)
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.lm.load_state_dict(state["lm"])
        if self.head is not None:
            load_weights(self.head, state["head"])
        load_adam_state(self.optimiser, state["optimiser"])
