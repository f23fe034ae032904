"""Run by `lerobot_opens` in LeRobot's own environment: what LeRobot makes of a dataset of ours.

    python lerobot_check.py OURS EXPECTED THEIRS

OURS is the folder, EXPECTED an .npz of what it should hold, THEIRS the folder that LeRobot records
a dataset to. The findings are one JSON object on the last line. Imports nothing of ours.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import numpy as np
import torch
from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import dataset_to_policy_features

IMAGES = "observation.images."


def main(ours: str, expected: str, theirs: str) -> None:
    torch.set_num_threads(1)
    with np.load(expected) as file:
        want = dict(file)
    dataset = open_dataset(ours)
    ends = np.cumsum(want["lengths"])
    packages = ("lerobot", "torch", "torchvision", "av", "datasets")
    policy = dataset_to_policy_features(dataset.features)
    found: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "features": {name: feature.type.name for name, feature in policy.items()},
        "columns": columns(dataset, want),
        "tasks_equal": tasks(dataset) == want["tasks"].tolist(),
        "statistics": statistics(dataset, want, ends),
        "images": images(dataset, want),
        "windows": windows(ours, want, ends),
        "episodes_alone": alone(ours, want, ends),
    }
    record(theirs, want)
    print(json.dumps(found))


def open_dataset(path: str, **more: Any) -> LeRobotDataset:
    return LeRobotDataset("embodied/check", root=path, video_backend="pyav", **more)


def columns(dataset: LeRobotDataset, want: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of each column, and every declared one is looked at."""
    rows = dataset.hf_dataset.with_format("numpy")[:]
    names = [name for name, one in dataset.features.items() if one["dtype"] != "video"]
    return {name: difference(rows[name], want[name]) for name in names}


def tasks(dataset: LeRobotDataset) -> list[str]:
    names = [row.name for _, row in dataset.meta.tasks.sort_values("task_index").iterrows()]
    return [names[i] for i in dataset.hf_dataset.with_format("numpy")["task_index"][:]]


def statistics(
    dataset: LeRobotDataset, want: dict[str, np.ndarray], ends: np.ndarray
) -> dict[str, float]:
    """Ours against those of LeRobot's own code, in ranges of the column; the largest difference."""
    worst: dict[str, float] = {}
    for name, mine in dataset.meta.stats.items():
        shown = name.startswith(IMAGES)
        parts = np.split(want["raw." + name if shown else name], ends[:-1])
        theirs = aggregate_stats([{name: part_stats(part, shown)} for part in parts])[name]
        low, high = (np.asarray(theirs[key], float) for key in ("min", "max"))
        width = np.maximum(high - low, 1e-6)
        for key in theirs:
            if shown and key == "std":
                continue  # LeRobot squares bytes there, and they overflow
            error = np.abs(np.asarray(mine[key], float) - np.asarray(theirs[key], float)) / width
            worst[key] = max(worst.get(key, 0.0), float(error.max()))
    return worst


def part_stats(part: np.ndarray, shown: bool) -> dict[str, np.ndarray]:
    """What `compute_episode_stats` does to one feature of one episode."""
    if not shown:
        return get_feature_stats(part, axis=0, keepdims=part.ndim == 1)
    count = min(len(part), max(100, int(len(part) ** 0.75)))
    part = part[np.round(np.linspace(0, len(part) - 1, count)).astype(int)]
    stats = get_feature_stats(part.transpose(0, 3, 1, 2), axis=(0, 2, 3), keepdims=True)
    return {k: v if k == "count" else np.squeeze(v / 255.0, axis=0) for k, v in stats.items()}


def images(dataset: LeRobotDataset, want: dict[str, np.ndarray]) -> dict[str, float]:
    """Some frames as LeRobot decodes them, 0 to 255, against ours decoded and as rendered."""
    rng = np.random.default_rng(0)
    decoded, rendered, count = 0.0, [], 0
    for index in rng.permutation(len(dataset))[:60]:
        item = dataset[int(index)]
        for key in dataset.meta.video_keys:
            image = item[key].numpy().transpose(1, 2, 0) * 255.0
            decoded = max(decoded, difference(image, want[key][index]))
            rendered.append(np.abs(image - want["raw." + key][index]).mean())
            count += 1
    return {
        "compared": count,
        "largest_difference_to_ours": decoded,
        "mean_difference_to_rendered": float(np.mean(rendered)),
    }


def windows(path: str, want: dict[str, np.ndarray], ends: np.ndarray) -> dict[str, float]:
    """A shuffled `DataLoader` over all frames, with actions to come and images that went before."""
    fps = open_dataset(path).fps
    key = next(name for name in want if name.startswith(IMAGES))
    ahead, back = [0, 1, 2, 3], [-2, 0]
    steps = {"action": ahead, "observation.state": [0], key: back}
    times = {name: [k / fps for k in ks] for name, ks in steps.items()}
    dataset = open_dataset(path, delta_timestamps=times)
    loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True, num_workers=0)
    starts = ends - want["lengths"]
    frames, actions, pixels, padded = 0, 0.0, 0.0, True
    for batch in loader:
        for row, index in enumerate(batch["index"].tolist()):
            episode = int(np.searchsorted(ends, index, side="right"))
            rows = np.array([index + k for k in ahead])
            inside = np.clip(rows, starts[episode], ends[episode] - 1)
            actions = max(actions, difference(batch["action"][row], want["action"][inside]))
            padded &= (batch["action_is_pad"][row].numpy() == (rows != inside)).all()
            if frames % 10 == 0:
                seen = np.clip([index + k for k in back], starts[episode], ends[episode] - 1)
                image = batch[key][row].numpy().transpose(0, 2, 3, 1) * 255.0
                pixels = max(pixels, difference(image, want[key][seen]))
            frames += 1
    return {
        "frames": frames,
        "largest_action_difference": actions,
        "largest_pixel_difference": pixels,
        "padding_right": float(padded),
    }


def alone(path: str, want: dict[str, np.ndarray], ends: np.ndarray) -> float:
    """The largest difference where only two of the episodes are loaded."""
    picked = [1, len(ends) - 1]
    dataset = open_dataset(path, episodes=picked)
    rows = np.concatenate([np.arange(ends[k] - want["lengths"][k], ends[k]) for k in picked])
    states = np.stack([dataset[i]["observation.state"].numpy() for i in (0, len(rows) - 1)])
    assert len(dataset) == len(rows)
    return difference(states, want["observation.state"][rows[[0, -1]]])


def record(path: str, want: dict[str, np.ndarray]) -> None:
    """Have LeRobot itself record the first two episodes."""
    key = next(name for name in want if name.startswith(IMAGES))
    size = {name: want[name].shape[1] for name in ("observation.state", "action")}
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": (n,), "names": [f"{name}_{i}" for i in range(n)]}
        for name, n in size.items()
    }
    features["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
    features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    shape = want[key].shape[1:]
    names = ["height", "width", "channels"]
    features[key] = {"dtype": "video", "shape": shape, "names": names}
    dataset = LeRobotDataset.create(
        "embodied/theirs", fps=20, features=features, root=path, robot_type="panda", vcodec="h264"
    )
    start = 0
    for length in want["lengths"][:2]:
        for row in range(start, start + length):
            frame = {name: want[name][row] for name in ("observation.state", "action")}
            frame |= {name: want[name][row : row + 1] for name in ("next.reward", "next.success")}
            dataset.add_frame({**frame, key: want["raw." + key][row], "task": want["tasks"][row]})
        dataset.save_episode()
        start += length
    dataset.finalize()


def difference(one: Any, other: Any) -> float:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert one.shape == other.shape, (one.shape, other.shape)
    both_nan = np.isnan(one) & np.isnan(other)
    return float(np.where(both_nan, 0.0, np.abs(one - other)).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
