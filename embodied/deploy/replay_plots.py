"""Pictures for a page of a record, as text: joints over time, with what happened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from embodied.deploy.replay_record import Curve, Event

WIDTH, HEIGHT = 640, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 16, 22
PAUSE, SEEN = 2.5, 0.005
"""A curve is broken where it pauses for this many times as long as usual, and for this share of
what is shown."""
FAR = 1e9
"""Values beyond it are not drawn."""
NEAR = 4
"""Ticks of one tone that are as near as this (in the picture's units) are drawn as one."""
BAD, WARNED = ("trip", "estop", "fault"), ("clamp", "hold", "stale", "late", "refused")


@dataclass(frozen=True)
class Axes:
    """Times (ns) from `start` to `end`, values from `low` to `high`, as places in a picture."""

    start: int
    end: int
    low: float
    high: float

    def x(self, times_ns: np.ndarray) -> np.ndarray:
        share = (times_ns - self.start) / max(1, self.end - self.start)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def y(self, values: np.ndarray) -> np.ndarray:
        share = np.clip((values - self.low) / (self.high - self.low), -0.05, 1.05)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share)


def joint_plot(
    curves: Mapping[str, Curve],
    joint: int,
    span: tuple[int, int],
    events: Sequence[Event],
    limits: tuple[float, float] | None = None,
) -> str:
    """An SVG of one joint: its curves, its limits where they are near, events as ticks above."""
    said = {name: curve.values[:, joint] for name, curve in curves.items()}
    axes = Axes(*span, *_range(list(said.values()), limits))
    parts = [*_grid(axes), *ticks(axes, events)]
    for limit in limits or ():
        if axes.low <= limit <= axes.high:
            y = float(axes.y(np.array(limit)))
            parts.append(
                f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
    for name, values in said.items():
        parts += lines(axes, name, curves[name].times_ns, values)
    return _svg(parts, ", ".join(said))


def action_plot(
    times_ns: np.ndarray,
    recorded: np.ndarray,
    answered: np.ndarray,
    span: tuple[int, int],
    at_ns: int,
    name: str,
) -> str:
    """An SVG of one component of the action, as recorded and as answered now; `at_ns` is marked."""
    axes = Axes(*span, *_range([recorded, answered], None))
    parts = [*_grid(axes), *ticks(axes, [Event(at_ns, "fault", "the first that differs")])]
    parts += lines(axes, "answered", times_ns, answered)
    parts += lines(axes, "recorded", times_ns, recorded)
    return _svg(parts, f"{name}, recorded and answered")


def ticks(axes: Axes, events: Sequence[Event]) -> Iterator[str]:
    """A tick for each event, or for all of a kind that fall on one place."""
    drawn = set()
    for event in events:
        x, tone = round(float(axes.x(np.array(event.time_ns)))), _tone(event.kind)
        if (x // NEAR, tone) in drawn or not axes.start <= event.time_ns <= axes.end:
            continue
        drawn.add((x // NEAR, tone))
        label = escape(f"{event.kind}: {event.what}")
        yield (
            f'<line class="event {tone}" x1="{x}" x2="{x}" y1="{TOP - 10}" y2="{HEIGHT - BOTTOM}">'
            f"<title>{label}</title></line>"
        )


def lines(axes: Axes, kind: str, times_ns: np.ndarray, values: np.ndarray) -> Iterator[str]:
    """A curve, in as many pieces as it has."""
    said = np.abs(values) < FAR
    times_ns, values = times_ns[said], values[said]
    if not len(times_ns):
        return
    pauses = np.diff(times_ns)
    usual = float(np.median(pauses)) if len(pauses) else 0.0
    breaks = np.flatnonzero(pauses > max(PAUSE * usual, SEEN * (axes.end - axes.start))) + 1
    for piece in np.split(np.arange(len(times_ns)), breaks):
        x, y = axes.x(times_ns[piece]), axes.y(values[piece])
        kept = _thinned(x, y)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[kept], y[kept], strict=True))
        yield f'<polyline class="{kind}" points="{points}"/>'


def _thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points to draw: of each column of the picture the lowest and the highest."""
    order = np.lexsort((y, np.floor(x)))
    edges = np.flatnonzero(np.diff(np.floor(x)[order], prepend=-1.0, append=WIDTH + 1.0))
    return np.unique(np.concatenate([order[edges[:-1]], order[edges[1:] - 1]]))


def _range(values: Sequence[np.ndarray], limits: tuple[float, float] | None) -> tuple[float, float]:
    """What to show: all values with room around, and a limit that is near."""
    said = np.concatenate([part[np.abs(part) < FAR] for part in values])
    if not len(said):
        return 0.0, 1.0
    low, high = float(said.min()), float(said.max())
    room = max(0.08 * (high - low), 1e-3)
    for limit in limits or ():
        if low - 3 * room <= limit <= high + 3 * room:
            low, high = min(low, limit), max(high, limit)
    return low - room, high + room


def _grid(axes: Axes) -> Iterator[str]:
    decimals = max(0, 2 - math.floor(math.log10(axes.high - axes.low)))
    for level in np.linspace(axes.low, axes.high, 5)[1:-1]:
        y = float(axes.y(level))
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        text = f"{level:.{decimals}f}".replace("-", "−")
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    seconds = (axes.end - axes.start) * 1e-9
    every = 10.0 ** math.floor(math.log10(max(seconds, 1e-3)))
    every *= next(share for share in (0.1, 0.2, 0.5, 1.0, 2.0) if seconds / (share * every) <= 8)
    for k in range(int(seconds / every) + 1):
        x = float(axes.x(np.array(axes.start + k * every * 1e9)))
        anchor = "start" if k == 0 else "middle" if x < WIDTH - 30 else "end"
        label = f"{k * every:g} s"
        yield f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>'


def _tone(kind: str) -> str:
    return "bad" if kind in BAD else "warning" if kind in WARNED else "soft"


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
