"""Adam as a function of gradients, so that a whole update can be one compiled piece."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) of `parameters`, as `torch.optim.Adam` does it.

    That one takes gradients from where `backward` has left them, which cannot be traced together
    with what computed them. Its state is the same.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters: list[Tensor] = [*parameters]
        self.lr = lr
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]
        if any(p.device.type == "cuda" for p in self.parameters):
            from torch._dynamo import mark_static_address

            for value in (*self.means, *self.squares, *self.steps):  # a CUDA graph may write them
                mark_static_address(value)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step down `gradients`, one of each parameter."""
        adam(
            self.parameters,
            [*gradients],
            self.means,
            self.squares,
            [],
            self.steps,
            lr=self.lr,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            foreach=False,
            fused=not torch.compiler.is_compiling(),  # a compiler fuses it with the rest
        )

    def state_dict(self) -> dict[str, Any]:
        rows = zip(self.steps, self.means, self.squares, strict=True)
        names = ("step", "exp_avg", "exp_avg_sq")
        return {
            "lr": [self.lr],
            "rows": [dict(zip(names, (v.clone() for v in row), strict=True)) for row in rows],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """In place. The learning rate is that of the state, as with `torch.optim.Adam`."""
        (self.lr,) = (float(lr) for lr in state["lr"])
        own = zip(self.steps, self.means, self.squares, strict=True)
        for values, row in zip(own, state["rows"], strict=True):
            for value, name in zip(values, ("step", "exp_avg", "exp_avg_sq"), strict=True):
                value.copy_(torch.as_tensor(row[name])) if name in row else value.zero_()
