"""`embodied collect`: record episodes of a mixture of experts, chance and policies to a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embodied.actor import find_actor
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.babble import Babbler, wordings
from embodied.build import make_env
from embodied.conversations import converse, read_conversations, write_conversations
from embodied.dataset import Dataset, Episode
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.lerobot import write_dataset
from embodied.record import record
from embodied.text_env import TextEnv
from embodied.text_policies import Gold

DEFAULTS = {
    "out": str,
    "sources": "varied",
    "episodes": int,
    "seed": 0,
    "num_envs": 32,
    "cameras": str,
    "image_size": 64,
    "successes": False,
    "after_success": 8,
    "like": str,
    "articles": True,
}
EPISODES = 30
TRIES = 8
"""How often an episode is tried that should succeed."""
SCRIPTED = ("expert", "noisy", "varied", "random", "babble")


def collect(arguments: Sequence[str] = (), config_dir: str | Path | None = None) -> None:
    """Record a dataset as the `key=value` arguments say, write it to `out`, and print a table.

    `sources` is a list as `[expert,expert:slow*2,runs/mine*0.5]` (see `embodied.demonstrators`):
    the numbers, 1 where not given, are shares of `episodes`; without `episodes` they are counts.
    With `successes` episodes that do not end in success are replaced by others of the same source.
    Recording goes on for `after_success` steps after the first success. Of worlds of text `out` is
    a file, lines of JSON (see `embodied.conversations`); gold actions are the expert, and "babble"
    says commands worded as in the file `like`, at random, naming what was told with an article, or
    without `articles` anything that was told (see `embodied.babble`).
    Raises `UserError` for bad input, before anything is written.
    """
    wanted, overrides = settings(arguments, DEFAULTS)
    if not wanted["out"]:
        raise UserError("say where to write the dataset: out=FOLDER")
    out = Path(wanted["out"])
    if out.exists():
        raise UserError(f"{out} exists: choose another out=")
    counts = mixture(wanted["sources"] or "", wanted["episodes"])
    actors = {
        name: find_actor(name, overrides)
        for name in counts
        if name.partition(":")[0] not in SCRIPTED and Path(name).exists()
    }
    worlds = next(iter(actors.values()), find_actor("expert"))
    sources = [name for name, count in counts.items() for _ in range(count)]
    cfg = worlds.worlds(overrides, config_dir)
    env = make_env(cfg, num_envs=min(wanted["num_envs"], len(sources)), seed=wanted["seed"])
    if isinstance(env, TextEnv):
        players: dict[str, Policy] = dict.fromkeys(("expert", "varied"), Gold(env))
        players |= {name: actor.policy(env) for name, actor in actors.items()}
        if "babble" in counts:
            players["babble"] = _babbler(wanted)
        return _talks(env, counts, players, out, wanted)
    if not isinstance(env, TaskEnv):
        raise UserError(f"{env.name} is no task: only tasks can be recorded")
    policies = {name: actor.policy(env) for name, actor in actors.items()}
    cameras = _names("cameras", wanted["cameras"] or "")
    if (after := wanted["after_success"]) < 0:
        raise UserError(f"after_success={after}: give a number of steps >= 0")
    how = (cameras, wanted["image_size"], after, policies)
    if wanted["successes"]:
        dataset, why = _successes(env, sources, wanted["seed"], how), "failed"
    else:
        seeds = range(wanted["seed"], wanted["seed"] + len(sources))
        dataset, why = record(env, sources, seeds, *how), "ended in a fault"
    env.close()
    if not len(dataset):
        raise UserError(f"every episode {why}: nothing was written")
    write_dataset(out, dataset)
    _print(counts, dataset)
    print(f"wrote {out}")


def _babbler(wanted: Any) -> Policy:
    if not wanted["like"]:
        raise UserError("sources=babble: say how commands are worded, by like=FILE of an expert")
    articles = wanted["articles"]
    told = read_conversations(wanted["like"])
    return Babbler(wordings(told, articles), wanted["seed"], articles)


def _talks(
    env: TextEnv, counts: dict[str, int], players: dict[str, Policy], out: Path, wanted: Any
) -> None:
    """Record conversations with text worlds, as lines of JSON."""
    told, seed = [], wanted["seed"]
    for name, count in counts.items():
        if name not in players:
            raise UserError(f"sources={name}: in a world of text expert, babble or a run speaks")
        source = "expert" if name == "varied" else name  # the gold actions come in one way
        found = converse(env, players[name], range(seed, seed + count), source)
        told += [one for one in found if one.success or not wanted["successes"]]
        seed += count
    env.close()
    if not told:
        raise UserError("no episode succeeded: nothing was written")
    write_conversations(out, told)
    share = sum(one.success for one in told) / len(told)
    turns = sum(map(len, told)) / len(told)
    print(f"{len(told)} conversations, {turns:.1f} turns each, {share:.0%} succeeded")
    print(f"wrote {out}")


def _successes(env: TaskEnv, sources: list[str], seed: int, how: tuple[Any, ...]) -> Dataset:
    """As many successful episodes of each source as `sources` names it, if a few tries bring them;
    every try has seeds of its own."""
    kept: list[Episode] = []
    for _ in range(TRIES):
        found = record(env, sources, range(seed, seed + len(sources)), *how)
        seed += len(sources)
        good = [episode for episode in found.episodes if episode.success[-1]]
        kept += good
        missing = Counter(sources) - Counter(episode.source for episode in good)
        sources = list(missing.elements())
        if not sources:
            break
    return Dataset(found.info, kept)


def mixture(text: str, episodes: int | None = None) -> dict[str, int]:
    """How many episodes each source of a list gets.

    `mixture("[expert*20,random*10]")` is {"expert": 20, "random": 10}, and of 300 episodes 200 and
    100 (largest remainders). Raises `UserError`.
    """
    shares: dict[str, float] = {}
    for item in _names("sources", text):
        name, star, number = item.partition("*")
        try:
            share = float(number) if star else 1.0
        except ValueError:
            share = 0.0
        if not 0.0 < share < 1e6 or name in shares or not name:
            raise UserError(f"sources: {item!r}: give NAME or NAME*NUMBER, each name once")
        shares[name] = share
    if not shares:
        raise UserError("sources is empty: give one, as sources=[expert,expert:slow]")
    if episodes is None and "*" in text:
        if any(share % 1.0 for share in shares.values()):
            raise UserError(f"sources={text}: shares need a number of episodes: episodes=100")
        return {name: int(share) for name, share in shares.items()}
    total = episodes or EPISODES
    exact = np.array(list(shares.values())) / sum(shares.values()) * total
    counts = np.floor(exact + 1e-9).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    if not counts.all():
        raise UserError(f"episodes={total}: too few for one of each of {len(shares)} sources")
    return {name: int(count) for name, count in zip(shares, counts, strict=True)}


def _names(key: str, text: str) -> list[str]:
    """The items of `[a,b]` or `a,b`."""
    text = text.strip()
    if text.startswith("[") != text.endswith("]"):
        raise UserError(f"{key}={text}: write {key}=[a,b]")
    return [item.strip() for item in text.strip("[]").split(",") if item.strip()]


def _print(counts: dict[str, int], dataset: Dataset) -> None:
    console = Console(highlight=False)
    width = max(len("source"), *map(len, counts))
    console.print(f"[bold]{'source':<{width}}  episodes  success  length[/bold]")
    for name, count in counts.items():
        rows = dataset.where(lambda episode, name=name: episode.source == name).episodes  # type: ignore[misc]
        line = f"{name:<{width}}  {len(rows):>8}"
        if rows:
            success = np.mean([episode.succeeded for episode in rows])
            line += f"  {success:>7.0%}  {np.mean([len(episode) for episode in rows]):>6.1f}"
        if len(rows) < count:
            line += f"  ({count - len(rows)} left out)"
        console.print(line, markup=False)
