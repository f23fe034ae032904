"""Advantages and value targets by hand, and against the definition written out as sums."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied.returns import DiscountedReturnScale, gae

GAMMA, LAM = 0.5, 0.5


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None]


def advantages(
    terminated: torch.Tensor | None = None,
    truncated: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    next_value: torch.Tensor | None = None,
    reward: torch.Tensor | None = None,
) -> tuple[list[float], list[float]]:
    """Of three steps of one world with rewards 1, 2, 3 and values 4, 2, 6, followed by 8."""
    no = flags(0, 0, 0)
    advantage, target = gae(
        column(1, 2, 3) if reward is None else reward,
        column(4, 2, 6),
        column(2, 6, 8) if next_value is None else next_value,
        no if terminated is None else terminated,
        no if truncated is None else truncated,
        ~no if valid is None else valid,
        GAMMA,
        LAM,
    )
    return advantage[:, 0].tolist(), target[:, 0].tolist()


def test_an_episode_that_goes_on() -> None:
    # delta = (1 + 2/2 - 4, 2 + 6/2 - 2, 3 + 8/2 - 6) = (-2, 3, 1), gamma * lam = 1/4
    # A_2 = 1, A_1 = 3 + 1/4, A_0 = -2 + 3.25/4 = -1.1875; targets A + V
    assert advantages() == ([-1.1875, 3.25, 1.0], [2.8125, 5.25, 7.0])


def test_a_terminated_step_has_no_future() -> None:
    # delta_1 = 2 + 0 - 2 = 0, the trace is cut: A_1 = 0, A_0 = -2
    assert advantages(terminated=flags(0, 1, 0)) == ([-2.0, 0.0, 1.0], [2.0, 2.0, 7.0])


def test_a_truncated_step_bootstraps_from_its_true_successor() -> None:
    # the world was cut at value 10, the next episode begins at value 6: delta_1 = 2 + 10/2 - 2 = 5
    # A_1 = 5 (no trace from the next episode), A_0 = -2 + 5/4
    got = advantages(truncated=flags(0, 1, 0), next_value=column(2, 10, 8))
    assert got == ([-0.75, 5.0, 1.0], [3.25, 7.0, 7.0])


def test_an_invalid_step_gets_nothing_and_cuts_the_trace() -> None:
    # step 1 has no advantage; step 0 bootstraps from V(s_1) = 2: A_0 = delta_0 = -2
    assert advantages(valid=flags(1, 0, 1)) == ([-2.0, 0.0, 1.0], [2.0, 2.0, 7.0])


def test_what_is_not_finite_on_an_invalid_step_stays_there() -> None:
    broken = advantages(
        valid=flags(1, 0, 1),
        reward=column(1, math.nan, 3),
        next_value=column(2, math.inf, 8),
    )
    assert broken == advantages(valid=flags(1, 0, 1))


def slow_gae(reward, value, next_value, terminated, truncated, valid, gamma, lam):
    """`A_t = sum_k (gamma lam)^k delta_{t+k}`, up to the end of the episode or an invalid step."""
    steps, worlds = reward.shape
    out = np.zeros((steps, worlds))
    for n in range(worlds):
        for t in range(steps):
            k = t
            while valid[t, n]:
                future = 0.0 if terminated[k, n] else gamma * next_value[k, n]
                out[t, n] += (gamma * lam) ** (k - t) * (reward[k, n] + future - value[k, n])
                if terminated[k, n] or truncated[k, n] or k + 1 == steps or not valid[k + 1, n]:
                    break
                k += 1
    return out


@given(
    st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1)
)
def test_it_is_the_sum_of_the_definition(
    steps: int, worlds: int, seed: int, gamma: float, lam: float
) -> None:
    rng = np.random.default_rng(seed)
    numbers = [rng.normal(size=(steps, worlds)) for _ in range(3)]
    terminated, truncated, invalid = (rng.random((steps, worlds)) < 0.25 for _ in range(3))
    ends = [terminated, truncated & ~terminated, ~invalid]
    advantage, target = gae(*(torch.from_numpy(x) for x in (*numbers, *ends)), gamma, lam)
    expected = slow_gae(*numbers, *ends, gamma, lam)
    np.testing.assert_allclose(advantage, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(target, expected + numbers[1], rtol=1e-9, atol=1e-12)


def scale_of(
    reward: torch.Tensor, done: torch.Tensor, valid: torch.Tensor, gamma: float, parts: int = 1
) -> DiscountedReturnScale:
    scale = DiscountedReturnScale(reward.shape[1], gamma)
    for rows in torch.arange(len(reward)).chunk(parts):
        scale.update(reward[rows], done[rows], valid[rows])
    return scale


def test_the_scale_is_the_deviation_of_discounted_returns() -> None:
    # gamma 1/2, rewards 1, 1 | 5.5: returns 1, 1.5 | 5.5, no trace of the first episode;
    # mean 8/3, squared deviations (25 + 49/4 + 289/4) / 9 = 109.5/9, variance 109.5/27
    reward, done = column(1, 1, 5.5), flags(0, 1, 0)
    scale = scale_of(reward, done, flags(1, 1, 1), 0.5)
    assert scale.std == pytest.approx((109.5 / 27) ** 0.5, rel=1e-4)
    assert float(scale.running[0]) == 5.5  # goes on into the next rollout


def test_an_invalid_step_does_not_count() -> None:
    # the return 1 of step 0 is kept for step 2: 0.5 * 1 + 4 = 4.5
    scale = scale_of(column(1, 1000, 4), flags(0, 0, 0), flags(1, 0, 1), 0.5)
    assert scale.std == pytest.approx(np.std([1.0, 4.5]), rel=1e-4)


def test_a_rollout_without_a_valid_step_changes_nothing() -> None:
    scale = scale_of(column(1, 5), flags(0, 0), flags(0, 0), 0.5)
    assert scale.std == DiscountedReturnScale(1, 0.5).std == 1.0


@given(st.integers(1, 9), st.integers(0, 2**31))
def test_the_scale_of_chunks_is_that_of_the_whole(parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward = torch.from_numpy(100.0 + rng.normal(size=(9, 2)))
    done, valid = (torch.from_numpy(rng.random((9, 2)) < p) for p in (0.2, 0.8))
    whole, chunked = (scale_of(reward, done, valid, 0.9, n) for n in (1, parts))
    assert chunked.std == pytest.approx(whole.std, rel=1e-9)
    assert chunked.running.tolist() == whole.running.tolist()


def test_the_scale_goes_on_from_its_state() -> None:
    reward, done, valid = column(1, 2, 3, 4), flags(0, 1, 0, 0), flags(1, 1, 1, 1)
    whole = scale_of(reward, done, valid, 0.9, parts=2)
    first = scale_of(reward[:2], done[:2], valid[:2], 0.9)
    second = DiscountedReturnScale(1, 0.9)
    second.load_state_dict(first.state_dict())
    second.update(reward[2:], done[2:], valid[2:])
    assert second.std == whole.std
    assert second.running.tolist() == whole.running.tolist()
