"""Talks with worlds of text, with what each turn was paid: at a terminal, or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from embodied.actor import Actor
from embodied.agent import Policy
from embodied.build import make_agent, make_rewards
from embodied.collect import Collector
from embodied.errors import UserError
from embodied.reward_model import Channel, Needs
from embodied.rewards import Rewards
from embodied.text_env import TextEnv
from embodied.text_policies import Human
from embodied.types import SCORED, Array, Carry, Moment, Obs, Score, Trajectory

WATCH = "watch"
"""The name of a channel that pays nothing and asks for all that is shown."""
SHOWN = ("world.valid", "world.progress", "success")


@dataclass
class Said:
    """One turn: what was seen, what was said to it, and what came of it."""

    seen: str
    said: str
    valid: bool
    progress: float  # share of the task's subgoals that have been reached
    paid: dict[str, float]  # by reward model, weighted
    told: dict[str, float] = field(default_factory=dict)
    """What reward models found after it, as MODEL/TERM: a belief, a progress, a credit."""


@dataclass
class Talk:
    """An episode."""

    task: int
    turns: list[Said] = field(default_factory=list)
    last: str = ""
    """What the world said at last."""
    success: bool = False

    @property
    def total(self) -> float:
        return sum(sum(turn.paid.values()) for turn in self.turns)


def talks(env: TextEnv, policy: Policy, rewards: Rewards, greedy: bool = True) -> list[Talk]:
    """One episode of every world."""
    watched = Rewards(
        {**rewards.channels, WATCH: Channel(WATCH, _Watch())}, env.num_worlds, rewards.gamma
    )
    collector = Collector(env, watched, max_fault_rate=1.0)
    collector.start(policy, stagger=False)
    tasks = [row["task"] for row in env.snapshot(np.arange(env.num_worlds))]
    traj = collector.collect_episodes(_Greedy(policy) if greedy else policy)
    return [_talk(traj, n, task) for n, task in enumerate(tasks)]


def cast(actor: Actor, cfg: DictConfig, env: TextEnv) -> tuple[Policy, Rewards]:
    """Who speaks, and the reward models that judge it: of a run as it left them."""
    if actor.run is None:
        return actor.policy(env), make_rewards(cfg, env, 1.0)
    agent: Any = make_agent(actor.run.cfg, env, num_worlds=actor.run.cfg.num_envs)
    state = actor.run.checkpoint.state
    agent.load_state_dict(state["agent"])
    if not hasattr(agent, "rollout_steps") or "collector" not in state:  # of `embodied imitate`
        return agent.policy, make_rewards(cfg, env, 1.0)
    rewards = make_rewards(cfg, env, agent.gamma, agent)
    rewards.load_state_dict(state["collector"]["rewards"])
    return agent.policy, rewards


def show(env: TextEnv, told: Sequence[Talk], console: Console) -> None:
    """Print talks, turn by turn."""
    for talk in told:
        console.rule(f"{env.name}, task {talk.task}")
        for turn in talk.turns:
            console.print(escape(turn.seen))
            console.print(f"[bold cyan]> {escape(turn.said) or '(nothing)'}[/]  {_margin(turn)}")
        console.print(escape(talk.last))
        word = "[bold green]success[/]" if talk.success else "[bold red]no success[/]"
        console.print(f"{word}, {len(talk.turns)} turns, {talk.total:+.2f} in all")


def play_talks(actor: Actor, cfg: DictConfig, env: TextEnv, greedy: bool, out: str | None) -> None:
    """Show talks of an actor at the terminal, and write them to the page `out`.

    Raises `UserError` where `out` cannot be written.
    """
    policy, rewards = cast(actor, cfg, env)
    console = Console(highlight=False, soft_wrap=True)
    told = talks(env, policy, rewards, greedy)
    show(env, told[-1:] if isinstance(policy, Human) else told, console)
    page = Path(out) if out else actor.folder / "talks.html" if actor.folder else None
    if page is not None:
        write_page(page, env.name, actor.title, told)
        console.print(f"{page}")


def write_page(path: Path, env: str, who: str, told: Sequence[Talk]) -> None:
    """Write talks as one HTML file that needs nothing else."""
    from embodied.talk_page import render

    try:
        path.write_text(render(env, who, told))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _margin(turn: Said) -> str:
    """What is said beside a turn."""
    paid = [f"{name} {value:+.2f}" for name, value in turn.paid.items() if value]
    told = [f"{name.partition('/')[2]} {value:.2f}" for name, value in turn.told.items()]
    done = f"{turn.progress:.0%} done"
    shown = [*paid, *told, done, *([] if turn.valid else ["not understood"])]
    return f"[dim]{escape(' · '.join(shown))}[/]"


def _talk(traj: Trajectory, n: int, task: int) -> Talk:
    rows = np.flatnonzero(traj.due[:, n]) if traj.due is not None else range(traj.shape[0])
    talk = Talk(task)
    for t in rows:
        paid = {
            name: float(traj.weights[name] * term[t, n])
            for name, term in traj.reward_terms.items()
            if name != WATCH and traj.weights[name]
        }
        valid = bool(traj.readouts["world.valid"][t, n])
        progress = float(traj.readouts["world.progress"][t, n])
        seen, said = str(traj.obs["text"][t, n]), str(traj.action[t, n])
        told = {k: float(v[t, n]) for k, v in traj.told.items() if np.isfinite(v[t, n])}
        talk.turns.append(Said(seen, said, valid, progress, paid, told))
    if len(rows):
        end = traj.final_index[rows[-1], n]
        talk.last = str(traj.final_obs["text"][end]) if end >= 0 else ""
        talk.success = bool(traj.readouts["success"][rows[-1], n])
    return talk


class _Greedy:
    """A policy that says what it holds most likely."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.action_spec = policy, policy.action_spec

    def carry(self, num_worlds: int) -> Carry:
        return self.policy.carry(num_worlds)

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        return self.policy.act(carry, obs, True)

    @property
    def extras(self) -> dict[str, Array]:
        return getattr(self.policy, "extras", {})


class _Watch:
    """Pays nothing."""

    kind, scope, causal, blind, value_range = "reward", "step", True, True, (0.0, 0.0)
    needs = Needs(readouts=frozenset(SHOWN), privileged=frozenset(SHOWN))

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        return carry, Score(np.zeros(traj.shape, np.float32), np.full(traj.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass
