"""`embodied audit` in worlds of text: pairs of episodes played there, of which one is better."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied.build import make_env, make_reward_model
from embodied.card import THRESHOLD
from embodied.errors import UserError
from embodied.gate import FORMAT, RECORD, fingerprint, model_path, write_whole
from embodied.reward_model import Channel, start
from embodied.rewards import Rewards
from embodied.text_audit_page import render
from embodied.text_card import CHECKS, LENGTHS, Family, Judged, TextCard
from embodied.text_env import TextEnv
from embodied.text_pairs import Pair, candidates
from embodied.text_plays import Played, fair, solved
from embodied.types import Array, Trajectory

EPISODES, FEWEST, WORLDS, TOGETHER = 24, 3, 16, 32
"""Tasks that are played, and the fewest that tell lengths apart; the most worlds that play them;
pairs that are asked about at once."""
SAME = 1e-5
"""Totals that differ by less are the same, of large ones relative to them."""
MOST_FAILED = 0.1


def audit_text(cfg: DictConfig, wanted: Mapping[str, Any]) -> int:
    """Audit the one reward model in its world of text, print how it went; 0 if the gate passes.

    `wanted` has the settings `out` and `episodes`, how many tasks to play. Raises `UserError` for
    bad input, and writes nothing then.
    """
    for key in ("dataset", "rollouts", "others"):
        if wanted[key]:
            raise UserError(f"{key}={wanted[key]}: worlds of text are played: give episodes=24")
    episodes = EPISODES if wanted["episodes"] is None else wanted["episodes"]
    if episodes < FEWEST:
        raise UserError(f"episodes={episodes}: give {FEWEST} or more")
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(f"audit takes one reward model, not {names}: reward_model=outcome")
    name, node = names[0], cfg.reward_model[names[0]]
    if "group" in cfg.env:
        OmegaConf.update(cfg, "env.group", 1)
    env: Any = make_env(cfg, num_envs=min(WORLDS, episodes))
    try:
        model = _model(cfg, env, name)
        beside = model_path(model, node)
        out = Path(wanted["out"]) if wanted["out"] else beside
        if out is None:
            raise UserError(f"reward_model.{name}: say where to write with out=FOLDER")
        asked = Asked(name, model, node)
        card = measure(asked, env, episodes)
    finally:
        env.close()
    record = {
        "format": FORMAT, **card.to_dict(), "model": name, "kind": model.kind,
        "fingerprint": fingerprint(model, node), "env": env.name, "episodes": episodes,
        "turns_asked": asked.turns, "turns_failed": asked.failed,
        "turns_abstained": asked.abstained,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    return _write(card, record, out, beside or out)


def _model(cfg: DictConfig, env: TextEnv, name: str) -> Any:
    """The reward model. Raises `UserError` for one that cannot be asked by itself."""
    model: Any = make_reward_model(cfg, env, name)
    if callable(language := getattr(model, "language", None)):
        language()  # says that there is none
    if hasattr(model, "over"):
        raise UserError(f"reward_model.{name} combines other models: audit those instead")
    if model.needs.cameras:
        raise UserError(f"reward_model.{name} looks at images; {env.name} is made of text")
    return model


def _write(card: TextCard, record: dict[str, Any], out: Path, beside: Path) -> int:
    _print(card, record)
    report = write_whole(out / "report.html", render(card, record))
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    print(f"\nreport  {report}\nrecord  {write_whole(beside / RECORD, text)}")
    return 0 if card.gate == "passed" else 1


def _print(card: TextCard, record: dict[str, Any]) -> None:
    """The verdict, and a line for every family."""
    print(f"{card.gate.upper()}  {record['model']} on {record['env']}: {card.verdict}\n")
    print("  {:<8}{:<13}{:>7}  {:<8}{:>6}{:>8}{:>8}{:>8}".format(
        "", "family", "found", "wanted", "pairs", *LENGTHS))  # fmt: skip
    for one in card.families:
        if one.value is None:
            continue
        word = "ok" if one.passed else ("FAILED" if one.check.gates else "warning")
        shares = card.by_length(one).values()
        lengths = "".join(f"{'-' if x is None else f'{x:.0%}':>8}" for x in shares)
        want = f"{one.check.sense} {one.check.limit:g}"
        print(
            f"  {word:<8}{one.check.name:<13}{one.value:>7.2f}  {want:<8}{len(one.judged):>6}"
            f"{lengths}  {one.check.title}"
        )
    if skipped := [one.check.name for one in card.families if one.value is None]:
        print(f"does not apply: {', '.join(skipped)}")
    if record["turns_abstained"] or record["turns_failed"]:
        told = (
            "{turns_abstained} of {turns_asked} turns it abstained on, {turns_failed} it failed on"
        )
        print(told.format(**record))


class Asked:
    """The reward model that is audited; counts what it could not judge."""

    def __init__(self, name: str, model: Any, node: DictConfig) -> None:
        self.name, self.model = name, model
        self.weight, self.every = float(node.get("weight", 1.0)), int(node.get("every", 1))
        threshold = node.get("threshold")
        self.threshold = THRESHOLD if threshold is None else float(threshold)
        self.states = model.kind in ("potential", "success")
        self.turns = self.failed = self.abstained = 0

    def paid(self, traj: Trajectory) -> Array:
        """What it pays in every turn, `(T, N)`, weighted; of a model of states, their values."""
        shaping = "held" if self.states else "none"
        channel = Channel(self.name, self.model, self.weight, shaping, self.every, whole=True)
        worlds = traj.shape[1]
        rewards = Rewards({self.name: channel}, worlds, 1.0)
        traj = replace(traj, reward_terms={}, valid=traj.valid.copy())
        rewards.begin(start(traj, 0))
        rewards.label(traj, np.tile(np.arange(traj.shape[0])[:, None], worlds))
        counts = rewards.counts
        turns = sum(counts.values()) - counts["silent"]
        self.turns += turns
        self.failed += counts["failed"]
        self.abstained += counts["abstained"]
        if counts["failed"] > MOST_FAILED * turns:
            raise UserError(
                f"reward_model.{self.name} failed on {counts['failed']} turns: nothing can be said"
            )
        live = traj.due if traj.due is not None else np.ones(traj.shape, bool)
        return np.where(live, np.nan_to_num(self.weight * traj.reward_terms[self.name]), 0.0)

    def total(self, paid: Array, turns: int) -> float:
        """Of an episode: the last value of a model of states, else all that it pays."""
        return float(paid[turns - 1] if self.states else paid.sum())

    def accepts(self, total: float) -> bool:
        """Whether it calls an episode a success."""
        return self.model.kind == "success" and total >= self.weight * self.threshold


def measure(asked: Asked, env: TextEnv, episodes: int) -> TextCard:
    """Play the pairs of so many tasks and ask about them."""
    played = Played(env, asked.model.needs.readouts)
    tasks = solved(env, episodes, played)
    pairs = fair(played, candidates(tasks, env.max_steps))
    families = {check.name: Family(check) for check in CHECKS}
    pairs.sort(key=lambda pair: max(len(pair.better.said), len(pair.worse.said)))
    for begin in range(0, len(pairs), TOGETHER):
        for one, swapped in _compared(asked, played, pairs[begin : begin + TOGETHER]):
            if one.pair.family == "rest":
                _alone(asked, played, one)
            families[one.pair.family].judged.append(one)
            families["order"].judged.append(swapped)
    if not families["planning"].judged:
        raise UserError(f"{env.name}: no pair of plans is fair, so nothing can be said")
    return TextCard(list(families.values()), played, _edges([len(task.gold) for task in tasks]))


def _edges(lengths: Sequence[int]) -> tuple[int, int]:
    """Up to which lengths is short and middle, so that the largest of three parts is smallest."""
    each = sorted(set(lengths))
    ways = list(combinations(each[:-1], 2)) or [(each[0], each[0])]
    counts = np.array(lengths)

    def most(way: tuple[int, int]) -> int:
        return int(np.bincount((counts[:, None] > way).sum(1), minlength=3).max())

    return min(ways, key=most)


def _compared(asked: Asked, played: Played, pairs: Sequence[Pair]) -> list[tuple[Judged, Judged]]:
    """The pairs as they are judged, and whether they are so when all worlds change places."""
    plays = [play for pair in pairs for play in (pair.better, pair.worse)]
    group = np.repeat(np.arange(len(pairs)), 2)
    there = asked.paid(played.shown(plays, group))
    back = asked.paid(played.shown(plays[::-1], group))[:, ::-1]
    out = []
    for k, pair in enumerate(pairs):
        good, bad = (played.turns(play) for play in (pair.better, pair.worse))
        paid = (there[:good, 2 * k], there[:bad, 2 * k + 1])
        totals = (asked.total(paid[0], good), asked.total(paid[1], bad))
        other = (asked.total(back[:, 2 * k], good), asked.total(back[:, 2 * k + 1], bad))
        same = all(_same(a, b) for a, b in zip(totals, other, strict=True))
        note = f"in other places {other[0]:+.2f} and {other[1]:+.2f}"
        one = Judged(pair, totals, paid, _right(asked, pair, totals))
        out.append((one, replace(one, right=same, note=note)))
    return out


def _right(asked: Asked, pair: Pair, totals: Sequence[float]) -> bool:
    better, worse = totals
    if pair.family == "rest":
        return _same(better, worse)
    if pair.family == "degenerate" and asked.accepts(worse):
        return False
    return better > worse and not _same(better, worse) if pair.strict else (
        better >= worse or _same(better, worse)
    )  # fmt: skip


def _alone(asked: Asked, played: Played, one: Judged) -> None:
    """Ask about an episode where no world is longer: it is wrong if that pays otherwise."""
    play = one.pair.better
    paid = asked.paid(played.shown([play, play], [0, 0]))
    total = asked.total(paid[:, 0], len(paid))
    one.right &= _same(total, one.totals[0])
    one.note = f"where no world is longer {total:+.2f}"


def _same(a: float, b: float) -> bool:
    return bool(abs(a - b) <= SAME * max(1.0, abs(a), abs(b)))
