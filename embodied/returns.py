"""Returns and advantages of trajectories, on torch tensors `(T, N)`."""

from __future__ import annotations

import torch
from torch import Tensor

from embodied import processes


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and value targets (Schulman et al. 2016), `(T, N)` each.

        delta_t = r_t + gamma * (1 - terminated_t) * V(s'_t) - V(s_t)
        A_t     = delta_t + gamma * lam * c_t * A_{t+1}

    `next_value[t]` is V of the *true* successor of step t, so a truncated episode is bootstrapped
    from its final observation. The trace is cut (`c_t = 0`) where an episode ends and before a
    step that is not valid: there the step before it bootstraps from V, and it gets no advantage.
    """
    delta = reward + gamma * torch.where(terminated, 0.0, next_value) - value
    delta = torch.where(valid, delta, 0.0)  # else a NaN there would spread: 0 * NaN is NaN
    go_on = ~(terminated | truncated)
    go_on[:-1] &= valid[1:]
    decay = gamma * lam * go_on.to(delta.dtype)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        following = delta[t] + decay[t] * following
        advantage[t] = following
    advantage = torch.where(valid, advantage, 0.0)
    return advantage, advantage + value


class DiscountedReturnScale:
    """Running scale of rewards: the standard deviation of each world's discounted return.

    Divide rewards by `std` to give every task a value function of unit scale. State is `(N,)`.
    """

    def __init__(self, num_worlds: int, gamma: float) -> None:
        self.gamma = gamma
        self.running = torch.zeros(num_worlds, dtype=torch.float64)
        self.count, self.mean, self.m2 = 1e-4, 0.0, 1e-4

    @property
    def std(self) -> float:
        return max((self.m2 / self.count) ** 0.5, 1e-4)

    def update(self, reward: Tensor, done: Tensor, valid: Tensor) -> None:
        """Take in a rollout's rewards and episode ends, `(T, N)` each, where `valid`."""
        running = torch.empty(reward.shape, dtype=torch.float64)
        for t in range(reward.shape[0]):
            paid = self.gamma * self.running + reward[t]
            self.running = running[t] = torch.where(valid[t], paid, self.running)
            self.running = torch.where(done[t], 0.0, self.running)
        returns = running[valid]
        here = returns.mean() if returns.numel() else torch.zeros((), dtype=torch.float64)
        spread = ((returns - here) ** 2).sum()
        count, centre, m2 = processes.pooled(returns.numel(), here, spread)
        if count == 0:
            return
        total, delta = self.count + count, float(centre) - self.mean
        self.m2 += float(m2) + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    def state_dict(self) -> dict:
        return {"running": self.running, "stats": [self.count, self.mean, self.m2]}

    def load_state_dict(self, state: dict) -> None:
        self.running = torch.as_tensor(state["running"]).clone()
        self.count, self.mean, self.m2 = state["stats"]
