"""Figures of a run: what is written, what survives a crash, and that no logger ends a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from embodied.run_log import RunLog, draw_curves, progress_bar, read_rows


def some_rows(count: int = 4) -> list[dict[str, float]]:
    return [
        {
            "steps": 1000.0 * k,
            "episode/return": 10.0 * k,
            "episode/success": k / count,
            "episode/term/reach": -1.0 * k,
            "episode/term/effort": -0.1,
            "agent/kl": 0.01 * k,
            "steps_per_s": 5000.0,
        }
        for k in range(1, count + 1)
    ]


def test_rows_are_appended_and_read_back(tmp_path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    for row in some_rows():
        log.row(row)
    log.close()
    assert read_rows(tmp_path / "log.jsonl") == some_rows()
    assert log.failures == 0


def test_a_log_that_is_not_there_has_no_rows(tmp_path) -> None:
    assert read_rows(tmp_path / "log.jsonl") == []


def test_what_is_not_finite_is_null(tmp_path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    log.row({"steps": 1.0, "a": math.nan, "b": math.inf, "c": -math.inf, "d": 2.0})
    text = (tmp_path / "log.jsonl").read_text()
    assert json.loads(text) == {"steps": 1.0, "a": None, "b": None, "c": None, "d": 2.0}
    assert "NaN" not in text and "Infinity" not in text  # which are no JSON


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    log.row({"steps": np.int64(3), "a": np.float32(0.5), "b": torch.tensor(2.0)})
    assert read_rows(tmp_path / "log.jsonl") == [{"steps": 3.0, "a": 0.5, "b": 2.0}]
    assert log.failures == 0


def test_a_line_torn_by_a_crash_is_left_out(tmp_path) -> None:
    file = tmp_path / "log.jsonl"
    whole = "".join(json.dumps(row) + "\n" for row in some_rows())
    for end in range(len(whole) - 40, len(whole)):
        file.write_text(whole[:end])
        assert read_rows(file) in (some_rows()[:3], some_rows())


def test_resuming_rewinds_to_the_checkpoint(tmp_path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    for row in some_rows():
        log.row(row)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"steps": 5000.0, "epis')  # the crash
    log = RunLog(tmp_path, tensorboard=False, since_step=2000)
    again = {"steps": 3000.0, "agent/kl": 0.5}
    log.row(again)
    assert read_rows(tmp_path / "log.jsonl") == [*some_rows()[:2], again]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_failing_log_is_said_once_and_never_raises(tmp_path) -> None:
    (tmp_path / "log.jsonl").mkdir()  # cannot be written to, read or rewound
    with pytest.warns(UserWarning, match="logging failed, training goes on: .*directory") as told:
        log = RunLog(tmp_path, tensorboard=False, since_step=1)
        log.row({"steps": 1.0})
        log.plot(tmp_path / "curves.png")
        log.close()
    assert len(told) == 1
    assert log.failures == 3


def test_a_figure_that_is_no_number_never_raises(tmp_path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    with pytest.warns(UserWarning, match="logging failed"):
        log.row({"steps": 1.0, "agent/kl": None})
    log.row({"steps": 2.0})
    assert read_rows(tmp_path / "log.jsonl") == [{"steps": 2.0}]


def test_a_broken_board_leaves_the_rows(tmp_path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.warns(UserWarning, match="logging failed"):
        log = RunLog(tmp_path, tensorboard=True)
    log.row({"steps": 1.0})
    log.close()
    assert read_rows(tmp_path / "log.jsonl") == [{"steps": 1.0}]


def test_the_board_gets_the_same_figures(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path)
    for row in some_rows():
        log.row(row)
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    events = [(event.step, event.value) for event in board.Scalars("episode/return")]
    assert events == [(1000, 10), (2000, 20), (3000, 30), (4000, 40)]
    assert log.failures == 0


def inked(path: Path) -> float:
    """The share of a picture that is not white."""
    return float((matplotlib.image.imread(path)[..., :3] < 0.9).any(axis=-1).mean())


def test_curves_are_drawn(tmp_path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    for row in some_rows():
        log.row(row)
    log.plot(tmp_path / "curves.png")
    assert log.failures == 0
    flat = [{**row, "episode/return": 10.0} for row in some_rows()]
    draw_curves(flat, tmp_path / "flat.png")
    curves, plain = (matplotlib.image.imread(tmp_path / f"{n}.png") for n in ("curves", "flat"))
    assert curves.shape == plain.shape
    assert (curves != plain).any()
    assert inked(tmp_path / "curves.png") > 0.01


@pytest.mark.parametrize(
    "rows",
    [[], [{"steps": 1.0}], [{"steps": 1.0, "episode/return": None}], some_rows(1)],
    ids=["none", "no figure", "null", "one"],
)
def test_curves_of_next_to_nothing(tmp_path, rows) -> None:
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_the_bar_is_silent_off_a_terminal(capfd) -> None:
    progress, bar = progress_bar(total=100, done=20)
    with progress:
        progress.update(bar, completed=50, figures="return 3")
    assert progress.tasks[0].completed == 50
    assert capfd.readouterr() == ("", "")
