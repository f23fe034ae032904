"""`key=value` arguments of the verbs: their own settings, and changes to a saved configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embodied.errors import UserError, unknown

WORLD_KEYS = ("env", "sim", "robot", "agent")
"""What an argument that is no setting may change of a configuration."""


def settings(
    arguments: Sequence[str], defaults: Mapping[str, Any], extra: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """A verb's own settings by name, and the arguments that are left: overrides of the worlds.

    A value has the type of its default; a default that is a type itself stands for None. `extra`
    are keys of the configuration that may be overridden too.
    Raises `UserError`.
    """
    values = {k: None if isinstance(v, type) else v for k, v in defaults.items()}
    overrides = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r}: write key=value")
        if key in defaults:
            values[key] = _typed(key, text, defaults[key])
        elif key.split(".")[0].lstrip("+~") in (*WORLD_KEYS, *extra):
            overrides.append(argument)
        else:
            raise unknown("key", key, [*defaults, *WORLD_KEYS, *extra])
    return values, overrides


def _typed(key: str, text: str, default: Any) -> Any:
    kind = default if isinstance(default, type) else type(default)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{key}={text}: give true or false")
        return text.lower() == "true"
    if kind is str:
        return text or None
    lowest = 0 if key == "seed" or kind is float else 1
    try:
        value = kind(text)
        if not lowest <= value < 2**53 or value == 0.0 and kind is float:
            raise ValueError
    except ValueError:
        wanted = "number > 0" if kind is float else f"whole number >= {lowest}"
        raise UserError(f"{key}={text}: give a {wanted}") from None
    return value
