"""Units of a reward graph: whether it adds metres to metres per second.

What is multiplied or divided by a bare number may have any unit, as in `5.0 * distance`, for the
number may carry it. Angles have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Unit = tuple[float, float] | None
"""Exponents of metres and seconds; None: any."""
NAMED: dict[str, Unit] = {
    "1": (0, 0), "rad": (0, 0), "m": (1, 0), "s": (0, 1), "m/s": (1, -1), "rad/s": (0, -1),
    "m/s^2": (1, -2), "N": None, "": None,
}  # fmt: skip
ALIKE = {"add", "subtract", "minimum", "maximum", "hypot", "arctan2", "less", "less_equal",
         "greater", "greater_equal", "equal", "not_equal", "stack", "concatenate"}  # fmt: skip
"""Operations on what must be of one unit."""
KEPT = {"negative", "absolute", "sum", "mean", "max", "min", "getitem", "as_float", "floor", "ceil"}
BARE = {"sign", "any", "all", "logical_and", "logical_or", "logical_xor", "logical_not"}
VERDICTS = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "arctan2"}


def unit_faults(graph: Mapping[str, Any], units: Mapping[str, str]) -> list[str]:
    """What is wrong with the units of a graph, whose inputs are of `units`: a line for each.

    Inputs without one may be anything.
    """
    found: list[str] = []
    values: list[Unit] = []
    for name, arguments, _ in graph["nodes"]:
        given = [_unit(argument, values, units) for argument in arguments]
        bare = [not isinstance(argument, dict) for argument in arguments]
        values.append(_of(name, arguments, given, bare, found))
    return list(dict.fromkeys(found))


def _unit(argument: Any, values: Sequence[Unit], units: Mapping[str, str]) -> Unit:
    if not isinstance(argument, dict):
        return None
    ((kind, which),) = argument.items()
    return NAMED.get(units.get(which, "")) if kind == "input" else values[which]


def _of(
    name: str, arguments: Sequence[Any], given: list[Unit], bare: list[bool], found: list[str]
) -> Unit:
    """The unit of what an operation gives; adds to `found` what is wrong with it."""
    if name in ALIKE or name == "where":
        parts = given[1:] if name == "where" else given
        known = [unit for unit in parts if unit is not None]
        if len(set(known)) > 1:
            first, second = dict.fromkeys(map(written, known))
            found.append(f"{WORDS.get(name, name)} {first} with {second}")
            return None
        unit = known[0] if known else None
        return (0, 0) if name in VERDICTS else unit
    if name in KEPT:
        return given[0]
    if name in ("multiply", "divide"):
        left, right = given
        if left is None or right is None or any(bare):
            return None
        sign = 1 if name == "multiply" else -1
        return (left[0] + sign * right[0], left[1] + sign * right[1])
    if name in ("square", "sqrt", "power"):
        power = {"square": 2.0, "sqrt": 0.5}.get(name)
        if power is None:
            number = arguments[1]
            power = number if isinstance(number, (int, float)) else math.nan
        unit = given[0]
        return None if unit is None or math.isnan(power) else (unit[0] * power, unit[1] * power)
    return (0, 0) if name in BARE else None


WORDS = {"add": "it adds", "subtract": "it subtracts", "minimum": "it takes the smaller of",
         "maximum": "it takes the larger of", "hypot": "it mixes", "arctan2": "it mixes",
         "where": "it chooses between", "stack": "it mixes", "concatenate": "it mixes",
         **dict.fromkeys(sorted(VERDICTS - {"arctan2"}), "it compares")}  # fmt: skip


def written(unit: Unit) -> str:
    """As a person writes it: m/s, m^2, or a bare number."""
    if unit is None:
        return "anything"
    over = [_power(n, x) for n, x in zip("ms", unit, strict=True) if x > 0]
    under = [_power(n, -x) for n, x in zip("ms", unit, strict=True) if x < 0]
    if not over and not under:
        return "a number"
    return (" ".join(over) or "1") + "".join(f"/{part}" for part in under)


def _power(name: str, exponent: float) -> str:
    return name if exponent == 1 else f"{name}^{exponent:g}"
