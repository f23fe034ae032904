"""Pictures for a page, as text: progress curves over film strips, gauges; styled by the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from embodied.checks import Check, Clip
from embodied.types import ABSTAINED

WIDTH, LEFT, RIGHT = 640, 30, 6
TOP, PLOT, BAND = 8, 120, 7
FRAMES = 8
"""Frames of a film strip."""
FRAME_PX = 96
"""Frames are made no larger than this."""


def curve(clip: Clip, threshold: float, camera: str | None = None) -> str:
    """An SVG: value and true progress over time, where it says success, frames of `camera`."""
    count = len(clip.value)
    bottom = TOP + PLOT
    strip = film_strip(clip.episode.images[camera]) if camera in clip.episode.images else None
    height = bottom + 4 + BAND + 20
    parts = []
    for level in (0.0, 0.5, 1.0):
        y = _y(level)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{level:g}</text>')
    y = _y(threshold)
    parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    if np.isfinite(clip.episode.progress).all():
        parts.append(_line("truth", clip.episode.progress))
    parts.append(_line("value", clip.value))
    said = clip.value >= threshold
    for kind, frames in (
        ("right", said & clip.episode.success),
        ("wrong", said & ~clip.episode.success),
        ("silent", clip.status == ABSTAINED),
    ):
        for start, end in runs(frames):
            x, width = _x(start, count, -0.5), (WIDTH - LEFT - RIGHT) * (end - start) / count
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{bottom + 4}" '
                f'width="{width:.1f}" height="{BAND}" rx="2"/>'
            )
    if strip is not None:
        wide = WIDTH - LEFT - RIGHT
        tall = wide / FRAMES * strip.shape[0] / (strip.shape[1] / FRAMES)
        top = bottom + 4 + BAND + 4
        parts.append(
            f'<image x="{LEFT}" y="{top}" width="{wide}" height="{tall:.1f}" '
            f'preserveAspectRatio="none" href="{png(strip)}"/>'
        )
        for x in (LEFT + wide * k / FRAMES for k in range(1, FRAMES)):
            parts.append(f'<line class="gap" x1="{x}" x2="{x}" y1="{top}" y2="{top + tall:.1f}"/>')
        height = top + tall + 18
    parts.append(f'<text x="{LEFT}" y="{height - 4:.1f}">start</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{height - 4:.1f}" text-anchor="end">step {count - 1}</text>'
    )
    label = f"value from {clip.value[0]:.2f} to {clip.value[-1]:.2f}"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def film_strip(images: np.ndarray) -> np.ndarray:
    """`FRAMES` of the frames `(T, H, W, 3)` side by side, each under its time in the plot."""
    rows = (np.arange(FRAMES) + 0.5) * len(images) / FRAMES
    frames = [images[int(row)] for row in rows]
    height, width = frames[0].shape[:2]
    if height > FRAME_PX:
        size = (round(width * FRAME_PX / height), FRAME_PX)
        frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]
    return np.concatenate(frames, axis=1)


def png(image: np.ndarray) -> str:
    """An image `(H, W, 3)` uint8 as a `data:` address."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def gauge(check: Check, value: float) -> str:
    """An SVG: a bar from 0 to `value`, and a tick at the limit, over [0, 1] or [-1, 1]."""
    low = -1.0 if check.limit < 0.0 else 0.0

    def at(x: float) -> float:
        return 100 * (min(max(x, low), 1.0) - low) / (1.0 - low)

    start, end = sorted((at(0.0), at(value)))
    return (
        '<svg class="gauge" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" y="3" width="100" height="4" rx="2"/>'
        f'<rect class="bar" x="{start:.1f}" y="3" width="{max(end - start, 0.8):.1f}" height="4"/>'
        f'<rect class="limit" x="{min(at(check.limit), 99.2):.1f}" width="0.8" height="10"/></svg>'
    )


def runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where `flags` `(T,)` are true: (first, one past the last) of each stretch."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _x(step: float, count: int, shift: float = 0.0) -> float:
    """Where a step is: in the middle of its share of the width."""
    return LEFT + (WIDTH - LEFT - RIGHT) * (step + 0.5 + shift) / count


def _y(level: float) -> float:
    return TOP + PLOT * (1.0 - min(max(level, 0.0), 1.0))


def _line(kind: str, values: Sequence[float] | np.ndarray) -> str:
    points = " ".join(f"{_x(i, len(values)):.1f},{_y(float(v)):.1f}" for i, v in enumerate(values))
    return f'<polyline class="{kind}" points="{points}"/>'
