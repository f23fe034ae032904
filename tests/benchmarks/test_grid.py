"""A grid goes on where it stopped, seed by seed, and survives a cell that fails."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import grid
from benchmarks.grid import load_cells, report, run_grid, summarise

CELLS = [{"model": "a"}, {"model": "b"}]


def square(cell, seed):
    return {"score": float(seed**2) + (cell["model"] == "b")}


def test_the_first_seed_of_every_cell_comes_first(tmp_path, capsys):
    order = []
    code = run_grid(
        "g", CELLS, lambda c, s: order.append((c["model"], s)) or square(c, s), [0, 1],
        folder=tmp_path,
    )  # fmt: skip
    assert code == 0 and order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    told = capsys.readouterr().out
    assert "g: 0 of 4 cells done" in told and told.rstrip().endswith("4 of 4 cells done")
    assert len(load_cells("g", folder=tmp_path)) == 4


def test_only_what_is_missing_runs_again(tmp_path):
    calls = []

    def stops_at_the_third(cell, seed):
        calls.append((cell["model"], seed))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return square(cell, seed)

    with pytest.raises(KeyboardInterrupt):
        run_grid("g", CELLS, stops_at_the_third, [0, 1], folder=tmp_path)
    run_grid("g", CELLS, stops_at_the_third, [0, 1], folder=tmp_path)
    assert calls[3:] == [("a", 1), ("b", 1)]
    run_grid("g", CELLS, stops_at_the_third, [0, 1], folder=tmp_path)
    assert len(calls) == 5


def test_a_line_cut_short_is_run_again_and_harms_no_other(tmp_path):
    run_grid("g", CELLS, square, [0], folder=tmp_path)
    path = tmp_path / "g.cells.jsonl"
    path.write_text(path.read_text()[:-20])
    assert [row["cell"]["model"] for row in load_cells("g", folder=tmp_path)] == ["a"]
    run_grid("g", CELLS, square, [0], folder=tmp_path)
    assert [row["cell"]["model"] for row in load_cells("g", folder=tmp_path)] == ["a", "b"]


def test_a_failing_cell_is_recorded_and_tried_again(tmp_path):
    broken = True

    def run_cell(cell, seed):
        if broken and cell["model"] == "a":
            raise ValueError("no such thing")
        return square(cell, seed)

    assert run_grid("g", CELLS, run_cell, [0, 1], folder=tmp_path) == 1
    assert [row["cell"]["model"] for row in load_cells("g", folder=tmp_path)] == ["b", "b"]
    first = json.loads((tmp_path / "g.cells.jsonl").read_text().splitlines()[0])
    assert first["error"].endswith("ValueError: no such thing")
    broken = False
    assert run_grid("g", CELLS, run_cell, [0, 1], folder=tmp_path) == 0
    assert len(load_cells("g", folder=tmp_path)) == 4


def test_no_cell_is_begun_after_the_hours(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(grid.time, "monotonic", lambda: now[0])

    def takes_an_hour(cell, seed):
        now[0] += 3600.0
        return {}

    assert run_grid("g", CELLS, takes_an_hour, range(5), hours=1.5, folder=tmp_path) == 0
    assert len(load_cells("g", folder=tmp_path)) == 2


def test_other_settings_are_another_grid(tmp_path):
    run_grid("g", CELLS, square, [0], settings={"demos": 10}, folder=tmp_path)
    run_grid("g", CELLS, square, [0], settings={"demos": 20}, folder=tmp_path)
    assert len(load_cells("g", folder=tmp_path)) == 4
    assert len(load_cells("g", {"demos": 20}, tmp_path)) == 2
    assert grid.key({"a": 1, "b": 2}, 0) == grid.key({"b": 2, "a": 1}, 0) != grid.key({"a": 1}, 0)
    with pytest.raises(ValueError, match="equal"):
        run_grid("g", [{"a": 1}, {"a": 1}], square, folder=tmp_path)


def test_figures_come_back_as_json(tmp_path):
    run_grid(
        "g", CELLS[:1],
        lambda c, s: {"x": np.float32(0.5), "curve": np.array([1.0, math.nan]), "n": math.inf},
        [0], folder=tmp_path,
    )  # fmt: skip
    (row,) = load_cells("g", folder=tmp_path)
    assert row["figures"] == {"x": 0.5, "curve": [1.0, None], "n": None}


def test_the_summary_is_a_mean_over_seeds_with_its_interval(tmp_path):
    run_grid("g", CELLS, square, [0, 1, 2], folder=tmp_path)
    rows = load_cells("g", folder=tmp_path)
    found = summarise(rows, ["model"], "score")
    assert list(found) == [("a",), ("b",)]
    a = found["a",]
    assert a["mean"] == pytest.approx(5 / 3) and a["seeds"] == 3
    assert 0.0 <= a["low"] < a["mean"] < a["high"] <= 4.0
    one = summarise(rows[:1], ["model"], "score")["a",]
    assert one["mean"] == 0.0 and math.isnan(one["low"])
    assert summarise(rows, ["model"], "absent") == {}


def test_a_report_tells_the_cells_that_are_planned_and_no_others(tmp_path):
    run_grid("g", [*CELLS, {"model": "gone"}], square, [0, 1], settings={"n": 1}, folder=tmp_path)
    run_grid("g", CELLS, square, [0], settings={"n": 2}, folder=tmp_path)
    report("g", CELLS, 3, {"n": 1}, ["model"], ["score", "absent"], folder=tmp_path)
    figures = json.loads((tmp_path / "g.json").read_text())["figures"]
    assert (figures["cells"]["done"], figures["cells"]["planned"]) == (4, 6)
    assert set(figures["table"]) == {"a", "b"}
    assert figures["table"]["b"]["score"]["mean"] == 1.5
    report("g", CELLS, 3, {"n": 2}, ["model"], ["score"], folder=tmp_path)
    one = json.loads((tmp_path / "g.json").read_text())["figures"]["table"]["a"]["score"]
    assert one == {"mean": 0.0, "low": None, "high": None, "seeds": 1}
    report("g", CELLS[::-1], 3, {"n": 1}, ["model"], ["score"], folder=tmp_path)
    table = json.loads((tmp_path / "g.json").read_text())["figures"]["table"]
    assert list(table) == ["b", "a"]  # as planned, not as run
