"""SAC against stable-baselines3: updates a second, time to a return, and what many worlds bring.

`updates_vs_sb3`: updates (critics, actor, temperature, target) a second, draws from the replay
included, of the same networks (256x256) on batches of 256 steps of HalfCheetah, ours and SB3's by
turns, each at the number of threads that suits it best. `updates_vs_sb3_bfloat16`: with
`agent.precision=bfloat16`, where the processor knows it.
`wall_clock_to_return_vs_sb3`: seconds of training until the greedy policy returns 5,000 over ten
episodes, ours as tuned (`conf/tuned/half_cheetah_sac.yaml`), SB3's with its own settings, which are
those of its zoo but for 10,000 steps at random. Evaluation is off the clock, set-up and compilation
are on it.
`batched_vs_sb3`: env steps a second up to that return, of many worlds against SB3's one.
Both with `_bfloat16` as well.

These runs take from minutes to more than an hour a seed. `--runs NAME` makes those of one of `RUNS`
alone, on one thread, and keeps what is measured in `results/sac.NAME.jsonl` after every evaluation,
from where the ratios are taken: of a run of SB3 that was cut short it is known that it takes no
less time than that.

    python -m benchmarks.sac [--quick] [--runs NAME] [--seeds N [N ...]] [--minutes M]
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import RESULTS, interleave, ratio, summary, write_result
from benchmarks.ppo import Ours
from embodied.build import make_env
from embodied.config import compose_config

GOAL = 5000.0
EVERY = 10_000
"""Steps of SB3 from one evaluation to the next; ours are evaluated as often in seconds."""
RUNS = ("ours", "ours_bfloat16", "sb3")
FILLED = 10_000
"""Steps in the replays whose updates are timed."""
AT_ONCE = 8
"""Updates after every step of as many worlds."""
SAME = ("env=half_cheetah", "agent=sac", "~tuned", f"num_envs={AT_ONCE}", f"agent.warm_up={FILLED}")


def our_updates(threads: int, precision: str = "float32") -> Callable[[int], float]:
    """Updates a second of ours on a filled replay, as a function of their number."""
    run = Ours([*SAME, f"agent.threads={threads}", f"agent.precision={precision}"])
    while not len(run.agent.replay) >= FILLED:
        run.update()

    def rate(count: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(count // AT_ONCE):
            run.agent.improve(AT_ONCE)
        return count / (time.perf_counter() - start)

    return rate


def sb3_updates(threads: int) -> Callable[[int], float]:
    """The same of SB3, on as many steps of the same env."""
    model = sb3_model(0, learning_starts=FILLED)
    torch.set_num_threads(1)
    model.learn(FILLED)

    def rate(count: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        model.train(gradient_steps=count, batch_size=256)
        return count / (time.perf_counter() - start)

    return rate


def sb3_model(seed: int, **settings: Any) -> Any:
    import gymnasium as gym
    from stable_baselines3 import SAC

    return SAC("MlpPolicy", gym.make("HalfCheetah-v5"), seed=seed, device="cpu", **settings)


def updates(rounds: int, count: int) -> dict[str, list[float]]:
    """Updates a second of both, each at its best number of threads, by turns."""
    best: dict[str, Callable[[int], float]] = {}
    threads: dict[str, list[float]] = {}
    half = partial(our_updates, precision="bfloat16")
    for name, make in (("ours", our_updates), ("ours_bfloat16", half), ("sb3", sb3_updates)):
        trials = {n: make(n) for n in (1, 2)}
        for trial in trials.values():
            trial(3 * AT_ONCE)
        chosen = max(trials, key=lambda n: trials[n](count))
        best[name], threads[f"{name}_threads"] = trials[chosen], [float(chosen)]
    rates = interleave({k: lambda v=v: v(count) for k, v in best.items()}, rounds)
    return rates | threads


Keep = Callable[[dict[str, Any]], None]
"""Is given what is known of a run after every evaluation."""


def ours_to_goal(seed: int, minutes: float, keep: Keep, precision: str = "float32") -> None:
    """Seconds and steps of ours until the greedy policy returns `GOAL`."""
    start = time.perf_counter()
    fixed = [f"seed={seed}", "agent.threads=1", f"agent.precision={precision}"]
    run = Ours(["env=half_cheetah", "agent=sac", *fixed])
    test = _test_env(seed)
    elapsed, curve, mean, following = time.perf_counter() - start, [], -np.inf, 10.0
    while elapsed < 60 * minutes and mean < GOAL:
        start = time.perf_counter()
        run.update()
        elapsed += time.perf_counter() - start
        if elapsed >= following:
            following += 10.0
            mean = _mean_return(test, seed, lambda o: run.agent.policy.act({}, o, greedy=True)[1])
            curve.append([run.collector.steps, elapsed, mean])
            _known(keep, seed, curve)


def sb3_to_goal(seed: int, minutes: float, keep: Keep) -> None:
    """The same of SB3, with one env."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    model = sb3_model(seed, learning_starts=10_000)
    test = _test_env(seed)
    elapsed, curve, mean = time.perf_counter() - start, [], -np.inf
    while elapsed < 60 * minutes and mean < GOAL:
        start = time.perf_counter()
        model.learn(EVERY, reset_num_timesteps=False)
        elapsed += time.perf_counter() - start
        mean = _mean_return(test, seed, lambda o: _greedy(model, o["state"]))
        curve.append([model.num_timesteps, elapsed, mean])
        _known(keep, seed, curve)


def _known(keep: Keep, seed: int, curve: list[list[float]]) -> None:
    """Tell what is known of a run so far."""
    steps, elapsed, mean = curve[-1]
    print(f"seed {seed}: {mean:.0f} after {steps:,} steps, {elapsed:.0f} s", flush=True)
    seconds = elapsed if mean >= GOAL else None
    keep({"seed": seed, "seconds": seconds, "steps": steps, "curve": curve})


def _greedy(model: Any, obs: Any) -> Any:
    return model.predict(obs, deterministic=True)[0]


def _test_env(seed: int) -> Any:
    return make_env(compose_config(["env=half_cheetah"]), num_envs=10, seed=10_000 + seed)


def _mean_return(env: Any, seed: int, act: Callable[[Any], Any]) -> float:
    obs, total = env.reset(seed=10_000 + seed), np.zeros(10)
    for _ in range(env.max_steps):
        step = env.step(act(obs))
        obs, total = step.obs, total + step.reward
    return float(total.mean())


def runs(name: str) -> dict[int, dict[str, Any]]:
    """The runs of one of `RUNS` by seed, as far as they went."""
    log = RESULTS / f"sac.{name}.jsonl"
    if not log.exists():
        return {}
    return {row["seed"]: row for row in map(json.loads, log.read_text().splitlines())}


def run(name: str, seeds: Sequence[int], minutes: float) -> None:
    """Run the seeds that have neither come to the goal nor gone on for so long."""
    log = RESULTS / f"sac.{name}.jsonl"

    def keep(row: dict[str, Any]) -> None:
        rows = {**runs(name), row["seed"]: row}
        temporary = log.with_name(f".{log.name}.tmp")
        temporary.write_text("".join(json.dumps(rows[seed]) + "\n" for seed in sorted(rows)))
        temporary.replace(log)

    bfloat16 = partial(ours_to_goal, precision="bfloat16")
    to_goal = {"ours": ours_to_goal, "ours_bfloat16": bfloat16, "sb3": sb3_to_goal}[name]
    for seed in seeds:
        known = runs(name).get(seed)
        if known is None or (known["seconds"] is None and known["curve"][-1][1] < 60 * minutes):
            to_goal(seed, minutes, keep)


def compared(ours: dict[int, dict], peer: dict[int, dict], suffix: str) -> dict[str, Any]:
    """Ratios over the seeds that both have run; a run of SB3 that missed took at least so long."""
    seeds = sorted(ours.keys() & peer.keys())
    if not seeds or any(ours[seed]["seconds"] is None for seed in seeds):
        return {}

    def took(run: dict[str, Any]) -> float:
        return run["curve"][-1][1]

    first, theirs = [took(ours[s]) for s in seeds], [took(peer[s]) for s in seeds]
    rates = [ours[s]["steps"] / took(ours[s]) for s in seeds]
    their_rates = [peer[s]["steps"] / took(peer[s]) for s in seeds]
    return {
        f"wall_clock_to_return_vs_sb3{suffix}": ratio(theirs, first),
        f"batched_vs_sb3{suffix}": ratio(rates, their_rates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the updates alone")
    parser.add_argument("--runs", choices=RUNS, help="the long runs of these, nothing else")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=240.0, help="of training a run")
    parser.add_argument("--out", type=Path, help="write the result here, quick or not")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.runs:
        return run(args.runs, args.seeds, args.minutes)
    rates = updates(*((2, 48) if args.quick else (5, 304)))
    figures: dict[str, Any] = {
        "updates_vs_sb3": ratio(rates["ours"], rates["sb3"]),
        "updates_vs_sb3_bfloat16": ratio(rates["ours_bfloat16"], rates["sb3"]),
    }
    detail: dict[str, Any] = {"updates_per_s": {k: summary(v) for k, v in rates.items()}}
    if not args.quick:
        peer = runs("sb3")
        figures |= compared(runs("ours"), peer, "") | compared(
            runs("ours_bfloat16"), peer, "_bfloat16"
        )
        detail |= {"goal": GOAL} | {name: runs(name) for name in RUNS}
    write_result("sac", figures, detail, args.quick, args.out)


if __name__ == "__main__":
    main()
