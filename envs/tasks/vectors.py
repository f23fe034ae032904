"""Small functions of rows `(N, 3)` and of numbers `(N,)`, as array code."""

from __future__ import annotations

from typing import Any

Array = Any


def spread(unit: Array, low: float, high: float) -> Array:
    """Numbers in (0, 1) as numbers in (low, high)."""
    return low + (high - low) * unit


def clamp(xp: Any, value: Array, low: Array, high: Array) -> Array:
    """`xp.clip` between arrays, without its checks: they cost more than the work does here."""
    return xp.minimum(xp.maximum(value, low), high)


def cross(xp: Any, a: Array, b: Array) -> Array:
    """Cross product of rows `(N, 3)`."""
    return xp.stack(
        [
            a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1],
            a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2],
            a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0],
        ],
        axis=1,
    )


def near(xp: Any, distance: Array, scale: float) -> Array:
    """1 at distance 0, falling smoothly to 0: `1 - tanh(distance / scale)`."""
    return 1.0 - xp.tanh(distance / scale)


def norm(xp: Any, vector: Array) -> Array:
    """Lengths of rows `(N, 3)`."""
    return xp.sqrt(xp.sum(vector * vector, axis=1))
