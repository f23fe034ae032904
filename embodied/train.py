"""`embodied train`: compose, collect, update, log, save; and go on after any interruption."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied import processes
from embodied.agent import Agent
from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.checkpoint import checkpoint_name, save_checkpoint
from embodied.config import amend, compose_config, resolved
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.evaluate import can_succeed
from embodied.rewards import Rewards
from embodied.run import Run, open_run, reward_hash, versions, write_json
from embodied.run_log import RunLog, progress_bar
from embodied.text_env import TextEnv
from embodied.types import Trajectory


def train(
    overrides: Sequence[str] = (),
    resume: str | Path | None = None,
    config_dir: str | Path | None = None,
) -> Path:
    """Train as configured and return the run directory.

    With `resume`, a run directory is continued from its newest valid checkpoint; for an env with
    a state this equals the uninterrupted run bit for bit. Overrides may then only raise
    `total_steps` and change what does not touch learning.

    Where `torchrun` has started several processes, each has `num_envs` worlds, and all learn one
    policy (see `embodied.processes`).

    Raises `UserError` before anything is written, or when a run can no longer learn.
    """
    if resume is not None:
        run = open_run(resume)
        processes.join(run.cfg.get("device", "cpu"))
        run = _own_run(run, resume)
        cfg = run.cfg
        for text in overrides:
            key = text.partition("=")[0]
            if key not in RESUMABLE:
                free = ", ".join(RESUMABLE)
                raise UserError(f"--resume: {key} is fixed by the run; free to change: {free}")
        cfg = amend(cfg, overrides)
        training = Training(cfg, run.path)
        training.load(run.checkpoint.state)
        say(f"resuming {run.path} at {training.steps:,} steps")
        for line in run.checkpoint.skipped:
            say(f"passed over: {line}")
        if not training.env.exact_resume:
            say(f"{training.env.name} cannot save its state: its episodes start anew")
    else:
        cfg = OmegaConf.create(resolved(compose_config(overrides, config_dir=config_dir)))
        processes.join(cfg.device)
        path = Path(cfg.run_dir or _default_name(cfg))
        if processes.any_says((path / "checkpoints").exists() or (path / "log.jsonl").exists()):
            raise UserError(f"{path} holds a run already: --resume {path}, or another run_dir")
        training = Training(cfg, path)
        if cfg.demonstrations is not None:
            training.show(cfg.demonstrations)
        if not hasattr(training.agent, "learn"):
            stagger = training.agent.rollout_steps is not None  # not where whole ones are learned
            training.collector.start(training.agent.policy, stagger)  # what cannot begin ends here
        if processes.rank() == 0:
            training.write_header()
    training.run()
    processes.leave()
    return training.path


def _own_run(run: Run, path: str | Path) -> Run:
    """The run at `path` as this process left it, where it is one of several."""
    there = run.checkpoint.state.get("processes", 1)
    if there != processes.count():
        many = f"with torchrun --nproc_per_node={there} -m " if there > 1 else "alone, with "
        raise UserError(f"{path} is a run of {there} processes: resume it {many}embodied train")
    if there == 1:
        return run
    own = run if processes.rank() == 0 else open_run(run.path / _checkpoints())
    least = processes.fewest(own.checkpoint.step)
    if least == own.checkpoint.step:
        return own
    return open_run(run.path / _checkpoints() / checkpoint_name(least))


def _checkpoints() -> str:
    """The folder of this process's checkpoints in a run directory."""
    return "checkpoints" if processes.rank() == 0 else f"checkpoints_{processes.rank()}"


MOST_TALKS = 16
"""Episodes on the page that a run with a world of text leaves."""
RESUMABLE = ("total_steps", "checkpoint_every_s", "keep_checkpoints", "tensorboard", "video")


class Training:
    """The parts of a run and its loop."""

    def __init__(self, cfg: DictConfig, path: Path) -> None:
        if cfg.total_steps < 1:
            raise UserError(f"total_steps={cfg.total_steps}: give a whole number >= 1")
        self.cfg, self.path = cfg, path
        first = processes.rank() * cfg.num_envs
        self.env: Stepper = make_env(cfg, first_world=first)
        self.agent: Agent = make_agent(cfg, self.env)
        self.owns_loop = hasattr(self.agent, "learn")  # a library's agent
        if self.owns_loop and list(cfg.reward_model) != ["env"]:
            raise UserError(
                f"{_agent_name(cfg)} learns from the env's own reward alone: leave out "
                "reward_model, or take agent=ppo"
            )
        if self.owns_loop and processes.count() > 1:
            raise UserError(
                f"{_agent_name(cfg)} learns in one process: take agent=ppo or agent=sac"
            )
        self.rewards = make_rewards(cfg, self.env, self.agent.gamma, self.agent)
        if self.rewards.lag and not hasattr(self.agent, "relabel"):
            raise UserError(
                f"reward_model.NAME.late={self.rewards.lag}: {_agent_name(cfg)} learns from a "
                "rollout at once: take agent=sac, or late=0"
            )
        if processes.count() > 1 and getattr(self.agent, "rollout_steps", 1) is None:
            raise UserError(f"{_agent_name(cfg)} learns in one process: leave out torchrun")
        if processes.count() > 1 and self.rewards.learning:
            raise UserError(
                f"reward_model={self.rewards.learning[0]} learns in one process: leave out torchrun"
            )
        if cfg.stop_at_judged is not None and (not self.rewards.learned or self.rewards.lag):
            raise UserError("stop_at_judged: no reward model that learned judges this run at once")
        self.audits = _audits(cfg, self.env, self.rewards)
        self.collector = make_collector(cfg, self.env, self.agent, self.rewards)
        self.recent: dict[str, deque[float]] = {
            name: deque(maxlen=int(cfg.stop_window)) for name in ("return", "success")
        }
        self.elapsed_s = 0.0
        self.told = time.monotonic()
        self.stop_requested = False

    def show(self, demonstrations: str) -> None:
        """Give the agent's replay demonstrations to begin with."""
        if not hasattr(self.agent, "begin_with"):
            raise UserError(
                f"demonstrations: {_agent_name(self.cfg)} has no replay for them: take agent=sac, "
                "or clone them (embodied imitate) and begin there (agent.start=RUN)"
            )
        from embodied.shown import read_shown

        traj = read_shown(self.cfg, self.env, self.agent.gamma, demonstrations)
        self.agent.begin_with(traj)

    def write_header(self) -> None:
        """What the run is made of, before its first step."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.cfg, self.path / "config.yaml")
            header = {
                "env": self.env.name,
                "seed": self.cfg.seed,
                "reward_hash": reward_hash(self.cfg, self.env, self.rewards),
                "audits": self.audits,
                "started": datetime.now().isoformat(timespec="seconds"),
                "command": ["embodied", *sys.argv[1:]],
                "versions": versions(),
            }
            write_json(self.path / "run.json", header)
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from error

    @property
    def steps(self) -> int:
        """Of all worlds, those of other processes too."""
        return self.collector.steps * processes.count()

    def run(self) -> None:
        """Train until the budget, a goal or Ctrl-C; always leave a checkpoint."""
        if processes.rank() == 0:
            self._run()
        else:
            with _InterruptFlag(self):
                self._loop(lambda figures: self._agree(False, False))
            self.save()
            self.env.close()

    def _run(self) -> None:
        log = RunLog(self.path, self.cfg.tensorboard, self.steps)
        progress, bar = progress_bar(self.cfg.total_steps, self.steps)
        saved = time.monotonic()

        def after_update(figures: Mapping[str, float]) -> bool:
            """Log, show and save; whether to stop."""
            nonlocal saved
            if self.owns_loop:
                self._follow(figures)
            log.row(figures)
            shown = _headline(figures)
            if self.collector.trust is not None:
                shown = f"{shown}  {self.collector.trust.alarm()}".rstrip()
            progress.update(bar, completed=int(figures["steps"]), figures=shown)
            if progress.disable and time.monotonic() - self.told > 10.0:
                self.told = time.monotonic()
                say(f"{int(figures['steps']):>12,} steps  {shown}")
            due = time.monotonic() - saved > self.cfg.checkpoint_every_s
            stop = self._agree(due, self._goal_reached())
            saved = time.monotonic() if due else saved
            return stop

        say(f"training {self.env.name} in {self.path}")
        try:
            with _InterruptFlag(self), progress:
                self._loop(after_update)
            self.save()
        finally:
            log.plot(self.path / "curves.png")
            log.close()
        if self.stop_requested:
            say(f"stopped and saved; go on with: embodied train --resume {self.path}")
        elif self.cfg.video:
            self._record()
        self.env.close()

    def _agree(self, due: bool, stop: bool) -> bool:
        """Save where the first process finds that due; stop where it says so, or any was asked."""
        due, stop = (bool(value) for value in processes.first_says([due, stop]))
        if due:
            self.save()
        return processes.any_says(self.stop_requested) or stop

    def _loop(self, after_update: Callable[[Mapping[str, float]], bool]) -> None:
        agent: Any = self.agent
        if self.owns_loop:
            agent.learn(self.env, self.cfg.total_steps, after_update)
            return
        stop = False
        while not stop and self.steps < self.cfg.total_steps:
            start = time.perf_counter()
            self.agent.progress = self.steps / self.cfg.total_steps
            traj = self.collector.collect(self.agent.policy, self.agent.rollout_steps)
            for late in self.collector.arrived():
                agent.relabel(late.step_id, {late.channel: late.term})
            collected = time.perf_counter()
            metrics = self.agent.update(traj)
            told = self.rewards.learn(traj)
            end = time.perf_counter()
            self.elapsed_s += end - start
            stop = after_update(
                self._figures(processes.count() * _made(traj) / (end - start), metrics)
                | {f"model/{name}": value for name, value in told.items()}
                | {"collect_share": (collected - start) / (end - start)}
            )

    def _figures(self, steps_per_s: float, metrics: Mapping[str, float]) -> dict[str, float]:
        """One row of the log."""
        row = {"steps": float(self.steps), "elapsed_s": self.elapsed_s}
        row["steps_per_s"] = steps_per_s
        for name, values in self.collector.episodes.drain().items():
            if name in self.recent:
                self.recent[name].extend(float(v) for v in values)
            if name != "success" or can_succeed(self.env):
                row[f"episode/{name}"] = float(np.mean(values))
        row |= {f"agent/{name}": value for name, value in metrics.items()}
        if self.collector.trust is not None:
            row |= self.collector.trust.figures()
        row |= {f"part/{name}": value for name, value in self.rewards.parts.items()}
        row["faults"] = float(self.collector.faults)
        for status in ("abstained", "failed"):
            row[f"reward/{status}"] = float(self.rewards.counts[status])
        return row

    def _follow(self, figures: Mapping[str, float]) -> None:
        """Keep the counters that a library's loop does not know of."""
        self.collector.steps = int(figures["steps"])
        self.elapsed_s = figures.get("elapsed_s", self.elapsed_s)
        for name, recent in self.recent.items():
            if f"episode/{name}" in figures:
                recent.extend([figures[f"episode/{name}"]] * (recent.maxlen or 1))

    def _goal_reached(self) -> bool:
        for name, goal in (
            ("success", self.cfg.stop_at_success),
            ("return", self.cfg.stop_at_return),
        ):
            recent = self.recent[name]
            if goal is not None and len(recent) == recent.maxlen and np.mean(recent) >= goal:
                return True
        trust, goal = self.collector.trust, self.cfg.stop_at_judged
        return goal is not None and trust is not None and trust.judged >= goal

    def save(self) -> None:
        """A checkpoint that is durable when this returns."""
        state = {
            "agent": self.agent.state_dict(),
            "collector": self.collector.state_dict(),
            "recent": {name: list(values) for name, values in self.recent.items()},
            "elapsed_s": self.elapsed_s,
            "processes": processes.count(),
        }
        save_checkpoint(
            self.path / _checkpoints(),
            state,
            step=self.steps,
            config=OmegaConf.to_container(self.cfg, resolve=True),  # type: ignore[arg-type]
            keep=self.cfg.keep_checkpoints,
        )

    def load(self, state: Mapping[str, Any]) -> None:
        self.agent.load_state_dict(state["agent"])
        self.collector.load_state_dict(state["collector"])
        for name, values in state["recent"].items():
            self.recent[name].extend(values)
        self.elapsed_s = state["elapsed_s"]

    def _record(self) -> None:
        if isinstance(self.env, TextEnv):
            from embodied.talk import talks, write_page

            told = talks(self.env, self.agent.policy, self.rewards)
            write_page(self.path / "talks.html", self.env.name, str(self.path), told[:MOST_TALKS])
            return
        from embodied.play import record

        try:
            env = make_env(self.cfg, num_envs=1, seed=self.cfg.seed + 1_000_000)
            record(self.agent.policy, env, self.path / "video.mp4", episodes=2)
        except UserError as error:
            say(f"no video: {error}")


def _made(traj: Trajectory) -> int:
    """The steps of a rollout, without those for which a world rested."""
    return traj.reward.size if traj.due is None else int(np.asarray(traj.due).sum())


def _audits(cfg: DictConfig, env: Stepper, rewards: Rewards) -> dict[str, str]:
    """What the audit said of every learned reward; refuses one that has not passed."""
    found = {}
    for name, model in rewards.learned.items():
        from embodied.gate import audit_of

        verdict, detail = audit_of(model, cfg.reward_model[name], env.name)
        found[name] = verdict
        if verdict != "passed" and not cfg.allow_unaudited:
            raise UserError(
                f"reward_model.{name}: {verdict} ({detail}): run `embodied audit`, or train on it "
                "all the same with allow_unaudited=true"
            )
    return found


class _InterruptFlag:
    """Ctrl-C (or SIGTERM) asks for a stop after the update; a second one stops at once."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._on_signal)
        except ValueError:
            pass  # not in the main thread: whoever runs us handles signals

    def __exit__(self, *args: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.training.stop_requested:
            raise KeyboardInterrupt
        self.training.stop_requested = True
        say("stopping after this update; once more to stop at once")


def say(line: str) -> None:
    if processes.rank() > 0:
        return  # the first one tells
    print(line, file=sys.stderr, flush=True)


def _headline(figures: Mapping[str, float]) -> str:
    parts = []
    if "episode/return" in figures:
        parts.append(f"return {figures['episode/return']:.1f}")
    if "episode/success" in figures:
        parts.append(f"success {figures['episode/success']:.0%}")
    if figures.get("faults"):
        parts.append(f"faults {figures['faults']:.0f}")
    parts.append(f"{figures['steps_per_s']:,.0f} steps/s")
    return "  ".join(parts)


def _default_name(cfg: DictConfig) -> str:
    (now,) = processes.first_says([float(int(time.time()))])  # so that all have the same name
    stamp = datetime.fromtimestamp(now).strftime("%Y%m%d-%H%M%S")
    return f"runs/{cfg.env.name.replace('/', '_')}_{_agent_name(cfg)}_s{cfg.seed}_{stamp}"


def _agent_name(cfg: DictConfig) -> str:
    return str(cfg.agent["_target_"]).rsplit(".", 2)[-2]
