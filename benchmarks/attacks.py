"""Hostile and broken reward programs: what a language model may write, or somebody in its name.

They are text: `benchmarks.attacks_run` runs them, in the sandbox and without, and says what of it
is seen outside. Every one is small, ends by itself within seconds, and aims at nothing but what the
harness keeps ready for it.
"""

from __future__ import annotations

from benchmarks import attacks_files, attacks_limits, attacks_system, attacks_values
from benchmarks.attacks_row import EFFECTS, FAMILIES, MOST_MEMORY, Attack

__all__ = ["ATTACKS", "EFFECTS", "FAMILIES", "MOST_MEMORY", "Attack"]

ATTACKS: tuple[Attack, ...] = tuple(
    row
    for module in (attacks_files, attacks_system, attacks_limits, attacks_values)
    for row in module.ATTACKS
)
