"""Learning curves of a grid as a picture: a panel for each value of a factor, a line for each
figure, the mean over seeds and their range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from embodied.types import Array

COLOURS = ("#2563eb", "#f97316", "#16a34a", "#9333ea")


def draw(
    rows: Iterable[Mapping[str, Any]],
    panels: Mapping[str, str],
    factor: str,
    lines: Mapping[str, str],
    out: Path,
) -> None:
    """Write `out`, an SVG, of finished cells (see `load_cells`), whose figures have a `curve`.

    `panels` are the values of `factor` and their titles, `lines` the figures of a curve and what
    they are called; figures lie in [0, 1].
    """
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = out.stem  # the same file from the same figures
    rows = list(rows)
    shape = (1, len(panels))
    figure, axes = plt.subplots(*shape, figsize=(2.2 * len(panels), 2.2), sharey=True, sharex=True)
    for axis, (value, title) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        curves = [row["figures"]["curve"] for row in rows if row["cell"][factor] == value]
        axis.set_title(title, fontsize=10)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("million steps", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        for colour, (name, label) in zip(COLOURS, lines.items(), strict=False):
            steps, values = together(curves, name)
            if len(values):
                axis.plot(steps, values.mean(0), color=colour, label=label)
                axis.fill_between(
                    steps, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0
                )
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(lines), fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def together(
    curves: Sequence[Mapping[str, Any]], name: str, points: int = 60
) -> tuple[Array, Array]:
    """A figure of several curves at the same steps: millions of them `(points,)`, and values
    `(curves, points)`, where a curve has none those next to it; without those that never have.
    """
    curves = [c for c in curves if any(value is not None for value in c[name])]
    end = min((curve["steps"][-1] for curve in curves), default=0.0)
    steps = np.linspace(0.0, end, points)
    values = []
    for curve in curves:
        known = [
            (step, value)
            for step, value in zip(curve["steps"], curve[name], strict=True)
            if value is not None
        ]
        values.append(np.interp(steps, *np.array(known).T))
    return steps / 1e6, np.array(values)
