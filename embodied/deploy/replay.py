"""`embodied replay`: play a record's observations back through a policy, and say what it tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.table import Table

from embodied.actor import find_actor
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.build import make_env
from embodied.deploy.bag import Bag, read_bag
from embodied.deploy.replay_figures import Comparison, Figures, figures, headline, remarks
from embodied.deploy.replay_page import render
from embodied.deploy.replay_record import Record, read_record
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.gate import write_whole
from embodied.spaces import vector_keys
from embodied.types import ActionSpec, Obs

DEFAULTS = {"tolerance": 1e-5, "greedy": True, "out": str, "trust_pickle": False}


def replay(arguments: Sequence[str], config_dir: str | Path | None = None) -> int:
    """Replay BAG with RUN as `key=value` arguments say; 0 if the actions are the same, 1 if not.

    Prints what it finds and writes a page of it. Raises `UserError` for bad input.
    """
    if len(arguments) < 2 or any("=" in one for one in arguments[:2]):
        raise UserError("say which record and which policy: embodied replay BAG RUN")
    path, who, *rest = arguments
    wanted, overrides = settings(rest, DEFAULTS)
    bag = read_bag(path)
    record = read_record(bag)
    actor = find_actor(who, overrides, wanted["trust_pickle"])
    if actor.run is None and not who.endswith(".zip"):
        raise UserError(f"{who} does not act by what a record holds: give a trained policy")
    env = make_env(actor.worlds(overrides, config_dir), num_envs=1)
    try:
        compared = compare(record, actor.policy(env), env, wanted["tolerance"], wanted["greedy"])
    finally:
        env.close()
    found = figures(record)
    show(bag, record, actor.name, compared, found)
    out = Path(wanted["out"]) if wanted["out"] else _beside(bag.path)
    written = write_whole(out, render(bag, record, actor.name, compared, found))
    print(f"\nreport  {written}")
    return 0 if compared.matches else 1


def compare(
    record: Record, policy: Policy, env: Stepper, tolerance: float, greedy: bool = True
) -> Comparison:
    """Ask the policy about every observation; what it remembers starts anew with an episode."""
    spec = env.action_spec
    if spec is None:
        raise UserError(f"{env.name} has no actions that a robot could do")
    boxes = _boxes(env)
    answers, steps = [], []
    carry = policy.carry(1)
    for number, step in enumerate(record.steps):
        if step.first:
            carry = policy.carry(1)
        carry, action = policy.act(carry, _observation(step.observation, boxes, number), greedy)
        if step.action is None:
            continue
        if len(step.action) != spec.size:
            what = f"its action has {len(step.action)} numbers, the policy's {spec.size}"
            raise UserError(f"step {number} of the record is of another policy: {what}")
        steps.append(step)
        answers.append(np.asarray(action[0], float))
    if not steps:
        raise UserError("the record holds no action to compare with")
    recorded, answered = np.array([step.action for step in steps], float), np.array(answers)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(recorded - answered) / _ranges(spec)
    same = (recorded == answered) | (np.isnan(recorded) & np.isnan(answered))
    difference[same] = 0.0
    difference[np.isnan(difference)] = math.inf
    units = spec.units
    return Comparison(spec.names, units, steps, recorded, answered, difference, tolerance)


def _boxes(env: Stepper) -> dict[str, gym.spaces.Box]:
    """What the policy sees, in the order of a flat observation. Raises `UserError`."""
    space = env.observation_space
    keys = vector_keys(space)
    others = sorted(set(space.spaces) - set(keys))
    if others:
        raise UserError(f"the policy also sees {', '.join(others)}, which no record holds")
    return {key: cast(gym.spaces.Box, space[key]) for key in keys}


def _observation(numbers: Sequence[float], boxes: dict[str, gym.spaces.Box], number: int) -> Obs:
    """A flat observation as the policy sees it."""
    sizes = [math.prod(box.shape) for box in boxes.values()]
    if len(numbers) != sum(sizes):
        what = f"it saw {len(numbers)} numbers, this one sees {sum(sizes)}"
        raise UserError(f"step {number} of the record is of another policy: {what}")
    parts = np.split(np.asarray(numbers), np.cumsum(sizes)[:-1])
    return {
        key: part.astype(box.dtype).reshape(1, *box.shape)
        for (key, box), part in zip(boxes.items(), parts, strict=True)
    }


def _ranges(spec: ActionSpec) -> np.ndarray:
    """The range `(A,)` of every component, 1 where it has none."""
    ranges = np.asarray(spec.high, float) - np.asarray(spec.low, float)
    return np.where(np.isfinite(ranges) & (ranges > 0.0), ranges, 1.0)


def _beside(bag: Path) -> Path:
    return bag / "replay.html" if bag.is_dir() else bag.with_suffix(".html")


def show(bag: Bag, record: Record, name: str, compared: Comparison, found: Figures) -> None:
    """Print what was found."""
    console = Console(highlight=False)
    print_line = partial(console.print, markup=False, soft_wrap=True)
    for line in (headline(compared), *remarks(bag, record, name, compared, found)):
        print_line(line)
    table = Table("component", "unit", "equal", "most", "of its range", box=None)
    for j, component in enumerate(compared.names):
        most = compared.apart[:, j].max()
        equal = f"{(compared.difference[:, j] == 0.0).mean():.1%}"
        share = f"{compared.difference[:, j].max():.2g}"
        table.add_row(component, compared.units[j], equal, f"{most:.3g}", share)
    console.print("", table, "")
    for what, spreads in (("", found.delays), ("gaps in ", found.gaps)):
        for stream, spread in spreads.items():
            print_line(
                f"{what + stream:<22}{spread.count:>7} times  p50 {spread.p50:.2f}  "
                f"p99 {spread.p99:.2f}  most {spread.longest:.2f} ms"
            )
    for (kind, what), count in found.events.most_common():
        print_line(f"{kind:<22}{count:>7} times  {what}")
