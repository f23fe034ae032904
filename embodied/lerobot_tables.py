"""A dataset's frames, episodes and description, as LeRobotDataset v3 lays them out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from embodied.dataset import Dataset
from embodied.lerobot_reader import DATA_PATH, IMAGES, STATE, VERSION, VIDEO_PATH
from embodied.lerobot_stats import Stats, image_stats, merge_stats, rows_stats

FIRST = {"chunk_index": 0, "file_index": 0}
"""Where everything of a dataset of ours lies."""


def frame_columns(dataset: Dataset, tasks: list[str]) -> dict[str, np.ndarray]:
    """All frames of all episodes, `(frames,)` or `(frames, D)` with D > 1, by column."""
    info, episodes = dataset.info, dataset.episodes
    lengths = np.array([len(episode) for episode in episodes])

    def joined(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([getattr(episode, name) for episode in episodes]).astype(dtype)

    state = joined("state", np.float32)
    own, rest = np.split(state, [info.proprio_size], axis=1)
    last = np.zeros(len(state), bool)
    last[np.cumsum(lengths) - 1] = True
    success, progress = joined("success", np.bool_), joined("progress", np.float32)
    frame = np.concatenate([np.arange(length) for length in lengths])
    columns = {
        STATE[0]: own,
        STATE[1]: rest,
        "action": joined("action", np.float32),
        "next.reward": joined("reward", np.float32),
        "next.done": last,
        "next.success": np.where(last, success, np.roll(success, -1)),
        "success": success,
        "stage": joined("stage", np.int64),
        "truth.progress": progress,
        "timestamp": (frame / info.rate_hz).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(episodes)), lengths),
        "index": np.arange(len(state)),
        "task_index": np.repeat([tasks.index(e.instruction) for e in episodes], lengths),
    }
    if np.isnan(progress).all():
        del columns["truth.progress"]
    for name in episodes[0].scores:
        scores = [episode.scores[name] for episode in episodes]
        columns[f"score.{name}"] = np.concatenate(scores).astype(np.float32)
    columns = {k: v for k, v in columns.items() if v.size}
    return {k: v[:, 0] if v.ndim == 2 and v.shape[1] == 1 else v for k, v in columns.items()}


def features_of(
    columns: Mapping[str, np.ndarray], names: Mapping[str, list[str]] | None = None
) -> dict[str, Any]:
    """What info.json says of columns; `names` are those of a column's numbers."""
    named = dict(names or {})
    for key in set(STATE) & set(columns):
        size = columns[key].size // len(columns[key])
        named[key] = [f"{key.removeprefix('observation.')}_{i}" for i in range(size)]
    return {
        name: {
            "dtype": str(rows.dtype),
            "shape": list(rows.shape[1:] or (1,)),
            "names": named.get(name),
        }
        for name, rows in columns.items()
    }


def episode_rows(
    dataset: Dataset, columns: Mapping[str, np.ndarray]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of `meta/episodes`, and the statistics of all episodes together."""
    finite = {k: v.reshape(len(v), -1) for k, v in columns.items() if np.isfinite(v).all()}
    rows, parts, start = [], [], 0
    for number, episode in enumerate(dataset.episodes):
        stop = start + len(episode)
        stats = {name: rows_stats(rows[start:stop]) for name, rows in finite.items()}
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [episode.instruction],
            "length": len(episode),
            "source": episode.source,
            "seed": int(episode.seed),
            **{f"data/{name}": place for name, place in FIRST.items()},
            "dataset_from_index": start,
            "dataset_to_index": stop,
        }
        for camera in dataset.info.cameras:
            key = f"{IMAGES}{camera}"
            stats[key] = image_stats(episode.images[camera])
            row |= {f"videos/{key}/{name}": place for name, place in FIRST.items()}
            row[f"videos/{key}/from_timestamp"] = start / dataset.info.rate_hz
            row[f"videos/{key}/to_timestamp"] = stop / dataset.info.rate_hz
        for name, figures in stats.items():
            row |= {f"stats/{name}/{key}": value for key, value in plain(figures).items()}
        rows.append(row | {f"meta/episodes/{name}": place for name, place in FIRST.items()})
        parts.append(stats)
        start = stop
    return rows, {name: plain(merge_stats([part[name] for part in parts])) for name in parts[0]}


def describe(dataset: Dataset, tasks: list[str], features: dict[str, Any]) -> dict[str, Any]:
    info, rate = dataset.info, dataset.info.rate_hz
    return {
        "codebase_version": VERSION,
        "robot_type": info.robot or None,
        "total_episodes": len(dataset),
        "total_frames": sum(map(len, dataset.episodes)),
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{len(dataset)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if info.cameras else None,
        "features": features,
    }


def tasks_table(tasks: list[str]) -> pa.Table:
    """A table that pandas reads as a frame indexed by the instructions, as LeRobot wants it."""
    index = "__index_level_0__"
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: tasks})
    about = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": stored,
             "metadata": None}
            for name, field, kind, stored in (
                ("task_index", "task_index", "int64", "int64"),
                (None, index, "unicode", "object"),
            )
        ],
        "pandas_version": "2.0.0",
    }  # fmt: skip
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def to_arrow(rows: np.ndarray) -> pa.Array:
    if rows.ndim == 1:
        return pa.array(rows)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def plain(stats: Stats) -> dict[str, Any]:
    """Statistics as JSON holds them."""
    return {name: value.tolist() for name, value in stats.items()}
