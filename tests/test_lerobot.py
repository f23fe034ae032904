"""Datasets on disk: what is written is read back, and whatever is damaged is named in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied import lerobot
from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.errors import UserError
from embodied.lerobot import add_scores, read_dataset, write_dataset
from embodied.lerobot_stats import QUANTILES, image_stats, merge_stats, rows_stats
from embodied.types import ActionSpec

LENGTHS = (5, 3, 8)
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"


def spec(size: int) -> ActionSpec:
    names = tuple(f"joint_{i}" for i in range(size))
    low, high = np.full(size, -0.5, np.float32), np.full(size, 2.0, np.float32)
    return ActionSpec(names, ("rad",) * size, low, high, "joint_delta", 20.0)


def scene(rng: np.random.Generator, length: int, size: int = 32) -> np.ndarray:
    """Smooth pictures `(T, size, size, 3)` of a bright square that wanders over a ramp."""
    ramp = np.linspace(20, 120, size)[:, None, None] * np.ones((size, size, 3))
    images = np.repeat(ramp[None], length, axis=0)
    for t, (x, y) in enumerate(np.argwhere(np.ones((12, 12)))[rng.permutation(144)[:length]] * 2):
        images[t, y : y + 8, x : x + 8] = 200.0
    return images.astype(np.uint8)


def dataset(
    lengths: tuple[int, ...] = LENGTHS, actions: int = 3, cameras: tuple[str, ...] = ("front",)
) -> Dataset:
    rng = np.random.default_rng(0)
    episodes = []
    for number, length in enumerate(lengths):
        success = np.arange(length) >= length - 2
        episodes.append(
            Episode(
                instruction=("lift the cube", "push the cube")[number % 2],
                source=("expert", "expert:drops")[number % 2],
                seed=40 + number,
                state=rng.normal(size=(length, 4)).astype(np.float32),
                action=rng.normal(size=(length, actions)).astype(np.float32),
                reward=rng.normal(size=length).astype(np.float32),
                success=success,
                stage=np.minimum(np.arange(length), 2),
                progress=np.linspace(0, 1, length, dtype=np.float32),
                images={camera: scene(rng, length) for camera in cameras},
                scores={"judge": rng.random(length).astype(np.float32)},
            )
        )
    stages = ("reach", "grasp", "lift")
    info = DatasetInfo("pick_cube", 20.0, spec(actions), 3, stages, cameras, "panda")
    return Dataset(info, episodes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "cubes", dataset())
    return tmp_path / "cubes"


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def edit_column(file: Path, name: str, change: Callable[[list], list | None]) -> None:
    table = pq.read_table(file)
    values = table[name].to_pylist()
    values = change(values) or values
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, pa.array(values, table[name].type)), file)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize(("actions", "proprio"), [(3, 3), (1, 4), (2, 0), (1, 1)])
def test_what_is_written_is_read(tmp_path: Path, actions: int, proprio: int) -> None:
    wanted = dataset(actions=actions, cameras=("front", "wrist"))
    wanted.info = replace(wanted.info, proprio_size=proprio)
    write_dataset(tmp_path / "new" / "cubes", wanted)
    found = read_dataset(tmp_path / "new" / "cubes")
    assert found.info.action_spec.to_dict() == wanted.info.action_spec.to_dict()
    plain = {"action_spec": spec(1)}
    assert replace(found.info, **plain) == replace(wanted.info, **plain)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found.episodes, wanted.episodes, strict=True):
        for name in ("instruction", "source", "seed"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in ("state", "action", "reward", "success", "stage", "progress"):
            value, want = getattr(ours, name), getattr(theirs, name)
            np.testing.assert_array_equal(value, want)
            assert value.dtype == want.dtype
        np.testing.assert_array_equal(ours.scores["judge"], theirs.scores["judge"])
        for camera in ("front", "wrist"):
            error = ours.images[camera].astype(float) - theirs.images[camera]
            assert ours.images[camera].shape == theirs.images[camera].shape
            assert np.abs(error).mean() < 3.0


def test_the_columns_are_those_of_lerobot(folder: Path) -> None:
    rows = pq.read_table(folder / DATA).to_pydict()
    info = json.loads((folder / "meta/info.json").read_text())
    assert set(rows) == set(info["features"]) - {"observation.images.front"}
    assert rows["episode_index"] == [0] * 5 + [1] * 3 + [2] * 8
    assert rows["frame_index"] == [*range(5), *range(3), *range(8)]
    assert rows["index"] == list(range(16))
    assert rows["task_index"] == [0] * 5 + [1] * 3 + [0] * 8
    assert rows["timestamp"][5:8] == pytest.approx([0.0, 0.05, 0.1])
    where = {name: [i for i, true in enumerate(rows[name]) if true] for name in rows}
    assert where["next.done"] == [4, 7, 15]
    assert where["success"] == [3, 4, 6, 7, 14, 15]
    assert where["next.success"] == [2, 3, 4, 5, 6, 7, 13, 14, 15]
    assert len(rows["observation.state"][0]) == 3 and isinstance(rows["next.reward"][0], float)
    assert (info["codebase_version"], info["fps"], info["total_tasks"]) == ("v3.0", 20, 2)
    assert info["features"]["action"] == {
        "dtype": "float32", "shape": [3], "names": ["joint_0", "joint_1", "joint_2"]
    }  # fmt: skip
    told = pq.read_table(folder / EPISODES).to_pydict()
    assert told["dataset_from_index"] == [0, 5, 8] and told["dataset_to_index"] == [5, 8, 16]
    starts = told["videos/observation.images.front/from_timestamp"]
    assert starts == pytest.approx([0.0, 0.25, 0.4])
    assert told["tasks"] == [["lift the cube"], ["push the cube"], ["lift the cube"]]
    assert np.shape(told["stats/observation.images.front/mean"]) == (3, 3, 1, 1)


def test_progress_that_nobody_knows_makes_no_column(tmp_path: Path) -> None:
    unknown = dataset(cameras=())
    for episode in unknown.episodes:
        episode.progress[:] = np.nan
    write_dataset(tmp_path / "a", unknown)
    assert "truth.progress" not in pq.read_table(tmp_path / "a" / DATA).column_names
    assert np.isnan(read_dataset(tmp_path / "a").episodes[1].progress).all()
    unknown.episodes[0].progress[:] = 0.5
    write_dataset(tmp_path / "b", unknown)
    found = read_dataset(tmp_path / "b").episodes
    assert (found[0].progress == 0.5).all() and np.isnan(found[1].progress).all()
    assert "truth.progress" not in json.loads((tmp_path / "b/meta/stats.json").read_text())


@pytest.mark.parametrize("rate_hz", [20.0, 12.5, 1 / 0.015])
def test_frames_of_an_episode_are_its_own_in_a_video_shared_by_all(
    tmp_path: Path, rate_hz: float
) -> None:
    data = dataset()
    data.info = replace(data.info, rate_hz=rate_hz)
    write_dataset(tmp_path / "cubes", data)
    with av.open(str(tmp_path / "cubes" / VIDEO)) as file:
        stream = file.streams.video[0]
        times = [frame.time for frame in file.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv444p")
    assert times == pytest.approx([i / rate_hz for i in range(16)], abs=1e-4)
    found = read_dataset(tmp_path / "cubes")
    assert found.info.rate_hz == rate_hz
    for ours, theirs in zip(found.episodes, data.episodes, strict=True):
        error = ours.images["front"][:, None].astype(float) - theirs.images["front"][None]
        nearest = np.abs(error).mean(axis=(2, 3, 4)).argmin(axis=1)
        assert (nearest == np.arange(len(ours))).all()


def test_cameras_are_read_on_demand(folder: Path) -> None:
    (folder / VIDEO).unlink()
    found = read_dataset(folder, cameras=())
    assert found.info.cameras == () and found.episodes[0].images == {}
    with pytest.raises(UserError, match=r"file-000.mp4: no such file"):
        read_dataset(folder)
    with pytest.raises(UserError, match=r"camera .* 'frnt': did you mean front\?"):
        read_dataset(folder, cameras=("frnt",))


def test_a_dataset_says_what_a_reward_model_would_lack(folder: Path) -> None:
    found = read_dataset(folder, cameras=())
    with pytest.raises(UserError, match="sees camera 'front'"):
        found.need_cameras(["front"])


def test_statistics_by_hand() -> None:
    stats = rows_stats(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [6.0, 5.0]], np.float32))
    assert stats["mean"].tolist() == [3.0, 5.0] and stats["std"][0] == pytest.approx(3.5**0.5)
    assert (stats["min"].tolist(), stats["max"].tolist()) == ([1.0, 5.0], [6.0, 5.0])
    assert [stats[q][0] for q in QUANTILES] == [1.0, 1.0, 2.0, 6.0, 6.0]
    both = merge_stats([rows_stats(np.array([[0.0], [2.0]])), rows_stats(np.array([[4.0]] * 2))])
    assert (both["mean"][0], both["count"][0]) == (2.5, 4)
    assert both["std"][0] == pytest.approx(np.std([0.0, 2.0, 4.0, 4.0]))
    black_and_white = np.zeros((2, 4, 4, 3), np.uint8)
    black_and_white[1] = 255
    shades = image_stats(black_and_white)
    assert shades["mean"].shape == (3, 1, 1) and shades["count"].tolist() == [2]
    assert shades["mean"][0] == 0.5 and shades["std"][0] == 0.5
    assert [shades[q][2, 0, 0] for q in QUANTILES] == [0.0, 0.0, 0.0, 1.0, 1.0]


@given(st.lists(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=9), min_size=1))
def test_merged_statistics_are_those_of_all_rows(parts: list[list[float]]) -> None:
    merged = merge_stats([rows_stats(np.array(part)[:, None]) for part in parts])
    whole = rows_stats(np.concatenate([np.array(part) for part in parts])[:, None])
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name], atol=1e-6)


def test_scores_are_added_and_replaced(folder: Path) -> None:
    before = contents(folder)
    for scale in (1.0, 2.0):
        add_scores(folder, "roboreward", [np.arange(n) * scale for n in LENGTHS])
        found = read_dataset(folder, cameras=())
        for episode in found.episodes:
            np.testing.assert_array_equal(
                episode.scores["roboreward"], np.arange(len(episode)) * scale
            )
            assert "judge" in episode.scores
    stats = json.loads((folder / "meta/stats.json").read_text())
    assert stats["score.roboreward"]["max"] == [14.0]
    after = contents(folder)
    assert set(after) == set(before)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {DATA, "meta/stats.json", "meta/info.json"}


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("a/b", [np.zeros(n) for n in LENGTHS], "use letters"),
        ("judge", [np.zeros(n) for n in LENGTHS[:2]], "one number for each frame"),
        ("judge", [np.zeros(n + 1) for n in LENGTHS], "one number for each frame"),
        ("judge", [np.full(n, np.nan) for n in LENGTHS], "one finite number"),
        ("judge", [np.zeros((n, 2)) for n in LENGTHS], "one finite number"),
    ],
)
def test_scores_that_do_not_fit_change_nothing(
    folder: Path, name: str, values: list[np.ndarray], line: str
) -> None:
    before = contents(folder)
    with pytest.raises(UserError, match=line):
        add_scores(folder, name, values)
    assert contents(folder) == before


@pytest.mark.parametrize("survive", range(4))
def test_a_crash_while_adding_scores_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, survive: int
) -> None:
    """The disk fails at the `survive`-th file put in place."""
    calls = iter(range(4))
    place = os.replace

    def failing(source: Path, target: Path) -> None:
        if next(calls) == survive:
            raise OSError(28, "No space left on device")
        place(source, target)

    monkeypatch.setattr(lerobot.os, "replace", failing)
    values = [np.ones(n) for n in LENGTHS]
    if survive < 3:
        with pytest.raises(UserError, match="No space left"):
            add_scores(folder, "late", values)
    else:
        add_scores(folder, "late", values)
    monkeypatch.undo()
    found = read_dataset(folder)
    assert ("late" in found.episodes[0].scores) == (survive == 3)
    np.testing.assert_array_equal(found.episodes[2].state, dataset().episodes[2].state)
    assert not [file for file in folder.rglob("*.part")]
    add_scores(folder, "late", values)
    assert read_dataset(folder, ()).episodes[1].scores["late"].tolist() == [1.0] * 3


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lerobot, "tasks_table", full)
    with pytest.raises(UserError, match="cannot write .*: No space left"):
        write_dataset(tmp_path / "cubes", dataset())
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_never_written_to(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(UserError, match="exists: choose another"):
        write_dataset(folder, dataset(lengths=(2,)))
    assert contents(folder) == before


def spoil(name: str, value: Any) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        setattr(data.episodes[1], name, value)

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (spoil("action", np.full((3, 3), np.inf)), r"episode 1, frame 0: action\[0\] is inf"),
        (spoil("state", np.array([[0.0] * 4, [0.0] * 3 + [np.nan], [0.0] * 4])),
         r"episode 1, frame 1: observation.environment_state\[0\] is nan"),
        (spoil("reward", np.zeros(4)), "episode 1: its columns are of different"),
        (spoil("scores", {}), "episode 1 has other sizes or scores"),
        (spoil("images", {}), "episode 1 has no images of camera 'front'"),
        (spoil("images", {"front": np.zeros((3, 30, 30, 3), np.uint8)}), "other sizes"),
        (lambda data: data.episodes.clear(), "needs an episode"),
    ],
)  # fmt: skip
def test_episodes_that_cannot_be_written(
    tmp_path: Path, change: Callable[[Dataset], None], line: str
) -> None:
    data = dataset()
    change(data)
    with pytest.raises(UserError, match=line):
        write_dataset(tmp_path / "cubes", data)
    assert list(tmp_path.iterdir()) == []


def test_a_video_needs_even_sizes(tmp_path: Path) -> None:
    data = dataset(lengths=(2,))
    data.episodes[0].images["front"] = np.zeros((2, 31, 32, 3), np.uint8)
    with pytest.raises(UserError, match="31x32: a video needs even sizes"):
        write_dataset(tmp_path / "cubes", data)
    assert list(tmp_path.iterdir()) == []


def put_nan(values: list) -> None:
    values[6][1] = float("nan")


def cut_rows(file: Path, rows: int) -> None:
    pq.write_table(pq.read_table(file).slice(0, rows), file)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "meta/info.json").unlink(), "is no dataset: it has no meta/info.json"),
        (lambda f: (f / "meta/info.json").write_text("{"), "info.json: damaged or foreign"),
        (lambda f: edit(f / "meta/info.json", lambda i: i.update(codebase_version="v2.1")),
         "is a LeRobotDataset v2.1: v3.0 is read"),
        (lambda f: edit(f / "meta/info.json", lambda i: i.update(data_path="/etc/{x}")),
         "not laid out"),
        (lambda f: edit(f / "meta/info.json", lambda i: i["features"].update(
            {"observation.images./../x": {"dtype": "video"}})), "damaged or foreign"),
        (lambda f: edit(f / "meta/info.json", lambda i: i.update(total_frames=17)),
         "16 frames, 17 in meta/info.json"),
        (lambda f: (f / "meta/tasks.parquet").unlink(), "tasks.parquet: no such file"),
        (lambda f: (f / DATA).unlink(), "no parquet file"),
        (lambda f: (f / DATA).write_bytes((f / DATA).read_bytes()[:-40]),
         "file-000.parquet: damaged or foreign"),
        (lambda f: cut_rows(f / DATA, 12), "episode 2 has 4 frames in data, 8 in meta/episodes"),
        (lambda f: cut_rows(f / EPISODES, 2), "it has 2 episodes, 3 in meta/info.json"),
        (lambda f: edit_column(f / DATA, "observation.state", put_nan),
         r"episode 1, frame 1: observation.state\[1\] is nan"),
        (lambda f: edit_column(f / DATA, "episode_index", lambda v: v[1:] + v[:1]), "are mixed up"),
        (lambda f: (f / "meta/embodied.json").write_text("[]"), "embodied.json: damaged"),
        (lambda f: edit(f / "meta/embodied.json", lambda own: own.update(sha256={VIDEO: "0"})),
         "the video is damaged: its bytes are not those written"),
        (lambda f: (f / VIDEO).write_bytes(b"not a video at all" * 99),
         "camera front of episode 0 has 0 frames, it should have 5"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line(
    folder: Path, damage: Callable[[Path], object], line: str
) -> None:
    damage(folder)
    before = contents(folder)
    with pytest.raises(UserError, match=line) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


def test_a_truncated_video_names_the_first_episode_that_it_lacks(folder: Path) -> None:
    whole = (folder / VIDEO).read_bytes()
    lacking = set()
    for share in (0.5, 0.7, 0.9, 0.99):
        (folder / VIDEO).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError) as caught:
            read_dataset(folder)
        found = re.search(r"camera front of episode (\d) has (\d) frames, it should have (\d)",
                          str(caught.value))  # fmt: skip
        assert found and int(found[2]) < int(found[3]) == LENGTHS[int(found[1])]
        lacking.add(found[1])
    assert len(lacking) > 1


@pytest.mark.parametrize("name", [VIDEO, DATA])
def test_an_overwritten_byte_is_noticed(folder: Path, name: str) -> None:
    whole = bytearray((folder / name).read_bytes())
    whole[len(whole) // 2 if name == VIDEO else 40] ^= 255
    (folder / name).write_bytes(whole)
    with pytest.raises(UserError, match="damaged"):
        read_dataset(folder)


def test_a_dataset_without_our_own_file_is_read(folder: Path) -> None:
    """As LeRobot records it: no stages, no sources, success only of what follows an action."""
    (folder / "meta/embodied.json").unlink()
    ours = ("success", "stage", "truth.progress", "score.judge")
    pq.write_table(pq.read_table(folder / DATA).drop_columns(ours), folder / DATA)
    told = pq.read_table(folder / EPISODES)
    pq.write_table(told.drop_columns(["source", "seed"]), folder / EPISODES)
    edit(folder / "meta/info.json", lambda info: [info["features"].pop(name) for name in ours][:0])
    found = read_dataset(folder)
    assert found.info.proprio_size == 3 and found.info.action_spec.size == 3
    for number, (episode, want) in enumerate(zip(found.episodes, dataset().episodes, strict=True)):
        assert (episode.source, episode.seed) == ("recorded", number)
        np.testing.assert_array_equal(episode.success, want.success)
        np.testing.assert_array_equal(episode.action, want.action)
        assert (episode.stage == -1).all() and np.isnan(episode.progress).all()
    shutil.rmtree(folder)
