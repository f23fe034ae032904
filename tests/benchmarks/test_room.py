"""Every task has the room on a GPU that it was found to need, twice over."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness import RESULTS
from benchmarks.room import TASKS
from embodied.config import compose_config

FOUND = json.loads((RESULTS / "room.json").read_text())["figures"]


@pytest.mark.parametrize("name", TASKS)
def test_it_has_twice_what_it_needed(name: str) -> None:
    room = compose_config([f"env={name}", "sim=warp"]).sim
    for what, most in FOUND[name].items():
        assert 2.0 * most <= room[what] <= 2.0 * most + 8.0
