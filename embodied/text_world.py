"""The contract of a text world: a game, household, database or library that is talked to.

A world is told in free text what to do and answers in text; it lists no admissible commands. How N
of them become worlds that step together: `embodied.text_env`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Turn:
    """What a world says when its episode starts, and after every action.

    `text` is all that an agent may know of it; the first one says what is to be done. `reached` of
    `subgoals` parts of the task have been done so far, each verified in the world itself (a fact,
    a row of a database, a place), whatever is undone later. `told` are further things that reward
    models may declare they need, by name (the world's `tells`): as text, structures as JSON.
    """

    text: str
    terminated: bool = False
    success: bool = False
    valid: bool = True  # the action was understood, and could be carried out
    score: float = 0.0  # what the world itself pays for the action
    reached: int = 0
    subgoals: int = 1
    told: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, whatever kind of number a world counts in."""
        told = {str(name): str(text) for name, text in self.told.items()}
        flags = {name: bool(getattr(self, name)) for name in ("terminated", "success", "valid")}
        counts = {name: int(getattr(self, name)) for name in ("reached", "subgoals")}
        return {"text": str(self.text), **flags, "score": float(self.score), **counts, "told": told}


class TextWorld(Protocol):
    """One world, one episode at a time.

    Equal seeds and equal actions give equal turns, in any process: an episode is saved and forked
    as its seed and its actions, which are played again. A seed is a whole number >= 0 and names a
    task: seeds that differ should be tasks that differ. After `terminated` nothing is asked but
    `reset`. Limits of time and of turns are not the world's business.
    """

    max_turns: int
    """After how many actions an episode ends where nobody says otherwise."""
    tells: tuple[str, ...]
    """The names in `Turn.told`, always all of them."""

    def reset(self, seed: int) -> Turn: ...

    def step(self, action: str) -> Turn:
        """Any text is an action; one that means nothing here is answered so (`valid` False)."""

    def gold(self) -> list[str]:
        """Actions that solve the running episode from its start, every one of them needed."""

    def close(self) -> None: ...
