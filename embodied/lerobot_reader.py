"""Reading LeRobotDataset v3 folders: those of `embodied.lerobot`, and those of LeRobot itself."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.errors import UserError, unknown
from embodied.footage import read_footage
from embodied.types import ActionSpec

VERSION = "v3.0"
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{FILE}.parquet"
IMAGES = "observation.images."
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What a camera or a score may be called: it becomes part of a path."""
STATE = ("observation.state", "observation.environment_state")


def read_dataset(path: str | Path, cameras: Sequence[str] | None = None) -> Dataset:
    """The dataset in a folder, with the images of `cameras`: None for all, () for none.

    Reads what LeRobot itself records too; there the source is "recorded", nobody names stages,
    and a camera that is not under `observation.images.` keeps its whole name. Raises `UserError`
    that names the file, episode, frame or column which is missing, damaged or not finite.
    """
    path = Path(path)
    info = read_info(path)
    with blaming(path / "meta"):
        keys = {
            name.removeprefix(IMAGES): name
            for name, feature in info["features"].items()
            if feature["dtype"] == "video"
        }
        if not all(map(NAME.fullmatch, keys.values())):
            raise ValueError(f"cameras {sorted(keys.values())}")
        own = _own(path)
        shared = _shared(info, own)
    wanted = tuple(keys) if cameras is None else tuple(cameras)
    for camera in wanted:
        if camera not in keys:
            raise (
                unknown(f"camera of {path}", camera, keys)
                if keys
                else UserError(f"{path} has no images, and camera {camera!r} is asked for")
            )
    rows, told = read_rows(path, info)
    with blaming(path / "data"):
        columns = _columns(rows, info)
        episodes = _episodes(path, columns, told, _tasks(path))
    for number, episode in enumerate(episodes):
        check_finite(path, number, episode, shared.proprio_size)
    for camera in wanted:
        with blaming(path / "videos" / keys[camera]):
            _show(path, camera, keys[camera], episodes, told, shared.rate_hz, own)
    return Dataset(replace(shared, cameras=wanted), episodes)


def read_info(path: Path) -> dict[str, Any]:
    """`meta/info.json`, of a dataset of this version."""
    file = path / "meta" / "info.json"
    if not file.is_file():
        raise UserError(f"{path} is no dataset: it has no meta/info.json")
    with blaming(file):
        info = json.loads(file.read_bytes())
        version = str(info["codebase_version"])
        if not version.startswith("v3."):
            raise UserError(f"{path} is a LeRobotDataset {version}: {VERSION} is read (convert it)")
        if (info["data_path"], info["video_path"]) not in (
            (DATA_PATH, VIDEO_PATH),
            (DATA_PATH, None),
        ):
            raise UserError(f"{file}: its files are not laid out as those of {VERSION}")
        if not (0 < info["fps"] < math.inf and isinstance(info["features"], dict)):
            raise ValueError(f"fps {info['fps']}")
        return dict(info)


def read_rows(path: Path, info: Mapping[str, Any]) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The frames of all episodes and the rows of `meta/episodes`.

    Raises `UserError` unless these and `meta/info.json` agree on which frames there are.
    """
    with blaming(path):
        table = _table(path, sorted((path / "meta" / "episodes").glob("chunk-*/file-*.parquet")))
        table = table.select([name for name in table.column_names if not name.startswith("stats/")])
        told, rows = table.to_pylist(), _table(path, data_files(path))
        owner = rows["episode_index"].to_numpy()
        found = np.bincount(owner, minlength=len(told))
        ends = [(row["dataset_from_index"], row["dataset_to_index"]) for row in told]
        for number, (row, end) in enumerate(zip(told, ends, strict=True)):
            if row["length"] != found[number] or row["length"] < 1:
                says = f"{found[number]} frames in data, {row['length']} in meta/episodes"
                raise UserError(f"{path} is incomplete: episode {number} has {says}")
            start = ends[number - 1][1] if number else 0
            if end != (start, start + row["length"]):
                raise UserError(f"{path}: meta/episodes tells episode {number} to be at {end}")
        for name, count in (("episodes", len(told)), ("frames", len(rows))):
            if info[f"total_{name}"] != count:
                says = f"{count} {name}, {info[f'total_{name}']} in meta/info.json"
                raise UserError(f"{path} is incomplete: it has {says}")
        if (owner != np.repeat(np.arange(len(told)), found)).any():
            raise UserError(f"{path}: the frames of its episodes are mixed up")
    return rows, told


def check_finite(where: Path | str, number: int, episode: Episode, proprio_size: int) -> None:
    """Raise `UserError` for the first number of state or action that is not finite."""
    for key, rows in (("state", episode.state), ("action", episode.action)):
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            frame, column = (int(i) for i in bad[0])
            name = f"{key}[{column}]"
            if key == "state":
                rest = column - proprio_size
                name = f"{STATE[0]}[{column}]" if rest < 0 else f"{STATE[1]}[{rest}]"
            value = rows[frame, column]
            raise UserError(
                f"{where}: episode {number}, frame {frame}: {name} is {value}: leave it out"
            )


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn whatever reading `path` raises into one line about it."""
    try:
        yield
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{path}: {why or f'damaged ({str(error)[:80]!r})'}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError,
            pa.ArrowException) as error:  # fmt: skip
        raise UserError(f"{path}: damaged or foreign ({str(error)[:80]!r})") from error


def data_files(path: Path) -> list[Path]:
    """The parquet files of the frames, in their order."""
    return sorted((path / "data").glob("chunk-*/file-*.parquet"))


def _table(path: Path, files: list[Path]) -> pa.Table:
    if not files:
        raise UserError(f"{path} is incomplete: it has no parquet file of its frames or episodes")
    tables = []
    for file in files:
        with blaming(file):
            tables.append(pq.read_table(file, partitioning=None, page_checksum_verification=True))
    return pa.concat_tables(tables)


def _columns(rows: pa.Table, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every declared column as an array `(frames,)` or `(frames, D)`."""
    columns = {}
    for name, feature in info["features"].items():
        if feature["dtype"] in ("video", "image", "string"):
            continue
        if name not in rows.column_names:
            raise UserError(f"column {name!r} is declared in meta/info.json and not in data")
        column = rows[name].combine_chunks()
        if pa.types.is_nested(column.type):
            column = column.flatten()
        values = column.to_numpy(zero_copy_only=False).astype(feature["dtype"])
        columns[name] = values.reshape(len(rows), -1) if values.size != len(rows) else values
    return columns


def _episodes(
    path: Path, columns: Mapping[str, np.ndarray], told: list[dict], tasks: Mapping[int, str]
) -> list[Episode]:
    count = len(columns["index"])

    def flat(name: str, dtype: type, default: float) -> np.ndarray:
        return columns[name].astype(dtype) if name in columns else np.full(count, default, dtype)

    def wide(names: Sequence[str]) -> np.ndarray:
        parts = [columns[name].reshape(count, -1) for name in names if name in columns]
        if not parts:
            raise UserError(f"{path} has no {' and no '.join(names)}")
        return np.concatenate(parts, axis=1).astype(np.float32)

    state, action = wide(STATE), wide(("action",))
    scores = {name: value for name, value in columns.items() if name.startswith("score.")}
    rows: dict[str, Any] = {
        "reward": flat("next.reward", np.float32, 0.0),
        "success": flat("success", np.bool_, False),
        "stage": flat("stage", np.int64, -1),
        "progress": flat("truth.progress", np.float32, np.nan),
    }
    if "success" not in columns and "next.success" in columns:
        rows["success"] = np.concatenate([[False], columns["next.success"][:-1].astype(bool)])
        rows["success"] &= columns["frame_index"] > 0
    episodes = []
    for number, row in enumerate(told):
        here = slice(row["dataset_from_index"], row["dataset_to_index"])
        episodes.append(
            Episode(
                instruction=tasks[int(columns["task_index"][here][0])],
                source=row.get("source") or "recorded",
                seed=number if row.get("seed") is None else row["seed"],
                state=state[here],
                action=action[here],
                **{name: value[here] for name, value in rows.items()},
                scores={k.removeprefix("score."): v[here] for k, v in scores.items()},
            )
        )
    return episodes


def _tasks(path: Path) -> dict[int, str]:
    """The instructions by `task_index`: whichever column of the file is text holds them."""
    file = path / "meta" / "tasks.parquet"
    with blaming(file):
        table = pq.read_table(file)
        texts = [
            name
            for name in table.column_names
            if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
        ]
        pairs = zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True)
        return dict(pairs)


def _show(
    path: Path, camera: str, key: str, episodes: list[Episode], told: list[dict], rate_hz: float,
    own: Mapping[str, Any],
) -> None:  # fmt: skip
    """Give the episodes their images of one camera, each video file decoded once."""
    files: dict[str, list[int]] = {}
    for number, row in enumerate(told):
        place = {k: int(row[f"videos/{key}/{k}"]) for k in ("chunk_index", "file_index")}
        files.setdefault(VIDEO_PATH.format(video_key=key, **place), []).append(number)
    for name, numbers in files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file}: no such file, and it should show {len(numbers)} episodes")
        firsts = [round(told[n][f"videos/{key}/from_timestamp"] * rate_hz) for n in numbers]
        lasts = [first + len(episodes[n]) for first, n in zip(firsts, numbers, strict=True)]
        images, problem = read_footage(file, max(lasts))
        for number, first, last in zip(numbers, firsts, lasts, strict=True):
            shown = images[first:last]
            if len(shown) != last - first:
                why = f" ({problem})" if problem else ""
                raise UserError(
                    f"{file}: camera {camera} of episode {number} has {len(shown)} frames, it "
                    f"should have {last - first}: the video is damaged{why}"
                )
            episodes[number].images[camera] = shown
        if own and own["sha256"][name] != sha256(file):
            raise UserError(f"{file}: the video is damaged: its bytes are not those written")


def sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _own(path: Path) -> dict[str, Any]:
    """What only datasets of ours tell; empty for those of LeRobot."""
    file = path / "meta" / "embodied.json"
    if not file.exists():
        return {}
    with blaming(file):
        own = json.loads(file.read_bytes())
        return {key: own[key] for key in ("env", "robot", "stages", "action_spec", "sha256")}


def _shared(info: Mapping[str, Any], own: Mapping[str, Any]) -> DatasetInfo:
    features, rate_hz = info["features"], float(info["fps"])
    proprio = math.prod(features[STATE[0]]["shape"]) if STATE[0] in features else 0
    size = math.prod(features["action"]["shape"])
    if own:
        spec = ActionSpec.from_dict(own["action_spec"])
        if spec.size != size:
            raise ValueError("embodied.json: action_spec is of another size than the actions")
        stages = tuple(map(str, own["stages"]))
        return DatasetInfo(str(own["env"]), rate_hz, spec, proprio, stages, (), str(own["robot"]))
    spec = ActionSpec(
        names=tuple(f"action_{i}" for i in range(size)),
        units=("",) * size,
        low=np.full(size, -np.inf, np.float32),
        high=np.full(size, np.inf, np.float32),
        kind="recorded",
        rate_hz=rate_hz,
    )
    return DatasetInfo("", rate_hz, spec, proprio, robot=info.get("robot_type") or "")
