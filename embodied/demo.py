"""`embodied demo`: an arm learns to pick up a cube from a reward that nobody wrote by hand.

Demonstrations, a reward model fitted to them, its audit, a policy that begins as their clone and
is trained on that reward alone, and its test by the truth: each step is a verb of the command
line, and is printed as such.
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
from embodied.imitate import imitate
from embodied.statistics import wilson
from embodied.train import say, train

ENV, MODEL = "pick_cube", "stage_aware"
DEMONSTRATIONS = 30
DEMONSTRATOR = "noisy:0.2"
"""An expert who is disturbed now and then, and so shows how to recover."""
EACH = 6
"""Held-out episodes of every flaw; of the expert, twice as many."""
HELD_OUT = 1_000_000
"""Their seeds, far from those of the demonstrations."""
EPISODES = 200
VARIED = {"env.randomise.gains": "[0.7,1.4]", "env.randomise.obs_noise": "0.002"}
"""Worlds that differ as a robot differs from its model: in how stiff its servos are, and in what it
senses. So the policy bears a guard and a camera: see `benchmarks/deploy_latency.py`."""
LATE = {"env.randomise.delay_steps": "[0,1]"}
"""And in when an action takes effect. Only the policy meets that: demonstrators do not expect it,
and overshoot; a judge that was shown such successes accepts a cube 5 cm from where it belongs."""
FROM_IMAGES = {"stride": 10, "every": 10, "threshold": 0.8}
"""Of a judge of images: it looks every 10 steps, and at less than what is called a success from the
state. It sees less, and is less sure: at 0.95 it denies a fifth of the true successes, and a policy
that is denied them goes and tries something else."""
HELD = {
    "agent.anchor": "0.05",
    "agent.init_std": "0.1",
    "agent.lr": "2e-4",
    "agent.epochs": "4",
    "total_steps": "1_500_000",
}
"""Nor does it see how far away the goal is, which the demonstrations knew: so the policy is held
near their clone, takes smaller steps, and its worlds are nominal."""
CLONE = ("agent.steps=8000", "agent.activation=elu", "video=false", "tensorboard=false")
TRAINING = {
    "total_steps": "2_250_000",
    "agent.activation": "elu",
    "agent.init_std": "0.2",
    "agent.lr": "3e-4",
    "agent.epochs": "8",
    "agent.anneal": "true",
    "agent.gamma": "0.99",
    "agent.rollout_steps": "32",
    "agent.minibatches": "8",
}
"""Small steps, since the clone is good already, but far enough about it that a policy finds out of
where it would stand still."""


def demo(overrides: Sequence[str] = ()) -> int:
    """Run the whole way; `overrides` are those of `embodied train`.

    `reward_model.stage_aware.input=pixels` judges by one camera's images, every 10 steps. The last
    line printed is JSON: `success`, the share of fresh episodes, `clone`, that of the policy it
    began as, `minutes`, and the audit's `gate`.
    """
    start = time.perf_counter()
    given = {text.partition("=")[0] for text in overrides}
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    values = dict(text.split("=", 1) for text in overrides if "=" in text)
    path = Path(values.get("run_dir") or f"runs/demo_{stamp}")
    own = [text for text in overrides if text.startswith("reward_model.")]
    settings = dict(TRAINING)
    if pixels := f"reward_model.{MODEL}.input=pixels" in own:
        settings |= HELD
        own = [*(f"reward_model.{MODEL}.{key}={n}" for key, n in FROM_IMAGES.items()), *own]
    worlds = [f"env={ENV}"] + [t for t in overrides if t.startswith(("env.", "sim", "robot"))]
    worlds += [] if pixels else _besides(given, VARIED)
    late = [] if pixels else _besides(given, LATE)
    model = [*worlds, f"reward_model={MODEL}", *own]
    judge = [*model, f"reward_model.{MODEL}.path={path}/reward"]
    chosen = _besides(given, settings)
    chosen += [text for text in overrides if text not in own and text not in worlds]
    if "run_dir" not in given:
        chosen += [f"run_dir={path}"]
    seed = int(compose_config([*model, *chosen]).seed)  # a mistake is said before the first line is
    say("An arm with a two-finger gripper learns to lift a cube and hold it in the air, from a")
    say(f"reward learned from {DEMONSTRATIONS} demonstrations. It takes some minutes.")

    data, test = f"{path}/demonstrations", f"{path}/held_out"
    shown = [f"sources=[{DEMONSTRATOR}]", f"episodes={DEMONSTRATIONS}", f"seed={1000 * seed}"]
    shown += ["successes=true", "cameras=front", f"out={data}"]
    _step(collect, [*worlds, *shown])
    _step(fit, [*model, f"dataset={data}", f"out={path}/reward"])
    clone = [f"seed={seed}", f"dataset={data}", f"run_dir={path}/clone"]
    _step(imitate, [*worlds, *CLONE, *clone])
    mixture = [f"sources={_mixture()}", f"seed={HELD_OUT}", "cameras=front", f"out={test}"]
    _step(collect, [*worlds, *mixture])
    failed = _step(audit, [*judge, f"dataset={test}"])
    if failed:
        say("The reward failed its audit. It is trained on all the same, and the run says so.")
        chosen.append("allow_unaudited=true")
    if pixels and "stop_at_judged" not in given:
        chosen.append(f"stop_at_judged={_recall(path / 'reward'):.2f}")
    _step(train, [*judge, *late, *chosen, f"agent.start={path}/clone"])
    before, success = _success(path / "clone", late), _success(path)
    minutes, gate = (time.perf_counter() - start) / 60, "failed" if failed else "passed"
    _show(path, {"success": success, "clone": before, "minutes": minutes, "gate": gate})
    return 0


def _besides(given: set[str], settings: dict[str, str]) -> list[str]:
    """The settings that nobody has given, as one would type them."""
    return [f"{key}={value}" for key, value in settings.items() if key not in given]


def _recall(model: Path) -> float:
    """How large a share of true successes a judge may call one, by its audit's held-out ones.

    The upper end of that share's interval: a policy that it calls successful more often than that
    has found what it gets wrong. From images, where a judge sees less, training on lowers the true
    success.
    """
    rows = json.loads((model / "audit.json").read_text())["sources"]
    won = [row for row in rows if row["true_success"] == 1.0]
    accepted = round(sum(row["accepted_ever"] * row["episodes"] for row in won))
    return wilson(accepted, sum(row["episodes"] for row in won))[1]


def _step(verb: Callable[[Sequence[str]], Any], arguments: list[str]) -> Any:
    """Say what is done, as one would type it, and do it."""
    say(f"\n$ embodied {verb.__name__} {shlex.join(arguments)}")
    return verb(arguments)


def _success(run: Path, worlds: Sequence[str] = ()) -> float:
    """The true success of a run's policy on fresh episodes, in its worlds or in those."""
    say(f"\n$ embodied eval {shlex.join([str(run), f'episodes={EPISODES}', *worlds])}")
    evaluate(str(run), [f"episodes={EPISODES}", "num_envs=100", *worlds])
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    return sum(row["success"] for row in rows) / len(rows)


def _mixture() -> str:
    """Experts, every flaw of theirs, and chance, as `embodied collect` takes it."""
    cfg = compose_config([f"env={ENV}"])
    task: Any = get_class(cfg.env.task._target_)
    names = [f"expert*{2 * EACH}", *(f"expert:{flaw.name}*{EACH}" for flaw in task.flaws)]
    return f"[{','.join([*names, f'random*{EACH}'])}]"


def _show(path: Path, figures: dict[str, Any]) -> None:
    success, clone = figures["success"], figures["clone"]
    rows = {
        "success": f"{success:.1%} of {EPISODES} fresh episodes, by the truth it never saw",
        "before": f"{clone:.1%}, by the clone of the demonstrations that it began as",
        "reward": f"{figures['gate']} its audit: open {path}/reward/report.html",
        "time": f"{figures['minutes']:.1f} minutes, from the first demonstration to the video",
        "video": str(path / "video.mp4"),
        "curves": str(path / "curves.png"),
        "next": f"embodied play {path}   |   embodied train env=push_cube",
    }
    print()
    for name, text in rows.items():
        print(f"  {name:<8} {text}")
    print(json.dumps(figures))
