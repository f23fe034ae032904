"""Reading settings from plain data, all that is wrong with them told at once."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any

from embodied.errors import UserError


class Fields:
    """A mapping whose values are asked for by name and kind; what does not fit is remembered.

    Whatever is wrong, the getters return something of the right kind, so that one reading finds
    everything. `done` raises it as one `UserError`; a key that nobody asked for is wrong too.
    """

    def __init__(self, node: Any, path: str = "", problems: list[str] | None = None) -> None:
        self.problems: list[str] = [] if problems is None else problems
        self.path = path
        self.asked: set[str] = set()
        self.parts: list[Fields] = []
        if not isinstance(node, Mapping):
            self.wrong("", f"give keys and values, not {node!r:.40}")
            node = {}
        self.node: dict[str, Any] = {str(key): value for key, value in node.items()}

    def wrong(self, key: str, what: str) -> None:
        """Remember that something is wrong with a key (of this mapping, if it is empty)."""
        self.problems.append(f"{self._full(key) or 'the file'}: {what}")

    def done(self, where: str) -> None:
        """Raise `UserError` if anything was wrong, with all of it."""
        self._unasked()
        if self.problems:
            lines = "; ".join(self.problems)
            raise UserError(f"{where}: {lines}")

    def number(
        self,
        key: str,
        default: float | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> float:
        """A finite number in [low, high]; without a default it must be there."""
        value = self._get(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            if value is not _GONE:
                self.wrong(key, f"give a number, not {value!r:.40}")
        elif not low <= value <= high:
            self.wrong(key, f"{value:g}: give a number from {low:g} to {high:g}")
        else:
            return float(value)
        return default if default is not None else max(low, min(high, 1.0))

    def numbers(self, kind: type) -> dict[str, float]:
        """A dataclass's numbers by name, none negative, its defaults where they are not given."""
        return {
            field.name: self.number(field.name, field.default, low=0.0)  # type: ignore[arg-type]
            for field in dataclasses.fields(kind)
        }

    def span(self, key: str, default: tuple[float, float] | None = None) -> tuple[float, float]:
        """Two numbers, the lower first."""
        value = self._get(key, default)
        try:
            low, high = (float(number) for number in value)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError
            return low, high
        except (TypeError, ValueError):
            if value is not _GONE:
                self.wrong(key, f"give [lower, higher], not {value!r:.40}")
        return default or (0.0, 1.0)

    def row(self, key: str, size: int, default: Collection[float] | None = None) -> list[float]:
        """`size` finite numbers."""
        value = self._get(key, default)
        try:
            numbers = [float(number) for number in value]
            if len(numbers) != size or not all(map(math.isfinite, numbers)):
                raise ValueError
            return numbers
        except (TypeError, ValueError):
            if value is not _GONE:
                self.wrong(key, f"give {size} numbers, not {value!r:.60}")
        return [0.0] * size if default is None else list(default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if isinstance(value, str) and value:
            return value
        if value is not _GONE:
            self.wrong(key, f"give text, not {value!r:.40}")
        return default or ""

    def texts(self, key: str, default: Collection[str] | None = None) -> tuple[str, ...]:
        value = self._get(key, default)
        if isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value):
            return tuple(value)
        if value is not _GONE:
            self.wrong(key, f"give a list of names, not {value!r:.40}")
        return tuple(default or ())

    def choice(self, key: str, known: Collection[str], default: str | None = None) -> str:
        value = self._get(key, default)
        if value in known and isinstance(value, str):
            return value
        if value is not _GONE:
            self.wrong(key, f"{value!r:.40} is none of {', '.join(known)}")
        return default or next(iter(known))

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, f"give true or false, not {value!r:.40}")
            return default
        return value

    def has(self, key: str) -> bool:
        return self.node.get(key) is not None

    def section(self, key: str, default: Mapping[str, Any] | None = None) -> Fields:
        """A mapping inside this one."""
        value = self._get(key, default)
        part = Fields({} if value is _GONE else value, self._full(key), self.problems)
        self.parts.append(part)
        return part

    def sections(self, key: str, needed: bool = True) -> dict[str, Fields]:
        """Mappings by name inside a mapping inside this one."""
        part = self.section(key, None if needed else {})
        return {name: part.section(name) for name in part.node}

    def _get(self, key: str, default: Any) -> Any:
        self.asked.add(key)
        value = self.node.get(key)
        if value is not None:
            return value
        if default is None:
            self.wrong(key, "is not given")
            return _GONE
        return default

    def _full(self, key: str) -> str:
        return ".".join(filter(None, (self.path, key)))

    def _unasked(self) -> None:
        for key in sorted(self.node.keys() - self.asked):
            near = difflib.get_close_matches(key, self.asked, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(self.asked))}"
            self.wrong(key, f"unknown ({hint})")
        for part in self.parts:
            part._unasked()


class _Gone:
    """Stands for a value that is not there and was said to be."""


_GONE: Any = _Gone()
