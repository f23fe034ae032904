"""What learned rewards of turns share: it says 0, learns from past episodes, and goes on."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.episodes import Marked, marked
from embodied.reward_models.turns.estimator import Estimator
from embodied.reward_models.turns.milestones import Milestones, squared_loss
from embodied.reward_models.turns.stepwise_progress import StepwiseProgress

from embodied.build import make
from embodied.errors import UserError
from tests.talks import lm
from tests.toys import through_disk


def made(**settings: Any) -> Estimator:
    fast = {"lr": 1e-3, "head_lr": 1e-2, "updates": 10, "batch": 4}
    return Estimator(lambda: lm().clone(), **{**fast, **settings})


def talk(text: str, target: float) -> Marked:
    return marked([lm().chat.first(text)], [target])


def test_it_says_nothing_learns_from_nothing_and_then_learns() -> None:
    model, told = made(), [talk("a door", 0.0), talk("a key", 1.0)]
    assert model.fit([], squared_loss) is None
    assert [values.tolist() for values in model.judge(told)] == [[0.0], [0.0]]
    losses = [model.fit(told if k == 0 else [], squared_loss) for k in range(8)]
    assert losses[-1] < 0.1 * losses[0]  # type: ignore[operator]
    door, key = (float(values[0]) for values in model.judge(told))
    assert door < 0.3 and key > 0.7


def test_it_remembers_the_last_episodes() -> None:
    model = made(episodes=3)
    model.fit([talk("a door", 0.0)] * 2 + [talk("a key", 1.0)] * 2, squared_loss)
    assert [float(part.targets[0]) for part in model.memory.kept] == [0.0, 1.0, 1.0]


def test_it_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    model, told = made(), [talk("a door", 0.0), talk("a key", 1.0)]
    model.fit(told, squared_loss)
    other = made()
    other.load_state_dict(through_disk(model.state_dict(), tmp_path))
    assert model.fit([], squared_loss) == other.fit([], squared_loss)
    for mine, its in zip(model.judge(told), other.judge(told), strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"updates": 0}, {"episodes": 0}, {"batch": 0}])
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(UserError, match="reward_model"):
        made(**bad)


@pytest.mark.parametrize("kind", [Milestones, StepwiseProgress])
def test_what_all_of_them_take_is_known_before_one_is_made(kind: type) -> None:
    taken = inspect.signature(kind).parameters
    assert {"language", "lr", "episodes"} <= taken.keys()
    with pytest.raises(UserError, match="wings"):
        make({"_target_": f"{kind.__module__}.{kind.__qualname__}", "wings": 2}, {"language": lm})
