"""`embodied fit`: train a reward model on rollouts of the scripted expert, good and flawed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.build import make_env, make_reward_model
from embodied.collect import Collector
from embodied.config import compose_config
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.reward_model import Channel, Needs, Rewards
from embodied.types import SCORED, Array, Carry, Moment, Obs, Score, Trajectory


def fit(overrides: Sequence[str], out: str | Path, config_dir: str | Path | None = None) -> dict:
    """Fit the one configured reward model and save it to `out`; its figures.

    Every world plays one episode: two fifths by the expert, one by its flaws in turn, one by
    uniformly random actions, and one by the expert and chance by turns.
    """
    cfg = compose_config(overrides, config_dir=config_dir)
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(f"fit takes one reward model, not {names}: reward_model=success")
    if Path(out).exists():
        raise UserError(f"{out} exists: choose another out=")
    env = make_env(cfg)
    model: Any = make_reward_model(cfg, env, names[0])
    if not hasattr(model, "fit"):
        raise UserError(f"reward_model={names[0]} has nothing to fit")
    figures = model.fit(demonstrations(env, cfg.seed))
    model.save(out)
    env.close()
    return figures


def demonstrations(env: Stepper, seed: int = 0) -> Trajectory:
    """One episode in every world, good and bad, with the readouts "success" and "reward"."""
    policy = _Mixture(env, seed)
    rewards = Rewards({"label": Channel("label", _Labels())}, env.num_worlds, 1.0)
    return Collector(env, rewards).collect(policy, env.max_steps)


class _Labels:
    """Asks for the readouts that demonstrations are labelled with; scores nothing."""

    kind, scope, causal, value_range = "reward", "step", True, (0.0, 0.0)
    needs = Needs(readouts=frozenset({"reward", "success"}))

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        return carry, Score(np.zeros(traj.shape, np.float32), np.full(traj.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


class _Mixture:
    """World i follows the expert, one of its flaws, chance, or expert and chance by turns."""

    def __init__(self, env: Stepper, seed: int) -> None:
        task = getattr(env, "task", None)
        if task is None or env.action_spec is None:
            raise UserError(f"{env.name} has no scripted expert to collect from")
        self.env, self.action_spec = env, env.action_spec
        self.flaws = [flaw.name for flaw in task.flaws]
        self.rng = np.random.default_rng(seed)
        self.role = np.arange(env.num_worlds) % 5
        self.turn = 0

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        spec, role = self.action_spec, self.role[:, None]
        chance = self.rng.uniform(spec.low, spec.high, (len(role), spec.size)).astype(np.float32)
        action = np.asarray(self.env.expert(), np.float32)  # type: ignore[attr-defined]
        for k, flaw in enumerate(self.flaws):
            mine = (role == 1) & ((np.arange(len(role)) // 5 % len(self.flaws))[:, None] == k)
            action = np.where(mine, self.env.expert(flaw), action)  # type: ignore[attr-defined]
        distracted = (role == 3) & (self.turn // 10 % 2 == 1)
        self.turn += 1
        return carry, np.where((role == 2) | distracted, chance, action).astype(np.float32)
