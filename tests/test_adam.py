"""Adam on gradients that it is given does what torch's does."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from embodied.adam import Adam
from tests.toys import through_disk


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(()))]


def gradients(step: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(step)
    return [torch.randn(3, 2, generator=rng), torch.randn((), generator=rng)]


def test_the_first_step_by_hand() -> None:
    p = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    Adam([p], lr=0.1).step([torch.tensor([2.0, -0.5, 0.0])])
    torch.testing.assert_close(p.detach(), torch.tensor([0.9, 1.1, 1.0]))  # lr times the sign


def test_it_is_that_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    adam, peer = Adam(ours, lr=0.05), torch.optim.Adam(theirs, lr=0.05)
    for step in range(20):
        adam.step(gradients(step))
        for p, gradient in zip(theirs, gradients(step), strict=True):
            p.grad = gradient
        peer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_it_goes_on_from_its_state(tmp_path: Path) -> None:
    whole, resumed = parameters(), parameters()
    first = Adam(whole, lr=0.05)
    first.step(gradients(0))
    second = Adam(resumed, lr=0.7)
    second.step(gradients(9))
    second.load_state_dict(through_disk(first.state_dict(), tmp_path))
    with torch.no_grad():
        for one, other in zip(whole, resumed, strict=True):
            other.copy_(one)
    first.step(gradients(1))
    second.step(gradients(1))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
