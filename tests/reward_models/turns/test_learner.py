"""A copy of the policy's model that learns: its head, what it trains, and its state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.turns.episodes import marked, together
from embodied.reward_models.turns.learner import Learner

from tests.talks import lm
from tests.toys import through_disk

SOME = together(
    [
        marked([np.array([5, 6, 7]), np.array([5, 6, 7, 8, 9])], [0.0, 1.0]),
        marked([np.array([300, 6])], [1.0]),
    ]
)


def learn(learner: Learner, steps: int = 3) -> None:
    for _ in range(steps):
        wanted = torch.as_tensor(SOME.targets)
        learner.step((learner.values(SOME) - wanted).square().mean())


def test_a_head_says_nothing_at_first() -> None:
    learner = Learner(lm(), 1e-3, 1e-2)
    assert learner.values(SOME).tolist() == [0.0, 0.0, 0.0]


def test_it_reads_the_states_of_the_places() -> None:
    learner = Learner(lm(), 1e-3, 1e-2)
    assert learner.head is not None
    torch.nn.init.ones_(learner.head.weight)
    with torch.no_grad():
        whole = lm().hidden(torch.tensor([[5, 6, 7, 8, 9]])).sum(-1)[0, [2, 4]]
        other = lm().hidden(torch.tensor([[300, 6]])).sum(-1)[0, [1]]
    expected = torch.cat([whole, other])
    torch.testing.assert_close(learner.values(SOME).detach(), expected, atol=1e-5, rtol=1e-5)
    told = learner.judge([marked([np.array([300, 6])], [0.0])] * 70)
    assert len(told) == 70 and all(one == pytest.approx(other.item(), abs=1e-5) for one in told)


@pytest.mark.parametrize("body", [True, False])
def test_it_trains_its_own_weights_alone(body: bool) -> None:
    before = {name: p.clone() for name, p in lm().trained().items()}
    learner = Learner(lm(), 1e-2, 1e-2, body)
    learn(learner)
    assert all((before[name] == p).all() for name, p in lm().trained().items())
    moved = [not torch.equal(before[name], p) for name, p in learner.lm.trained().items()]
    assert any(moved) is body
    assert learner.values(SOME).abs().min() > 0


@pytest.mark.parametrize("body", [True, False])
def test_it_goes_on_from_its_state(body: bool, tmp_path: Any) -> None:
    one, two = Learner(lm(), 1e-2, 1e-2, body), Learner(lm(), 1e-2, 1e-2, body)
    learn(one)
    two.load_state_dict(through_disk(one.state_dict(), tmp_path))
    for _ in range(2):
        assert torch.equal(one.values(SOME), two.values(SOME))
        learn(one, 1)
        learn(two, 1)
