"""Figures of a run: JSON lines, TensorBoard, a progress bar, learning curves.

A logger never kills training: what fails here is counted and said once, and the run goes on.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class RunLog:
    """Appends a row of figures an update to `log.jsonl`, and to TensorBoard if asked."""

    def __init__(self, path: Path, tensorboard: bool = True, since_step: int = 0) -> None:
        self.path, self.failures = path / "log.jsonl", 0
        self._board: Any = None
        if since_step:
            self._try(self._rewind, since_step)
        if tensorboard:
            self._board = self._try(_open_board, path / "tensorboard", since_step)

    def row(self, figures: Mapping[str, float]) -> None:
        """One row; `figures["steps"]` places it."""
        self._try(self._append, figures)
        if self._board is not None:
            self._try(self._write_board, figures)

    def close(self) -> None:
        if self._board is not None:
            self._try(self._board.close)

    def plot(self, path: Path) -> None:
        """Draw the learning curves of all rows so far."""
        self._try(lambda: draw_curves(read_rows(self.path), path))

    def _append(self, figures: Mapping[str, float]) -> None:
        clean = {k: float(v) if math.isfinite(v) else None for k, v in figures.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(clean) + "\n")

    def _write_board(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if name != "steps":
                self._board.add_scalar(name, value, int(figures["steps"]))

    def _rewind(self, step: int) -> None:
        """Drop the rows that a resumed run is about to write again."""
        rows = [row for row in read_rows(self.path) if row["steps"] <= step]
        new = self.path.with_suffix(".new")  # a crash while writing must not cost the old rows
        new.write_text("".join(json.dumps(row) + "\n" for row in rows))
        new.replace(self.path)

    def _try(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:  # a full disk or a broken plot must not end a training run
            self.failures += 1
            if self.failures == 1:
                warnings.warn(f"logging failed, training goes on: {error}", stacklevel=3)
            return None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `log.jsonl`, in order; a last line torn by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Learning curves as a PNG: return, success, reward terms, what the learner says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(name for row in rows for name in row))
    panels = [
        ("return of finished episodes", [n for n in names if n == "episode/return"]),
        ("success", [n for n in names if n == "episode/success"]),
        ("reward terms, sum over an episode", [n for n in names if n.startswith("episode/term/")]),
        ("terms of reward models, mean", [n for n in names if n.startswith("part/")]),
        ("learner", [n for n in names if n in ("agent/kl", "agent/clipped", "agent/std")]),
        ("explained variance", [n for n in names if n == "agent/explained_variance"]),
        ("steps a second", [n for n in names if n == "steps_per_s"]),
    ]
    panels = [panel for panel in panels if panel[1]]
    columns = min(3, max(1, len(panels)))
    lines = math.ceil(max(1, len(panels)) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns, 3.1 * lines), squeeze=False)
    for axis, (title, curves) in zip(axes.flat, panels, strict=False):
        for name in curves:
            points = [(row["steps"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, label=name.rsplit("/", 1)[-1], linewidth=1.4)
        axis.set_title(title, fontsize=10, loc="left")
        axis.ticklabel_format(axis="x", style="sci", scilimits=(3, 6))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axis.legend(fontsize=7, frameon=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("environment steps", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


class _Figures(ProgressColumn):
    """The figures that matter, beside the bar."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("figures", ""), style="cyan")


def progress_bar(total: int, done: int = 0) -> tuple[Progress, Any]:
    """A progress bar over steps; `update(id, completed=..., figures="return 12")` moves it.

    Off a terminal it stays silent; the caller prints a line now and then instead.
    """
    progress = Progress(
        TextColumn("[bold]train"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Figures(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
    )
    return progress, progress.add_task("train", total=total, completed=done, figures="")


def _open_board(path: Path, since_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(path), purge_step=since_step or None)
