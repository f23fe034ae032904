"""A grid of cells by seeds that can be stopped at any time and goes on where it stopped.

    def run_cell(cell, seed):  # {"model": "stage_aware", "rewind": 0.8}, 3
        return {"voc": 0.9}

    code = run_grid("progress", cells, run_cell, seeds=range(5), hours=2, settings={"demos": 30})
    report("progress", cells, settings={"demos": 30}, by=["model", "rewind"], figures=["voc"])

Every finished cell is one line of `results/NAME.cells.jsonl`, known by its factors, its seed and
the settings that all cells share: with other settings it is run anew, the old lines stay.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from embodied.statistics import bootstrap

Cell = Mapping[str, Any]


def run_grid(
    name: str,
    cells: Sequence[Cell],
    run_cell: Callable[[Cell, int], Mapping[str, Any]],
    seeds: Iterable[int] = range(5),
    hours: float = math.inf,
    settings: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> int:
    """Run what is missing of `cells` x `seeds`: the first seed of every cell, then the second, ...

    A cell is a dict of plain factors; `run_cell(cell, seed)` returns its figures as JSON. No cell
    is begun after `hours`. One that raises is recorded with its error and tried again by the next
    run. Returns 1 if a cell failed, else 0. Raises `ValueError` for two equal cells.
    """
    path = cells_path(name, folder)
    plan = [(cell, seed) for seed in seeds for cell in cells]
    keys = [key(cell, seed, settings) for cell, seed in plan]
    if len(set(keys)) < len(keys):
        raise ValueError(f"grid {name}: two cells are equal")
    done = {row["key"] for row in _read(path) if row["error"] is None} & set(keys)
    start, failed = time.monotonic(), 0
    print(f"{name}: {len(done)} of {len(plan)} cells done", flush=True)
    for (cell, seed), known_as in zip(plan, keys, strict=True):
        if known_as in done:
            continue
        if time.monotonic() - start >= hours * 3600:
            print(f"{name}: time is up; run it again to go on", flush=True)
            break
        row = _run(run_cell, cell, seed)
        _append(path, {"key": known_as, "settings": dict(settings or {})} | row)
        if row["error"] is None:
            done.add(known_as)
        else:
            failed += 1
        word = f"FAILED: {row['error'].splitlines()[-1]}" if row["error"] else "done"
        told = " ".join(f"{k}={v}" for k, v in cell.items())
        print(
            f"{name}: {told} seed={seed} {word} in {row['seconds']:.1f} s; "
            f"{len(done)} of {len(plan)} cells done",
            flush=True,
        )
    return 1 if failed else 0


def only(plan: Sequence[Cell], names: Iterable[str]) -> list[Cell]:
    """The cells in which the factors that are named have those values; all where none is named."""
    named = set(names)
    for factor in {factor for cell in plan for factor in cell}:
        wanted = {one for cell in plan if isinstance(one := cell.get(factor), str)} & named
        plan = [cell for cell in plan if not wanted or cell.get(factor) in wanted]
    return list(plan)


def load_cells(
    name: str, settings: Mapping[str, Any] | None = None, folder: Path | None = None
) -> list[dict[str, Any]]:
    """The finished cells of a grid, each once, that were run with `settings` (None: with any).

    Rows have `cell`, `seed`, `figures`, `seconds`, `date`, `settings` and `key`.
    """
    last = {row["key"]: row for row in _read(cells_path(name, folder))}
    return [
        row
        for row in last.values()
        if row["error"] is None and (settings is None or row["settings"] == plain(settings))
    ]


def summarise(
    rows: Iterable[Mapping[str, Any]], by: Sequence[str], figure: str
) -> dict[tuple[Any, ...], dict[str, float]]:
    """Mean over seeds of a figure, for each combination of the factors `by`, as they come.

    With `low` and `high`, its 95% bootstrap interval (NaN for one seed), and the number of
    `seeds`. Cells without the figure (absent or null) are left out.
    """
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        value = row["figures"].get(figure)
        if value is not None:
            group = tuple(row["cell"].get(factor) for factor in by)
            groups.setdefault(group, []).append(float(value))
    out = {}
    for group, values in groups.items():
        low, high = bootstrap(values)
        out[group] = {
            "mean": float(np.mean(values)), "low": low, "high": high, "seeds": len(values)
        }  # fmt: skip
    return out


def report(
    name: str,
    cells: Sequence[Cell],
    seeds: int,
    settings: Mapping[str, Any],
    by: Sequence[str],
    figures: Sequence[str],
    quick: bool = False,
    folder: Path | None = None,
) -> None:
    """Write `results/NAME.json` from what is finished: `cells` done and planned, their hours, and
    a `table` of a row for each combination of the factors `by`, in the order of `cells`, with the
    summary of each figure."""
    plan = [key(cell, seed, settings) for cell in cells for seed in range(seeds)]
    planned = {known_as: place for place, known_as in enumerate(plan)}
    rows = [row for row in load_cells(name, settings, folder) if row["key"] in planned]
    rows.sort(key=lambda row: planned[row["key"]])
    table: dict[str, dict[str, Any]] = {}
    for figure in figures:
        for group, found in summarise(rows, by, figure).items():
            title = " ".join(str(part) for part in group if part)
            table.setdefault(title, {})[figure] = plain(found)
    hours = sum(row["seconds"] for row in rows) / 3600
    done = {"done": len(rows), "planned": len(planned), "hours": round(hours, 2)}
    out = folder / f"{name}.json" if folder else None
    harness.write_result(name, {"cells": done, "table": table}, {}, quick, out)


def cells_path(name: str, folder: Path | None = None) -> Path:
    return (folder or harness.RESULTS) / f"{name}.cells.jsonl"


def key(cell: Cell, seed: int, settings: Mapping[str, Any] | None = None) -> str:
    """What a cell is known by: equal for equal factors in any order."""
    whole = {"cell": dict(cell), "seed": int(seed), "settings": dict(settings or {})}
    text = json.dumps(whole, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _run(
    run_cell: Callable[[Cell, int], Mapping[str, Any]], cell: Cell, seed: int
) -> dict[str, Any]:
    start, figures, error = time.perf_counter(), {}, None
    try:
        figures = plain(run_cell(cell, seed))
    except Exception:  # whatever it is, the other cells go on
        error = traceback.format_exc(limit=-3).strip()
    return {
        "cell": dict(cell),
        "seed": int(seed),
        "figures": figures,
        "error": error,
        "seconds": round(time.perf_counter() - start, 3),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, a figure that is not finite as null."""

    def tidy(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {str(k): tidy(v) for k, v in part.items()}
        if isinstance(part, list | tuple):
            return [tidy(v) for v in part]
        part = part.tolist() if hasattr(part, "tolist") else part
        if isinstance(part, list):
            return tidy(part)
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.loads(json.dumps(tidy(value)))


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of a grid's file; one that a kill cut short is as if it had not been run."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as file:
        file.write("\n" * cut + json.dumps(row) + "\n")
