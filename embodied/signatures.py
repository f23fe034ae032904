"""Settings that a class passes on to the class above it are its own, to whoever asks."""

from __future__ import annotations

import inspect


def inherited(cls: type) -> inspect.Signature:
    """What `cls` takes: parameters of its `__init__`, and of those that its `**settings` go to.

    Set as a class's `__signature__`, it is what `inspect.signature` says of it, so that a
    misspelled setting is refused before anything is made.
    """
    taken: dict[str, inspect.Parameter] = {}
    for part in cls.__mro__:
        if "__init__" not in vars(part):
            continue
        own = list(inspect.signature(part.__init__).parameters.values())[1:]  # type: ignore[misc]
        taken |= {p.name: p for p in own if p.name not in taken and p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return inspect.Signature(
        sorted(taken.values(), key=lambda p: (p.kind, p.default is not p.empty))
    )
