"""Does LeRobot itself open, index, decode and batch our datasets, and do we read what it records?

    python -m benchmarks.lerobot_opens [--quick]

LeRobot 0.4.4 is installed unchanged, with all that it asks for (8 GB), into a virtual environment
that is deleted afterwards; `LEROBOT_PYTHON=.../bin/python` takes one that has it already. There
`lerobot_check.py` compares every column, the statistics, decoded frames and batches with ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import parse_args, write_result
from embodied.build import make_env
from embodied.config import compose_config
from embodied.dataset import Dataset
from embodied.lerobot import add_scores, read_dataset, write_dataset
from embodied.record import record

LEROBOT = "lerobot==0.4.4"
CAMERAS = ("front", "wrist")
SOURCES = ("varied", "expert:near_miss", "noisy", "random")


def lerobot_python(folder: Path) -> str:
    """The interpreter of an environment that has LeRobot, made in `folder` if need be."""
    if given := os.environ.get("LEROBOT_PYTHON"):
        return given
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", LEROBOT]
    subprocess.run(install, check=True)
    return python


def demonstrations(episodes: int) -> Dataset:
    cfg = compose_config(["env=pick_cube", "sim.threads=1"])
    env: Any = make_env(cfg, num_envs=episodes, seed=0)
    sources = [SOURCES[i % len(SOURCES)] for i in range(episodes)]
    dataset = record(env, sources, range(episodes), CAMERAS)
    env.close()
    return dataset


def expected(raw: Dataset, read: Dataset, scores: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What each column and each video should hold, frame after frame."""
    episodes, proprio = raw.episodes, raw.info.proprio_size
    lengths = np.array([len(episode) for episode in episodes])
    texts = list(dict.fromkeys(episode.instruction for episode in episodes))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(episode, name) for episode in episodes])

    def told(values: list[Any]) -> np.ndarray:
        return np.repeat(values, lengths)

    success = [episode.success for episode in episodes]
    want = {
        "lengths": lengths,
        "tasks": told([episode.instruction for episode in episodes]),
        "observation.state": joined("state")[:, :proprio],
        "observation.environment_state": joined("state")[:, proprio:],
        "action": joined("action"),
        "next.reward": joined("reward"),
        "next.done": np.concatenate([np.arange(n) == n - 1 for n in lengths]),
        "next.success": np.concatenate([np.append(row[1:], row[-1]) for row in success]),
        "success": joined("success"),
        "stage": joined("stage"),
        "truth.progress": joined("progress"),
        "score.check": np.concatenate(scores),
        "timestamp": np.concatenate([np.arange(n) for n in lengths]).astype(np.float32) / 20,
        "frame_index": np.concatenate([np.arange(n) for n in lengths]),
        "episode_index": told(list(range(len(episodes)))),
        "index": np.arange(lengths.sum()),
        "task_index": told([texts.index(episode.instruction) for episode in episodes]),
    }
    for camera in CAMERAS:
        for prefix, data in (("", read), ("raw.", raw)):
            images = [episode.images[camera] for episode in data.episodes]
            want[f"{prefix}observation.images.{camera}"] = np.concatenate(images)
    return want


def compare_theirs(path: Path, ours: Dataset) -> dict[str, Any]:
    """What we read of the two episodes that LeRobot recorded."""
    theirs, proprio = read_dataset(path), ours.info.proprio_size
    camera = CAMERAS[0]
    pairs = list(zip(theirs.episodes, ours.episodes, strict=False))
    return {
        "episodes": len(theirs),
        "equal": all(
            np.array_equal(a.state, b.state[:, :proprio])
            and np.array_equal(a.action, b.action)
            and np.array_equal(a.reward, b.reward)
            and np.array_equal(a.success[1:], b.success[1:])
            and a.instruction == b.instruction
            for a, b in pairs
        ),
        "mean_pixel_difference": float(
            np.mean([np.abs(a.images[camera] - b.images[camera].astype(float)).mean()
                     for a, b in pairs])
        ),
    }  # fmt: skip


def main() -> None:
    args = parse_args(__doc__)
    raw = demonstrations(4 if args.quick else 12)
    with tempfile.TemporaryDirectory() as folder:
        path, theirs = Path(folder, "ours"), Path(folder, "theirs")
        write_dataset(path, raw)
        rng = np.random.default_rng(0)
        scores = [rng.random(len(episode)).astype(np.float32) for episode in raw.episodes]
        add_scores(path, "check", scores)
        read = read_dataset(path)
        np.savez(Path(folder, "expected.npz"), **expected(raw, read, scores))  # type: ignore[arg-type]
        python = lerobot_python(Path(folder, "venv"))
        check = Path(__file__).with_name("lerobot_check.py")
        command = [python, check, path, Path(folder, "expected.npz"), theirs]
        hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/hub", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=folder, env=os.environ | hub, stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
        back = compare_theirs(theirs, raw)
    columns, statistics = found["columns"], found["statistics"]
    figures = {
        "lerobot": found["versions"]["lerobot"],
        "episodes": found["episodes"],
        "frames": found["frames"],
        "columns_equal": sum(error < 1e-6 for error in columns.values()),
        "columns": len(columns),
        "largest_statistics_difference": max(statistics.values()),
        "largest_pixel_difference": found["images"]["largest_difference_to_ours"],
        "frames_batched": found["windows"]["frames"],
        "theirs_read_equal": back["equal"],
    }
    write_result("lerobot_opens", figures, {"opened": found, "theirs": back}, args.quick, args.out)


if __name__ == "__main__":
    main()
