"""The space of texts: any Unicode, of any length up to a limit."""

from __future__ import annotations

import string
from typing import Any

import gymnasium as gym
import numpy as np

TEXT = np.dtypes.StringDType()
"""How texts are kept in arrays: `(N,)`, `(T, N)`, each as long as it is."""


class AnyText(gym.spaces.Text):
    """Texts of up to `max_length` characters, whatever these are.

    Gymnasium's own space holds the texts of one alphabet. Samples are printable ASCII.
    """

    def __init__(self, max_length: int = 1 << 16, seed: int | None = None) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable, seed=seed)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"AnyText({self.max_length})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, AnyText) and self.max_length == other.max_length


def texts(values: Any) -> np.ndarray:
    """Texts as an array, shaped as they are nested."""
    return np.array(values, dtype=TEXT)
