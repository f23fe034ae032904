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

SB3 takes an hour or more a seed. `--sb3` runs that alone, a seed after the other, and keeps what is
measured in `results/sac.sb3.jsonl`, from where the others take it, after every evaluation: of a run
that was cut short it is known that it takes no less time than that.

    python -m benchmarks.sac [--quick] [--sb3] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
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
BUDGET = 1_000_000
"""Steps after which SB3 has missed the goal."""
EVERY = 10_000
"""Steps of SB3 from one evaluation to the next; ours are evaluated as often in seconds."""
LOG = RESULTS / "sac.sb3.jsonl"
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


def ours_to_goal(seed: int, seconds: float) -> dict[str, Any]:
    """Seconds and steps of ours until the greedy policy returns `GOAL`."""
    start = time.perf_counter()
    run = Ours(["env=half_cheetah", "agent=sac", f"seed={seed}"])
    test = _test_env(seed)
    elapsed, curve, following = time.perf_counter() - start, [], 10.0
    while elapsed < seconds:
        start = time.perf_counter()
        run.update()
        elapsed += time.perf_counter() - start
        if elapsed >= following:
            following += 10.0
            mean = _mean_return(test, seed, lambda o: run.agent.policy.act({}, o, greedy=True)[1])
            curve.append([run.collector.steps, elapsed, mean])
            print(f"ours, seed {seed}: {curve[-1]}", flush=True)
            if mean >= GOAL:
                return {"seconds": elapsed, "steps": run.collector.steps, "curve": curve}
    return {"seconds": None, "steps": run.collector.steps, "curve": curve}


def sb3_to_goal(seed: int, budget: int, keep: Callable[[dict[str, Any]], None]) -> None:
    """The same of SB3, with one env; `keep` is given what is known after every evaluation."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    model = sb3_model(seed, learning_starts=10_000)
    test = _test_env(seed)
    elapsed, curve, mean = time.perf_counter() - start, [], -np.inf
    while model.num_timesteps < budget and mean < GOAL:
        start = time.perf_counter()
        model.learn(EVERY, reset_num_timesteps=False)
        elapsed += time.perf_counter() - start
        mean = _mean_return(test, seed, lambda o: _greedy(model, o["state"]))
        curve.append([model.num_timesteps, elapsed, mean])
        print(f"sb3, seed {seed}: {curve[-1]}", flush=True)
        seconds = elapsed if mean >= GOAL else None
        keep({"seed": seed, "seconds": seconds, "steps": model.num_timesteps, "curve": curve})


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


def sb3_runs() -> dict[int, dict[str, Any]]:
    """The runs of SB3 by seed, as far as they went."""
    if not LOG.exists():
        return {}
    return {row["seed"]: row for row in map(json.loads, LOG.read_text().splitlines())}


def run_sb3(seeds: int) -> None:
    """Run the seeds that have neither come to the goal nor to the end of the budget."""

    def keep(row: dict[str, Any]) -> None:
        rows = {**sb3_runs(), row["seed"]: row}
        temporary = LOG.with_name(f".{LOG.name}.tmp")
        temporary.write_text("".join(json.dumps(rows[seed]) + "\n" for seed in sorted(rows)))
        temporary.replace(LOG)

    for seed in range(seeds):
        known = sb3_runs().get(seed)
        if known is None or (known["seconds"] is None and known["steps"] < BUDGET):
            sb3_to_goal(seed, BUDGET, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the updates alone")
    parser.add_argument("--sb3", action="store_true", help="the long runs of SB3, nothing else")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result here, quick or not")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.sb3:
        return run_sb3(args.seeds)
    rates = updates(*((2, 48) if args.quick else (5, 304)))
    figures: dict[str, Any] = {
        "updates_vs_sb3": ratio(rates["ours"], rates["sb3"]),
        "updates_vs_sb3_bfloat16": ratio(rates["ours_bfloat16"], rates["sb3"]),
    }
    detail: dict[str, Any] = {"updates_per_s": {k: summary(v) for k, v in rates.items()}}
    if not args.quick:
        peer = sb3_runs()
        ours = {seed: ours_to_goal(seed, 3600.0) for seed in peer}
        figures |= compared(ours, peer)
        detail |= {"goal": GOAL, "ours": ours, "sb3": peer}
    write_result("sac", figures, detail, args.quick, args.out)


def compared(ours: dict[int, dict], peer: dict[int, dict]) -> dict[str, Any]:
    """Ratios over the seeds that both have run; a run of SB3 that missed took at least so long."""
    if not ours or any(run["seconds"] is None for run in ours.values()):
        return {}
    first = [run["seconds"] for run in ours.values()]
    theirs = [peer[seed]["curve"][-1][1] for seed in ours]
    rates = [run["steps"] / run["seconds"] for run in ours.values()]
    their_rates = [peer[seed]["steps"] / peer[seed]["curve"][-1][1] for seed in ours]
    return {
        "wall_clock_to_return_vs_sb3": ratio(theirs, first),
        "batched_vs_sb3": ratio(rates, their_rates),
    }


if __name__ == "__main__":
    main()
