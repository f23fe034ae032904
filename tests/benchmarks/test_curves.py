"""Curves of cells as a picture."""

from pathlib import Path

import numpy as np

from benchmarks.curves import draw, together

RISES = {"steps": [0.0, 1e6, 2e6], "success": [None, 0.5, 1.0], "told": [None, None, None]}
LATER = {"steps": [0.0, 2e6, 4e6], "success": [0.0, 0.0, 1.0], "told": [None, None, None]}


def test_curves_are_put_on_the_same_steps() -> None:
    steps, values = together([RISES, LATER], "success", points=3)
    assert steps.tolist() == [0.0, 1.0, 2.0]
    assert values.tolist() == [[0.5, 0.5, 1.0], [0.0, 0.0, 0.0]]


def test_a_curve_without_the_figure_is_left_out() -> None:
    assert together([RISES, LATER], "told")[1].shape == (0,)
    kept = together([RISES, {**LATER, "success": [None] * 3}], "success")[1]
    assert len(kept) == 1 and np.isfinite(kept).all()


def test_a_picture_is_the_same_from_the_same_figures(tmp_path: Path) -> None:
    rows = [{"cell": {"kind": "a"}, "figures": {"curve": curve}} for curve in (RISES, LATER)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = {"success": "success", "told": "told"}
        draw(rows, {"a": "first", "b": "second"}, "kind", lines, tmp_path / name / "curves.svg")
    one, two = ((tmp_path / name / "curves.svg").read_text() for name in ("one", "two"))
    assert one == two
    assert "<!-- first -->" in one and "<!-- told -->" not in one


def test_a_grid_without_cells_is_an_empty_picture(tmp_path: Path) -> None:
    draw([], {"a": "first"}, "kind", {"success": "success"}, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").exists()
