"""What a class takes, through the settings that it passes on."""

from __future__ import annotations

import inspect
from typing import Any

from embodied.signatures import inherited


class First:
    def __init__(self, size: int, lr: float = 1.0, seed: int = 0) -> None:
        self.all = (size, lr, seed)


class Second(First):
    """Passes on what it does not know, and changes a default."""

    def __init__(self, kept: bool, lr: float = 2.0, **settings: Any) -> None:
        super().__init__(lr=lr, **settings)


class Third(Second):
    """Has nothing of its own."""


class Fourth(Second):
    """Passes nothing on."""

    def __init__(self, seed: int = 3) -> None:
        super().__init__(True, size=1, seed=seed)


def test_what_is_passed_on_is_its_own() -> None:
    assert (
        str(inherited(Second)) == "(kept: 'bool', size: 'int', lr: 'float' = 2.0, seed: 'int' = 0)"
    )
    assert inherited(Third) == inherited(Second)


def test_what_is_not_passed_on_is_not() -> None:
    assert list(inherited(Fourth).parameters) == ["seed"]
    assert inherited(First).parameters == inspect.signature(First).parameters
