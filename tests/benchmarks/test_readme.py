"""The figures in README.md are those of benchmarks/results/, to the letter."""

import json
from pathlib import Path

from benchmarks.readme import BEGIN, END, README, ROWS, table


def test_the_readme_says_what_was_measured() -> None:
    text = README.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == table()


def test_every_figure_is_in_its_result_file_or_not_claimed(tmp_path: Path) -> None:
    assert table(tmp_path).count("not yet measured") == len(ROWS)
    figures = {"success": {"median": 0.975, "low": 0.96, "high": 1.0}, "minutes": 3.14}
    result = {"figures": figures, "machine": {"cpu": "Abacus", "cores": 2}}
    (tmp_path / "demo.json").write_text(json.dumps(result))
    made = table(tmp_path)
    assert "| 97.5% (96.0% to 100.0%) | 95% |" in made
    assert "| 3.1 | 4 |" in made
    assert "Abacus, 2 cores" in made
