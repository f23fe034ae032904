"""A Gaussian squashed into limits: its density, its limits, what it does at random."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from embodied.agents.squashed import SquashedPolicy
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from embodied.errors import UserError
from embodied.types import ActionSpec

SPACE = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (3,), np.float32)})


def spec(*limits: tuple[float, float]) -> ActionSpec:
    low, high = (np.array(side, np.float32) for side in zip(*limits, strict=True))
    names = tuple(f"a{k}" for k in range(len(limits)))
    return ActionSpec(names, ("m",) * len(limits), low, high, "position", 10.0)


def policy(*limits: tuple[float, float]) -> SquashedPolicy:
    torch.manual_seed(0)
    return SquashedPolicy(SPACE, spec(*(limits or ((-1, 3), (0, 0.5)))), (16,))


def test_the_density_is_that_of_torch() -> None:
    one, obs, noise = policy(), torch.randn(50, 3), torch.randn(50, 2)
    action, log_prob = one.sample(obs, noise)
    mean, log_std = one.actor(obs).chunk(2, -1)
    base = Independent(Normal(mean, log_std.exp()), 1)
    squashed = TransformedDistribution(base, [TanhTransform(cache_size=1)])
    u = mean + log_std.exp() * noise
    torch.testing.assert_close(action, torch.tanh(u))
    wanted = base.log_prob(u) - TanhTransform().log_abs_det_jacobian(u, action).sum(-1)
    torch.testing.assert_close(log_prob, wanted)
    torch.testing.assert_close(log_prob, squashed.log_prob(action), atol=1e-2, rtol=1e-2)
    assert torch.isfinite(one.sample(1e3 * obs, 5 * noise)[1]).all()


def test_actions_are_within_their_limits_and_at_random_fill_them() -> None:
    one, obs = policy(), {"state": np.random.default_rng(0).normal(size=(4000, 3))}
    for at_random in (False, True):
        one.at_random = at_random
        action = one.act({}, obs)[1]
        assert action.dtype == np.float32
        assert (action >= [-1, 0]).all() and (action <= [3, 0.5]).all()
    assert action.mean(0) == pytest.approx([1.0, 0.25], abs=0.1)
    assert action.std(0) == pytest.approx([4 / 12**0.5, 0.5 / 12**0.5], rel=0.1)
    greedy = one.act({}, obs, greedy=True)[1]
    assert (greedy == one.act({}, obs, greedy=True)[1]).all()
    mean = torch.tanh(one.actor(torch.from_numpy(np.float32(obs["state"])))[:, :2])
    assert greedy == pytest.approx((one.centre + one.scale * mean).detach().numpy())


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (None, "needs continuous actions"),
        (spec((-1, 1), (-np.inf, 1)), "actions with limits"),
        (spec((1, 1)), "actions with limits"),
    ],
)
def test_actions_that_it_cannot_squash(actions: ActionSpec | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SquashedPolicy(SPACE, actions, (16,))
