"""The loop that fits: it descends, repeats itself, and says when it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from embodied.errors import UserError
from embodied.supervised import train_steps


def fitted(seed: int = 0, steps: int = 200, scale: float = 1.0) -> tuple[torch.Tensor, dict]:
    """A line fitted to y = 2 x + 1, from batches that the loop's own generator draws."""
    weight = nn.Parameter(torch.zeros(2))

    def loss(noise: torch.Generator) -> torch.Tensor:
        x = torch.randn(32, generator=noise)
        return scale * ((weight[0] * x + weight[1] - 2.0 * x - 1.0) ** 2).mean()

    figures = train_steps([weight], loss, steps, lr=0.05, weight_decay=0.0, seed=seed, threads=1)
    return weight.detach(), figures


def test_it_finds_the_line_and_says_how_the_loss_fell() -> None:
    weight, figures = fitted()
    assert torch.allclose(weight, torch.tensor([2.0, 1.0]), atol=0.02)
    assert figures["loss_after"] < 0.01 < 3.0 < figures["loss_before"]


def test_the_seed_alone_decides() -> None:
    assert torch.equal(fitted(3, 20)[0], fitted(3, 20)[0])
    assert not torch.equal(fitted(3, 20)[0], fitted(4, 20)[0])


def test_the_seed_decides_what_is_dropped_as_well() -> None:
    def with_dropout() -> torch.Tensor:
        weight = nn.Parameter(torch.zeros(8))

        def loss(noise: torch.Generator) -> torch.Tensor:
            return ((nn.functional.dropout(weight, 0.5) - 1.0) ** 2).sum()

        train_steps([weight], loss, 20, threads=1)
        return weight.detach()

    torch.manual_seed(1)
    first = with_dropout()
    torch.manual_seed(2)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(with_dropout(), first)
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_is_one_line() -> None:
    with pytest.raises(UserError, match="fit: the loss is nan after 1 steps"):
        fitted(scale=float("nan"))


def test_it_leaves_torchs_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    fitted(steps=2)
    assert torch.get_num_threads() == before
