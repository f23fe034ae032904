"""The rehearsals' figures by hand, and what is left to play."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import deploy_latency
from benchmarks.deploy_latency import WAYS, measure, summarise
from embodied.statistics import paired_rates, wilson


def row(way: str, seed: int, success: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "way": way, "policy": "mine", "seed": seed, "success": success,
        "length": 10, "holds": 0, "tripped": None, "overruns": 0, "state_ms": [0.1, 0.3],
        "command_ms": [], **more,
    }  # fmt: skip


def test_a_way_is_held_against_none_pair_by_pair() -> None:
    plain = [row("none", seed, seed != 3) for seed in range(10)]
    there = [row("ros1", seed, seed not in (3, 4), holds=int(seed == 5)) for seed in range(10)]
    there[4] |= {"unseen": True, "state_ms": []}
    figures, detail = summarise([*plain, *there], list(WAYS))
    assert (figures["success_none"], figures["success_ros1"]) == (0.9, 0.8)
    assert figures["behind_ros1"] == pytest.approx(0.1)
    mean, low, high = paired_rates(
        [seed not in (3, 4) for seed in range(10)], [seed != 3 for seed in range(10)]
    )
    assert mean == pytest.approx(-0.1)
    assert detail["ros1"]["behind_high"] == round(-low, 4)
    assert detail["ros1"]["low"] == round(wilson(8, 10)[0], 4)
    assert not detail["ros1"]["non_inferior"]
    told = [detail["ros1"][name] for name in ("held", "unseen", "tripped")]
    assert told == [1, 1, 0]
    assert figures["state_ros1_p50_ms"] == pytest.approx(0.2)
    assert "command_ros1_p50_ms" not in figures and "dds" not in detail


def test_what_was_played_is_not_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def play(way: str, run: str, seeds: list[int]) -> list[dict[str, Any]]:
        asked.append(seeds)
        return [{"seed": seed, "success": True} for seed in seeds]

    monkeypatch.setattr(deploy_latency, "play", play)
    rows = tmp_path / "rows.jsonl"
    measure("sim", "run", "mine", range(2), rows)
    measure("sim", "run", "mine", range(3), rows)
    measure("dds", "run", "mine", range(2), rows)
    measure("sim", "run", "another", range(1), rows)
    assert asked == [[0, 1], [2], [0, 1], [0]]
    told = [json.loads(line)["policy"] for line in rows.read_text().splitlines()]
    assert told == ["mine"] * 5 + ["another"]
