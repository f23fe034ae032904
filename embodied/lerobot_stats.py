"""Statistics of a LeRobotDataset's features, laid out as LeRobot lays them out.

Quantiles are those of the sample; LeRobot reads them off a histogram of 5,000 bins and so differs
by up to a bin's width. Images count in [0, 1], channel by channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Stats = dict[str, np.ndarray]
"""min, max, mean, std, count and the quantiles of one feature."""


def rows_stats(rows: np.ndarray) -> Stats:
    """Statistics `(D,)` of rows `(T, D)`."""
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0, dtype=np.float64),
        "std": rows.std(axis=0, dtype=np.float64),
        "count": np.array([len(rows)]),
        **_quantiles(np.sort(rows, axis=0)),
    }


def image_stats(images: np.ndarray) -> Stats:
    """Statistics `(3, 1, 1)` of some of the images `(T, H, W, 3)` uint8, spread evenly."""
    count = min(len(images), max(100, min(10_000, int(len(images) ** 0.75))))
    shown = images[np.linspace(0, len(images) - 1, count).round().astype(np.int64)]
    pixels = shown.reshape(-1, 3)
    shade = np.arange(256)
    seen = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    share = seen / len(pixels)
    mean = share @ shade
    below = np.cumsum(seen, axis=1)
    present = [np.flatnonzero(row) for row in seen]
    stats = {
        "min": np.array([row[0] for row in present]),
        "max": np.array([row[-1] for row in present]),
        "mean": mean,
        "std": np.sqrt((share * (shade - mean[:, None]) ** 2).sum(axis=1)),
    }
    for name, q in QUANTILES.items():
        stats[name] = (below < q * len(pixels)).sum(axis=1)
    scaled = {name: value.reshape(3, 1, 1) / 255.0 for name, value in stats.items()}
    return {**scaled, "count": np.array([count])}


def merge_stats(parts: Sequence[Stats]) -> Stats:
    """Statistics of several episodes as one; quantiles are averaged, as LeRobot does."""
    counts = np.stack([part["count"] for part in parts]).astype(np.float64)
    total = counts.sum()
    weight = counts.reshape(len(parts), *(1,) * parts[0]["mean"].ndim) / total

    def average(values: list[np.ndarray]) -> np.ndarray:
        return np.asarray((np.stack(values) * weight).sum(axis=0))

    mean = average([part["mean"] for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(average([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])),
        "count": np.array([int(total)]),
        **{name: average([part[name] for part in parts]) for name in QUANTILES},
    }


def _quantiles(ordered: np.ndarray) -> Stats:
    """The smallest of the sorted rows `(T, D)` that at least the share q does not exceed."""
    count = len(ordered)
    places = {name: max(0, int(np.ceil(q * count - 1e-9)) - 1) for name, q in QUANTILES.items()}
    return {name: ordered[place].astype(np.float64) for name, place in places.items()}
