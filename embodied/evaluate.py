"""`embodied eval`: how good a policy is, on seeds that every other policy is asked on too.

Episode k runs with seed `seed + k`, whoever acts and however many worlds there are, so two
policies can be compared pair by pair. Each finished episode becomes a row of `eval.jsonl`:

    checkpoint    who acted: a checkpoint's step and hash, `expert:slow`, ...
    env           its name
    settings      hash of all that decides an episode: the env's configuration and source, greedy
    seed          of this episode
    return        sum of the env's own reward
    length        in steps
    success       whether it succeeded, without a fault
    fault         null, or what went wrong
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from embodied.actor import Actor, find_actor, seat
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.build import make_env
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.statistics import bootstrap, mcnemar, paired_difference, paired_rates, wilson
from embodied.task import Task
from embodied.text_env import TextEnv
from embodied.types import FAULTS

DEFAULTS = {
    "episodes": 100,
    "seed": 10_000,
    "num_envs": 64,
    "greedy": True,
    "max_steps": int,
    "out": str,
    "against": str,
    "trust_pickle": False,
}
FIELDS = ("checkpoint", "env", "settings", "seed", "return", "length", "success", "fault")
BEGINNING = '{"checkpoint": "'
Row = dict[str, Any]


def evaluate(who: str, arguments: Sequence[str] = (), config_dir: str | Path | None = None) -> int:
    """Evaluate `who` (see `embodied.actor`) as the `key=value` arguments say, and print it.

    Raises `UserError` for bad input, before anything is written.
    """
    wanted, overrides = settings(arguments, DEFAULTS)
    if wanted["max_steps"]:
        overrides.append(f"env.max_steps={wanted['max_steps']}")
    actor = find_actor(who, overrides, wanted["trust_pickle"])
    cfg = actor.worlds(overrides, config_dir)
    if "group" in cfg.env:  # each world its own task
        cfg.env.group = 1
    seeds = range(wanted["seed"], wanted["seed"] + wanted["episodes"])
    env = make_env(cfg, num_envs=min(wanted["num_envs"], len(seeds)), seed=seeds[0])
    key = {"env": env.name, "settings": _settings_hash(cfg, env, wanted["greedy"])}
    actors = [actor]
    if wanted["against"]:
        actors.append(find_actor(wanted["against"], overrides, wanted["trust_pickle"]))
    policies = [one.policy(env) for one in actors]
    console = Console(highlight=False)
    console.print(f"{env.name}, seeds {seeds[0]} to {seeds[-1]}, {env.max_steps} steps at most")
    results = []
    for one, policy in zip(actors, policies, strict=True):
        file = _file(one, wanted["out"])
        rows = _measure(env, policy, seeds, {"checkpoint": one.name, **key}, wanted["greedy"], file)
        _print_summary(console, one.name, rows, can_succeed(env))
        results.append(rows)
    if len(results) == 2:
        _print_comparison(console, results[0], results[1], can_succeed(env))
    env.close()
    return 0


def run_episodes(
    env: Stepper, policy: Policy, seeds: Iterable[int], greedy: bool = True
) -> Iterator[Row]:
    """One episode a seed, in whichever world is free; rows as they finish, in no fixed order.

    A row has `seed`, `return`, `length`, `success` and `fault`. What an episode does depends on
    its seed and the policy alone, not on the number of worlds.
    """
    queue, count = iter(seeds), env.num_worlds
    running: list[int | None] = [next(queue, None) for _ in range(count)]
    seed = np.array([i if k is None else k for i, k in enumerate(running)], np.int64)
    obs, carry = env.reset(seed=seed), policy.carry(count)
    seat(policy, seed)
    total, length, succeeded = np.zeros(count), np.zeros(count, np.int64), np.zeros(count, bool)
    while any(k is not None for k in running):
        carry, action = policy.act(carry, obs, greedy)
        step = env.step(action)
        total += step.reward
        length += 1
        succeeded |= step.success
        done, obs = step.terminated | step.truncated, step.obs
        if not done.any():
            continue
        for i in np.flatnonzero(done):
            if running[i] is not None:
                yield {
                    "seed": running[i],
                    "return": float(total[i]),
                    "length": int(length[i]),
                    "success": bool(succeeded[i] and not step.fault[i]),
                    "fault": FAULTS[step.fault[i]] if step.fault[i] else None,
                }
            running[i] = following = next(queue, None)
            if following is not None:
                seed[i] = following
        total[done], length[done], succeeded[done] = 0.0, 0, False
        obs, fresh = env.reset(done, seed=seed), policy.carry(count)
        seat(policy, seed)
        for name, value in carry.items():
            value[done] = fresh[name][done]


def can_succeed(env: Stepper) -> bool:
    """Whether success means anything there: a task that never succeeds is judged by its return."""
    task = getattr(env, "task", None)
    return not isinstance(task, Task) or type(task).success is not Task.success


def _measure(
    env: Stepper, policy: Policy, seeds: range, key: Row, greedy: bool, file: Path | None
) -> list[Row]:
    """The rows of all seeds, in order: those in `file` as they are, the others run and added."""
    done = {row["seed"]: row for row in _read(file) if {**row, **key} == row}
    left = [seed for seed in seeds if seed not in done]
    episodes: Iterable[Row] = run_episodes(env, policy, left, greedy) if left else ()
    if sys.stderr.isatty():
        console = Console(file=sys.stderr)
        episodes = track(episodes, key["checkpoint"], len(left), console=console, transient=True)
    for row in episodes:
        done[row["seed"]] = {**key, **row}
        if file is not None:
            _append(file, done[row["seed"]])
    return [done[seed] for seed in seeds]


def _file(actor: Actor, out: str | None) -> Path | None:
    """Where an actor's rows are kept: its run directory, or the file that was asked for."""
    if out is None:
        return actor.folder / "eval.jsonl" if actor.folder is not None else None
    if Path(out).is_dir() or not Path(out).parent.is_dir():
        raise UserError(f"out={out}: give a file in a folder that exists")
    return Path(out)


def _read(file: Path | None) -> list[Row]:
    """The rows of a file. A last line that a crash tore is left out; any other is refused."""
    if file is None or not file.exists():
        return []
    *lines, rest = file.read_text(errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({name: row[name] for name in FIELDS})
        except (ValueError, TypeError, LookupError):
            what = f"{file}:{number} is no row of an evaluation"
            raise UserError(f"{what}: give another out=FILE") from None
    if rest[: len(BEGINNING)] != BEGINNING[: len(rest)]:
        raise UserError(f"{file} ends in no row of an evaluation: give another out=FILE")
    return rows


def _append(file: Path, row: Row) -> None:
    """Add a row, in place of a last line that a crash tore."""
    try:
        with file.open("ab+") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - 1))
            if log.read() not in (b"", b"\n"):
                log.seek(0)
                log.truncate(log.read().rfind(b"\n") + 1)
            log.write(json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise UserError(f"cannot add to {file}: {error.strerror} (its rows are kept)") from error


def _settings_hash(cfg: DictConfig, env: Stepper, greedy: bool) -> str:
    """What decides an episode beside who acts: a change of it starts a new series of rows."""
    task = getattr(env, "task", env)
    sources = []
    for kind in type(task).__mro__[:-1]:
        with suppress(OSError, TypeError):  # built in, or typed at a prompt
            sources.append(inspect.getsource(inspect.getmodule(kind) or kind))
    worlds = OmegaConf.to_container(cfg.env, resolve=True)
    if isinstance(env, TextEnv):
        sources.append(_source(env.world["_target_"]))
        worlds = {"world": dict(env.world), "first_task": env.first_task, "tasks": env.tasks}
    sim = {k: v for k, v in (cfg.get("sim") or {}).items() if k != "threads"}
    text = json.dumps([worlds, sim, env.max_steps, greedy, sources], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _source(target: str) -> str:
    """The module in which a world of text is, which may be run in another process alone."""
    spec = find_spec(target.rpartition(".")[0])
    return Path(spec.origin).read_text() if spec is not None and spec.origin else target


def _print_summary(console: Console, name: str, rows: list[Row], success: bool) -> None:
    returns = [row["return"] for row in rows]
    faults = sum(row["fault"] is not None for row in rows)
    console.print(f"\n[bold]{name}[/bold]  {len(rows)} episodes")
    if success:
        count = sum(row["success"] for row in rows)
        low, high = wilson(count, len(rows))
        console.print(f"  success  {count / len(rows):9.1%}   {low:.1%} to {high:.1%}")
    low, high = bootstrap(returns)
    console.print(f"  return   {np.mean(returns):9.2f}   {low:.2f} to {high:.2f}")
    console.print(f"  length   {np.mean([row['length'] for row in rows]):9.1f}")
    console.print(f"  faults   {faults:9d}", style="red" if faults else None)


def _print_comparison(console: Console, ours: list[Row], theirs: list[Row], success: bool) -> None:
    """Differences over the same seeds: ours less theirs."""
    console.print("\n[bold]difference[/bold]  pair by pair, the first less the second")
    if success:
        pairs = [[row["success"] for row in rows] for rows in (ours, theirs)]
        mean, low, high = paired_rates(*pairs)
        p = mcnemar(*pairs)
        console.print(f"  success  {mean:+9.1%}   {low:+.1%} to {high:+.1%}   McNemar p {p:.2g}")
    returns = [[row["return"] for row in rows] for rows in (ours, theirs)]
    mean, low, high = paired_difference(*returns)
    console.print(f"  return   {mean:+9.2f}   {low:+.2f} to {high:+.2f}")
