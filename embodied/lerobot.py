"""Datasets on disk, as LeRobotDataset v3: parquet, JSON and one H.264 file a camera.

    data/chunk-000/file-000.parquet             a row a frame
    meta/info.json                              version, rate, and what each column is
    meta/stats.json                             statistics of each column
    meta/tasks.parquet                          the instructions
    meta/episodes/chunk-000/file-000.parquet    a row an episode: where it lies, its statistics
    meta/embodied.json                          limits of actions, hashes of the videos
    videos/observation.images.CAMERA/chunk-000/file-000.mp4

Row t holds `observation.state` (the robot's own part), `observation.environment_state` (the rest
of the state), `action`, and of the step that follows `next.reward`, `next.done`, `next.success`
(of the last row: its own success). Ours are `success`, `stage` (-1: nobody said),
`truth.progress` and `score.NAME`; and `source` and `seed` of an episode. All frames are in one
file, and all images of a camera.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.footage import write_footage
from embodied.lerobot_reader import (
    DATA_PATH,
    EPISODES_PATH,
    IMAGES,
    NAME,
    VIDEO_PATH,
    blaming,
    check_finite,
    data_files,
    read_info,
    read_rows,
    sha256,
)
from embodied.lerobot_reader import read_dataset as read_dataset
from embodied.lerobot_stats import merge_stats, rows_stats
from embodied.lerobot_tables import (
    FIRST,
    describe,
    episode_rows,
    features_of,
    frame_columns,
    plain,
    tasks_table,
    to_arrow,
)


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write a dataset to the new folder `path`: it appears whole, and durable, or not at all.

    Raises `UserError` where `path` exists or cannot be written, and for episodes that disagree
    with each other or hold a state or an action that is not finite.
    """
    path = Path(path).absolute()
    _check(dataset)
    if os.path.lexists(path):
        raise UserError(f"{path} exists: choose another folder for the dataset")
    draft = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _write(draft, dataset)
        for folder, _, names in os.walk(draft):
            for name in (*names, "."):
                _sync(Path(folder, name))
        os.rename(draft, path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def add_scores(path: str | Path, name: str, values: Sequence[np.ndarray]) -> None:
    """Add, or replace, the column `score.NAME`: one array `(T,)` an episode.

    Whatever happens in between, `read_dataset` finds the dataset with these scores or without
    (LeRobot opens one that was cut off between two files once they are added again).
    Raises `UserError`, with nothing changed, for a name, a number or a length that does not fit.
    """
    path, column = Path(path), f"score.{name}"
    if not NAME.fullmatch(name):
        raise UserError(f"score name {name!r}: use letters, digits, '_', '-' and '.'")
    info = read_info(path)
    _, told = read_rows(path, info)
    lengths = [row["length"] for row in told]
    if [len(value) for value in values] != lengths:
        raise UserError(f"scores {name!r}: give one number for each frame of {path}")
    scores = np.concatenate(values).astype(np.float32)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise UserError(f"scores {name!r}: give one finite number a frame")
    with blaming(path):
        parts = np.split(scores[:, None], np.cumsum(lengths)[:-1])
        stats = json.loads((path / "meta" / "stats.json").read_bytes())
        stats[column] = plain(merge_stats([rows_stats(part) for part in parts]))
        info["features"] |= features_of({column: scores})
        writers: dict[Path, Callable[[Path], None]] = {}
        start = 0
        for file in data_files(path):
            table = pq.read_table(file, partitioning=None)
            table = table.drop_columns([column] if column in table.column_names else [])
            part = scores[start : start + len(table)]
            start += len(table)
            writers[file] = partial(_write_table, table.append_column(column, pa.array(part)))
        writers[path / "meta" / "stats.json"] = partial(_write_json, stats)
        writers[path / "meta" / "info.json"] = partial(_write_json, info)  # last: it declares it
        _replace(writers)


def _replace(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write all files anew beside themselves, and only then put them in place, one by one."""
    drafts = {file: file.with_name(f".{file.name}.part") for file in writers}
    try:
        for file, write in writers.items():
            write(drafts[file])
            _sync(drafts[file])
        for file, draft in drafts.items():
            os.replace(draft, file)
            _sync(file.parent)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _check(dataset: Dataset) -> None:
    info, episodes = dataset.info, dataset.episodes
    if not episodes:
        raise UserError("a dataset needs an episode at least")
    for name in (*info.cameras, *episodes[0].scores):
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r} names a column: use letters, digits, '_', '-' and '.'")
    for number, episode in enumerate(episodes):
        if missing := set(info.cameras) - set(episode.images):
            raise UserError(f"episode {number} has no images of camera {sorted(missing)[0]!r}")
        rows = [getattr(episode, name) for name in ("action", "reward", "success", "stage")]
        rows += [episode.progress, *episode.scores.values()]
        rows += [episode.images[camera] for camera in info.cameras]
        if len(episode) < 1 or {len(row) for row in rows} != {len(episode)}:
            raise UserError(f"episode {number}: its columns are of different or no length")
        if _shape(episode, info.cameras) != _shape(episodes[0], info.cameras):
            raise UserError(f"episode {number} has other sizes or scores than episode 0")
        check_finite("the dataset", number, episode, info.proprio_size)


def _shape(episode: Episode, cameras: Sequence[str]) -> tuple:
    """What all episodes of a dataset must have in common."""
    images = [episode.images[camera].shape[1:] for camera in cameras]
    return episode.state.shape[1:], episode.action.shape[1:], images, sorted(episode.scores)


def _write(folder: Path, dataset: Dataset) -> None:
    info, episodes = dataset.info, dataset.episodes
    tasks = list(dict.fromkeys(episode.instruction for episode in episodes))
    columns = frame_columns(dataset, tasks)
    features = features_of(columns, {"action": list(info.action_spec.names)})
    sums = {}
    for camera in info.cameras:
        key = f"{IMAGES}{camera}"
        clips = [episode.images[camera] for episode in episodes]
        name = VIDEO_PATH.format(video_key=key, **FIRST)
        file = _new(folder / name)
        features[key] = {
            "dtype": "video",
            "shape": list(clips[0].shape[1:]),
            "names": ["height", "width", "channels"],
            "info": write_footage(file, clips, info.rate_hz),
        }
        sums[name] = sha256(file)
    told, stats = episode_rows(dataset, columns)
    own = {
        "env": info.env,
        "robot": info.robot,
        "stages": list(info.stages),
        "action_spec": info.action_spec.to_dict(),
        "sha256": sums,
    }
    _write_json(describe(dataset, tasks, features), folder / "meta/info.json")
    _write_json(stats, folder / "meta/stats.json")
    _write_json(own, folder / "meta/embodied.json")
    _write_table(tasks_table(tasks), folder / "meta/tasks.parquet")
    _write_table(pa.Table.from_pylist(told), folder / EPISODES_PATH.format(**FIRST))
    table = pa.table({name: to_arrow(rows) for name, rows in columns.items()})
    _write_table(table, folder / DATA_PATH.format(**FIRST))


def _new(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _write_json(content: Any, file: Path) -> None:
    _new(file).write_text(json.dumps(content, indent=4))


def _write_table(table: pa.Table, file: Path) -> None:
    pq.write_table(table, _new(file), compression="snappy", write_page_checksum=True)


def _sync(path: Path) -> None:
    """Have a file or a folder on the disk, durably."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
