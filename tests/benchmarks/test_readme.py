"""The figures in README.md are those of benchmarks/results/, to the letter."""

import json
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.readme import README, ROWS, begin, end, figures, grid, sections


def test_the_readme_says_what_was_measured() -> None:
    text = README.read_text()
    for name, table in sections().items():
        start = text.index(begin(name)) + len(begin(name))
        assert text[start : text.index(end(name))].strip() == table


def test_every_figure_is_in_its_result_file_or_not_claimed(tmp_path: Path) -> None:
    assert figures(tmp_path).count("not yet measured") == len(ROWS)
    found = {"success": {"median": 0.975, "low": 0.96, "high": 1.0}, "clone": 0.9, "minutes": 3.14}
    result = {"figures": found, "machine": {"cpu": "Abacus", "cores": 2}}
    (tmp_path / "demo.json").write_text(json.dumps(result))
    made = figures(tmp_path)
    assert "| 97.5% (96.0% to 100.0%) | 90% |" in made
    assert "| 3.1 | 6 |" in made
    assert "Abacus, 2 cores" in made


def test_a_grid_says_how_much_of_it_is_done(tmp_path: Path) -> None:
    assert grid("g", "{:.1f}", {"VOC": "voc"}, tmp_path).startswith("Not yet measured")
    rows = {
        "reach clock": {"voc": {"mean": 0.81, "low": 0.7, "high": 0.9, "seeds": 3}},
        "reach hop": {"voc": {"mean": 0.92, "low": None, "high": None, "seeds": 1}},
        "lift hop": {},
    }
    done = {"done": 4, "planned": 9, "hours": 1.5}
    (tmp_path / "g.json").write_text(json.dumps({"figures": {"cells": done, "table": rows}}))
    made = grid("g", "{:.1f}", {"VOC": "voc", "never": "never"}, tmp_path)
    assert made.splitlines()[0] == "| | VOC |"
    assert "| reach clock | 0.8 (0.7 to 0.9) |" in made
    assert "| reach hop | 0.9 |" in made and "| lift hop | - |" in made
    assert "4 of 9 cells in 1.5 hours" in made


def test_a_table_without_its_place_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.read_text().replace(begin("judge"), "")
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    with pytest.raises(SystemExit, match="no place for judge"):
        readme.main()
    assert (tmp_path / "README.md").read_text() == text
