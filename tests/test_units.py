"""Units of a reward graph, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embodied.tracing import Trace
from embodied.units import unit_faults, written

INPUTS = {"place": [3], "speed": [3], "gap": [], "angle": [7], "rate": [7], "force": []}
UNITS = {"place": "m", "speed": "m/s", "gap": "m", "angle": "rad", "rate": "rad/s", "force": ""}


def faults(code: Callable[..., Any]) -> list[str]:
    trace = Trace(INPUTS)
    return unit_faults(trace.graph({"t": code(**trace.inputs())}), UNITS)


@pytest.mark.parametrize(
    "code",
    [
        lambda place, gap, **_: np.linalg.norm(place, axis=-1) - gap,
        lambda place, **_: np.exp(-5.0 * np.linalg.norm(place, axis=-1)),
        lambda place, speed, **_: np.sum(place * speed, axis=-1) / np.sum(speed * place, axis=-1),
        lambda gap, speed, **_: gap + 0.1 * speed[:, 0],
        lambda gap, **_: np.where(gap < 0.04, 1.0, 0.5),
        lambda gap, place, **_: np.sqrt(np.sum(place**2, axis=-1)) - gap,
        lambda gap, place, **_: np.maximum(gap, 0.0) * np.minimum(place[:, 0], 1.0),
        lambda gap, angle, **_: np.sin(angle[:, 0]) + np.cos(angle[:, 1]) + np.tanh(gap / 0.1),
        lambda force, gap, **_: force - gap,
        lambda angle, **_: np.sum(np.abs(angle), axis=-1) + 1.0,
        lambda speed, gap, **_: np.where(speed[:, 0] > 0.0, gap, 0.0),
    ],
    ids=lambda code: None if code is None else str(code.__code__.co_firstlineno),
)
def test_what_fits(code: Callable[..., Any]) -> None:
    assert faults(code) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (lambda gap, speed, **_: gap + speed[:, 0], "it adds m with m/s"),
        (lambda gap, angle, **_: gap - angle[:, 0], "it subtracts m with a number"),
        (lambda gap, rate, **_: 1.0 * (gap > rate[:, 0]), "it compares m with 1/s"),
        (lambda gap, speed, **_: np.maximum(gap, speed[:, 2]), "it takes the larger of m with m/s"),
        (
            lambda gap, place, **_: np.sum(place**2, axis=-1) - gap,
            "it subtracts m^2 with m",
        ),
        (
            lambda gap, speed, **_: np.where(gap > 0.1, gap, speed[:, 0]),
            "it chooses between m with m/s",
        ),
        (
            lambda place, speed, **_: np.sum(
                np.stack([place[:, 0], speed[:, 0]], axis=-1), axis=-1
            ),
            "it mixes m with m/s",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit(code: Callable[..., Any], said: str) -> None:
    assert faults(code) == [said]


def test_units_as_they_are_written() -> None:
    told = {(1, 0): "m", (1, -1): "m/s", (0, -1): "1/s", (2, -2): "m^2/s^2", (0, 0): "a number"}
    assert {unit: written(unit) for unit in told} == told
    assert written(None) == "anything" and written((0.5, 0)) == "m^0.5"
