"""`embodied bench`: where the time of a run goes, phase by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.config import compose_config, resolved
from embodied.errors import UserError, check_range

WARM_UP = 2
"""Rollouts and updates before the clock starts: what is compiled, is compiled then."""


class Phases:
    """Seconds by phase. A phase within another counts for itself alone, and not for the other."""

    def __init__(self, synchronise: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = ["other"]
        self._since = time.perf_counter()
        self._synchronise = synchronise

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._switch()
        self._within.append(name)
        try:
            yield
        finally:
            self._switch()
            self._within.pop()

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count the calls of a method of this one object as a phase."""
        call = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return call(*args, **kwargs)

        object.__setattr__(owner, method, watched)

    def restart(self) -> None:
        self.stop()
        self.seconds.clear()

    def stop(self) -> None:
        """Count what has passed until now."""
        self._switch()

    def _switch(self) -> None:
        """What passed since the last switch was the phase that is on."""
        self._synchronise()
        now = time.perf_counter()
        self.seconds[self._within[-1]] += now - self._since
        self._since = now


def bench(
    overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> dict[str, dict[str, float]]:
    """Run a few rollouts and updates; the seconds and the share of each phase, by name.

    "total" has also the `steps_per_s` of env steps. Raises `UserError` for an agent whose library
    owns its loop.
    """
    cfg = OmegaConf.create(resolved(compose_config(overrides, "bench", config_dir)))
    check_range("bench", 1, updates=cfg.updates)
    env = make_env(cfg)
    agent = make_agent(cfg, env)
    if hasattr(agent, "learn") or not hasattr(agent, "update"):
        raise UserError("bench: this agent's library owns its loop: take agent=ppo or agent=sac")
    rewards = make_rewards(cfg, env, agent.gamma)
    collector = make_collector(cfg, env, agent, rewards)
    if hasattr(collector, "captures"):
        collector.captures = False
    phases = Phases(_synchronise(cfg.device))
    _watch(phases, env, agent, rewards)
    for k in range(WARM_UP + cfg.updates):
        if k == WARM_UP:
            phases.restart()
            first = collector.steps
        traj = collector.collect(agent.policy, agent.rollout_steps)
        agent.update(traj)
    phases.stop()
    total = sum(phases.seconds.values())
    table = {
        name: {"seconds": seconds, "share": seconds / total}
        for name, seconds in sorted(phases.seconds.items(), key=lambda item: -item[1])
    }
    env.close()
    rate = (collector.steps - first) / total
    return table | {"total": {"seconds": total, "share": 1.0, "steps_per_s": rate}}


def _watch(phases: Phases, env: Any, agent: Any, rewards: Any) -> None:
    task, sim = getattr(env, "task", None), getattr(env, "sim", None)
    if task is not None and sim is not None:
        phases.watch(sim, "step", "physics")
        phases.watch(task, "observe", "observe")
        phases.watch(task, "reward", "reward")
    else:
        phases.watch(env, "step", "physics")
    phases.watch(env, "reset", "reset")
    if hasattr(env, "device_reset"):
        phases.watch(env, "device_reset", "reset")
    phases.watch(rewards, "label", "judge")
    for method in ("act", "decide"):
        if hasattr(agent.policy, method):
            phases.watch(agent.policy, method, "act")
    phases.watch(agent, "update", "update")


def _synchronise(device: str) -> Callable[[], None]:
    """What waits for a GPU: it works on while Python goes ahead."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return torch.cuda.synchronize


def show(table: dict[str, dict[str, float]]) -> None:
    """Print it, the longest phase first."""
    print(f"{'phase':<10}{'seconds':>10}{'share':>8}")
    for name, row in table.items():
        print(f"{name:<10}{row['seconds']:>10.2f}{row['share']:>8.1%}")
    print(f"{table['total']['steps_per_s']:,.0f} env steps/s")
