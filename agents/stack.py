"""Several networks of one shape as one: every layer is a single batched matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Stack(nn.Module):
    """`count` perceptrons (ReLU) side by side, each `(B, inputs)` to `(B,)`: `(count, B)`.

    Weights begin as those of `nn.Linear`, drawn apart for each.
    """

    def __init__(self, count: int, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [inputs, *hidden, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1.0 / math.sqrt(before)
            for parts, shape in ((self.weights, (before, after)), (self.biases, (1, after))):
                parts.append(nn.Parameter(torch.empty(count, *shape).uniform_(-bound, bound)))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Where `frozen`, gradients flow to `x` alone."""
        x = x.expand(self.weights[0].shape[0], *x.shape)
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            if k < last:
                x = torch.relu(torch.bmm(x, weight) + bias)
            else:  # one number each: a compiler does that together with what comes before
                x = (x * weight.mT).sum(-1, keepdim=True) + bias
        return x.squeeze(-1).float()
