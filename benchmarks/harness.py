"""What every benchmark shares: arguments, interleaved rounds, summaries, the result file."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "stable-baselines3", "envpool", "safetensors")


def parse_args(
    description: str | None = None, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """The arguments of every benchmark: `quick` (bool) and `out` (Path or None)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a rough figure within a minute")
    parser.add_argument("--out", type=Path, help="write the result here, quick or not")
    return parser.parse_args(argv)


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int = 5
) -> dict[str, list[float]]:
    """Run each contestant once per round, a different one first each time; its figures by name.

    Whatever else the machine is doing then disturbs all of them alike: compare within a round.
    """
    names = list(contestants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(float(contestants[name]()))
    return figures


def summary(values: Sequence[float]) -> dict[str, float]:
    """The median of the rounds and their range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """How many times `b` is `a`: the summary of the quotients, each taken within one round."""
    return summary([x / y for x, y in zip(a, b, strict=True)])


def write_result(
    name: str,
    figures: Mapping[str, Any],
    detail: Mapping[str, Any],
    quick: bool = False,
    out: Path | None = None,
) -> Path | None:
    """Write `results/NAME.json` (or `out`) and print `figures` as JSON on the last line.

    A quick run writes only where `out` says so. Returns the path written. Raises `ValueError`
    for a figure that is not finite, and writes nothing then.
    """
    result = {
        "figures": figures,
        "detail": detail,
        "quick": quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(),
    }
    path = out or (None if quick else RESULTS / f"{name}.json")
    text = json.dumps(result, indent=2, allow_nan=False, default=_plain)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text + "\n")
        temporary.replace(path)
    print(json.dumps(figures, default=_plain), flush=True)
    return path


def versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor model, the cores this process may use, memory."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        cpu = next((value.strip() for key, _, value in fields if key.strip() == "model name"), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": cores, "memory_gib": round(memory_gib, 1)}


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays as JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} in a result: {value!r}")
