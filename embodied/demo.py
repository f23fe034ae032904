"""`embodied demo`: an arm learns to pick up a cube from a reward that nobody wrote by hand.

Demonstrations, a reward model fitted to them, its audit, a policy trained on that reward alone,
and its test by the truth: each step is a verb of the command line, and is printed as such.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from embodied.audit import audit
from embodied.config import compose_config
from embodied.demonstrate import collect
from embodied.evaluate import evaluate
from embodied.fit import fit
from embodied.train import say, train

ENV, MODEL = "pick_cube", "stage_aware"
DEMONSTRATIONS = 30
EACH = 6
"""Held-out episodes of every flaw; of the expert, twice as many."""
HELD_OUT = 1_000_000
"""Their seeds, far from those of the demonstrations."""
EPISODES = 200
TRAINING = {"total_steps": "3_000_000", "stop_at_judged": "0.97", "stop_window": "512"}
"""It ends early when the reward itself calls so many of the last episodes a success."""


def demo(overrides: Sequence[str] = ()) -> int:
    """Run the whole way; `overrides` are those of `embodied train`.

    `reward_model.stage_aware.input=pixels` judges by one camera's images, every 10 steps. The last
    line printed is JSON: `success`, the share of fresh episodes, `minutes`, and the audit's `gate`.
    """
    start = time.perf_counter()
    given = {text.partition("=")[0] for text in overrides}
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    run_dir = dict(text.split("=", 1) for text in overrides if "=" in text).get("run_dir")
    path = Path(run_dir or f"runs/demo_{stamp}")
    own = [text for text in overrides if text.startswith("reward_model.")]
    worlds = [f"env={ENV}"] + [t for t in overrides if t.startswith(("env.", "sim", "robot"))]
    model = [*worlds, f"reward_model={MODEL}", *own]
    judge = [*model, f"reward_model.{MODEL}.path={path}/reward"]
    chosen = [f"{key}={value}" for key, value in TRAINING.items() if key not in given]
    if f"reward_model.{MODEL}.input=pixels" in own:
        chosen += [f"reward_model.{MODEL}.every=10"]
    chosen += [text for text in overrides if text not in own and text not in worlds]
    if not run_dir:
        chosen += [f"run_dir={path}"]
    compose_config([*model, *chosen])  # a mistake is said before the first line is
    say("An arm with a two-finger gripper learns to lift a cube and hold it in the air, from a")
    say(f"reward learned from {DEMONSTRATIONS} demonstrations. It takes some minutes.")

    data, test = f"{path}/demonstrations", f"{path}/held_out"
    _step(collect, [*worlds, f"episodes={DEMONSTRATIONS}", "cameras=front", f"out={data}"])
    _step(fit, [*model, f"dataset={data}", f"out={path}/reward"])
    mixture = [f"sources={_mixture()}", f"seed={HELD_OUT}", "cameras=front", f"out={test}"]
    _step(collect, [*worlds, *mixture])
    failed = _step(audit, [*judge, f"dataset={test}"])
    if failed:
        say("The reward failed its audit. It is trained on all the same, and the run says so.")
        chosen.append("allow_unaudited=true")
    _step(train, [*judge, *chosen])
    say(f"\n$ embodied eval {path} episodes={EPISODES}")
    evaluate(str(path), [f"episodes={EPISODES}", "num_envs=100"])
    rows = [json.loads(line) for line in (path / "eval.jsonl").read_text().splitlines()]
    success = sum(row["success"] for row in rows) / len(rows)
    _show(path, success, (time.perf_counter() - start) / 60, "failed" if failed else "passed")
    return 0


def _step(verb: Callable[[Sequence[str]], Any], arguments: list[str]) -> Any:
    """Say what is done, as one would type it, and do it."""
    say(f"\n$ embodied {verb.__name__} {shlex.join(arguments)}")
    return verb(arguments)


def _mixture() -> str:
    """Experts, every flaw of theirs, and chance, as `embodied collect` takes it."""
    cfg = compose_config([f"env={ENV}"])
    task: Any = get_class(cfg.env.task._target_)
    names = [f"expert*{2 * EACH}", *(f"expert:{flaw.name}*{EACH}" for flaw in task.flaws)]
    return f"[{','.join([*names, f'random*{EACH}'])}]"


def _show(path: Path, success: float, minutes: float, gate: str) -> None:
    rows = {
        "success": f"{success:.1%} of {EPISODES} fresh episodes, by the truth it never saw",
        "reward": f"{gate} its audit: open {path}/reward/report.html",
        "time": f"{minutes:.1f} minutes, from the first demonstration to the video",
        "video": str(path / "video.mp4"),
        "curves": str(path / "curves.png"),
        "next": f"embodied play {path}   |   embodied train env=push_cube",
    }
    print()
    for name, text in rows.items():
        print(f"  {name:<8} {text}")
    print(json.dumps({"success": success, "minutes": minutes, "gate": gate}))
