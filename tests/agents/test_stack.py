"""Networks side by side are the networks one by one."""

from __future__ import annotations

import torch
from embodied.agents.stack import Stack
from torch.nn import functional


def test_each_is_a_perceptron_of_its_own() -> None:
    torch.manual_seed(0)
    stack, x = Stack(3, 5, (8, 4)), torch.randn(7, 5)
    told = stack(x)
    assert told.shape == (3, 7)
    for k in range(3):
        y = x
        for layer, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
            y = functional.linear(y, weight[k].T, bias[k, 0])
            y = torch.relu(y) if layer < 2 else y
        torch.testing.assert_close(told[k], y[:, 0])
    assert not torch.allclose(told[0], told[1], atol=1e-3)


def test_frozen_it_passes_gradients_on_and_keeps_none() -> None:
    stack, x = Stack(2, 3, (4,)), torch.randn(5, 3, requires_grad=True)
    stack(x, frozen=True).sum().backward()
    assert all(parameter.grad is None for parameter in stack.parameters())
    frozen = x.grad.clone()
    x.grad = None
    stack(x).sum().backward()
    torch.testing.assert_close(x.grad, frozen)
    assert all(parameter.grad is not None for parameter in stack.parameters())
