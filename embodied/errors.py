"""The one exception that is the user's to fix."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, and what would be right.

    The command line prints it and exits with code 2; nothing half-written is left behind.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A `UserError` for a name that does not exist, with the nearest ones that do."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}: {hint}")


def check_range(
    where: str, low: float = -math.inf, high: float = math.inf, **values: float
) -> None:
    """Raise `UserError` unless every one of `values` is finite and in [low, high]."""
    for name, value in values.items():
        if not (low <= value <= high and math.isfinite(value)):
            want = f">= {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            want = "that is finite" if low == -math.inf else want
            raise UserError(f"{where}.{name}={value}: give a number {want}")
