"""What an exported graph is compared on with its policy, and how (tests/test_export.py has whole
policies)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from embodied.nets import RunningNorm
from embodied.parity import difference, samples
from embodied.types import ActionSpec, Carry, Obs
from tests.toys import reach


class Blind:
    """Takes an observation that is no number for a zero, as its graph does too."""

    keys = ("state",)

    def __init__(self, spec: ActionSpec) -> None:
        self.action_spec = spec

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        return carry, np.nan_to_num(obs["state"])[:, :2]


def test_what_is_no_number_must_not_become_an_action() -> None:
    env = reach()
    policy = Blind(env.action_spec)
    obs = {"state": np.zeros((9, 4), np.float32)}
    session: Any = lambda given: np.float32(policy.act({}, given)[1])  # noqa: E731
    assert difference(policy, session, obs, env.action_spec) == np.inf


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([1.0, 8.0], 1.0 / 4.0),  # of a range of 4, to whose end the policy's 3 is clamped
        ([2.0, 8.4], 0.4 / 8.0),  # of the action itself where it has no range
        ([3.0, 8.0], 1.0 / 4.0),
        ([2.0, 8.0], 0.0),
    ],
)
def test_a_difference_is_in_units_of_the_range(given: list[float], wanted: float) -> None:
    low, high = np.float32([-2.0, -np.inf]), np.float32([2.0, np.inf])
    spec = ActionSpec(("a", "b"), ("m", "m"), low, high, "position", 10.0)
    obs = {"state": np.tile(np.float32([3.0, 8.0, 0.0, 0.0]), (9, 1))}
    session: Any = lambda some: np.float32(given) + 0.0 * some["state"][:, :2]  # noqa: E731
    assert difference(Blind(spec), session, obs, spec) == pytest.approx(wanted)


def test_samples_are_wide_and_cut_off_only_where_something_cuts() -> None:
    seen = np.random.default_rng(0).normal([5.0, 0.0], [2.0, 0.0], (100, 2))
    plain = samples(seen, nn.Linear(2, 2))
    assert plain[:, 0].max() == pytest.approx(5.0 + 10 * seen[:, 0].std(), rel=0.02)
    assert 0 < np.abs(plain[:, 1]).max() < 0.1 and (plain == 0.0).all(1).any()
    cut = samples(seen, RunningNorm(2))
    assert np.isfinite(cut).all() and np.abs(cut).max() == np.finfo(np.float32).max
