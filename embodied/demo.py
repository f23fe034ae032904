"""`embodied demo`: an arm learns to pick up a cube, is tested on fresh episodes, and filmed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from embodied.config import compose_config
from embodied.evaluate import evaluate
from embodied.train import say, train

EPISODES = 200
GOAL = ("stop_at_success=0.95", "stop_window=512")


def demo(overrides: Sequence[str] = ()) -> int:
    """Train, evaluate and film, with overrides as of `embodied train` on top of `env=pick_cube`.

    The last line printed is JSON: `success`, the share of fresh episodes, and `minutes`.
    """
    start = time.perf_counter()
    given = {text.split("=", 1)[0] for text in overrides}
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    chosen = [f"run_dir=runs/demo_{stamp}", "env=pick_cube", *GOAL]
    chosen = [text for text in chosen if text.split("=", 1)[0] not in given]
    compose_config([*chosen, *overrides])  # a mistake is said before the first line is
    say("An arm with a two-finger gripper learns to lift a cube and hold it in the air,")
    say("by PPO on hand-written reward terms. It takes about three minutes.")
    path = train([*chosen, *overrides])
    evaluate(str(path), [f"episodes={EPISODES}", "num_envs=100"])
    rows = [json.loads(line) for line in (path / "eval.jsonl").read_text().splitlines()]
    success = sum(row["success"] for row in rows) / len(rows)
    _show(path, {"success": success, "minutes": (time.perf_counter() - start) / 60})
    return 0


def _show(path: Path, figures: dict[str, float]) -> None:
    rows = {
        "success": f"{figures['success']:.1%} of {EPISODES} fresh episodes",
        "time": f"{figures['minutes']:.1f} minutes, training, test and video",
        "video": str(path / "video.mp4"),
        "curves": str(path / "curves.png"),
        "next": f"embodied play {path}   |   embodied train env=push_cube",
    }
    for name, text in rows.items():
        print(f"  {name:<8} {text}")
    print(json.dumps(figures))
