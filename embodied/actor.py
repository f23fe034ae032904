"""Who acts when a policy is evaluated or played: a trained run, an SB3 policy, the expert, chance.

runs/NAME                a run directory, its newest valid checkpoint
runs/NAME/checkpoints/step_000000012345
model.zip                a policy saved by stable-baselines3
exported/                a folder that `embodied export` wrote
ws://HOST:PORT           the policy that `embodied serve` has there (wss:// with TLS)
expert, expert:FLAW      the task's scripted expert, or its flawed variant
random                   uniform actions within their limits
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.errors import HydraException
from hydra.utils import get_class, get_method
from omegaconf import DictConfig, OmegaConf

from embodied.agent import Policy
from embodied.config import amend, compose_config, resolved
from embodied.env import Stepper, TaskEnv
from embodied.errors import UserError, unknown
from embodied.exported import is_exported, read_exported
from embodied.run import Run, load_policy, open_run
from embodied.task import Task
from embodied.text_env import TextEnv
from embodied.text_policies import Gold, Human
from embodied.types import ActionSpec, Carry, Obs

ROWS = 16


@dataclass(frozen=True)
class Actor:
    """Something that acts; `name` says exactly what (a checkpoint's step and hash)."""

    name: str
    policy: Callable[[Stepper], Policy]
    run: Run | None = None

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name if self.run is None else f"after {self.run.checkpoint.step:,} steps"

    @property
    def folder(self) -> Path | None:
        """Where what is found out about it belongs: never inside a checkpoint."""
        if self.run is None:
            return None
        return self.run.path.parent if self.run.path == self.run.checkpoint.path else self.run.path

    def worlds(
        self, overrides: Sequence[str] = (), config_dir: str | Path | None = None
    ) -> DictConfig:
        """The configuration of the worlds to act in: those it was trained in, with `overrides`.

        `sim=` and `robot=` put another simulator or robot into them. One that was not trained by
        us, or that gets another `env=`, acts in worlds composed anew.
        """
        overrides = [text for text in overrides if not text.startswith("agent")]
        groups = {text.partition("=")[0] for text in overrides}
        if self.run is not None and "env" not in groups:
            swaps = [text for text in overrides if text.partition("=")[0] in ("sim", "robot")]
            cfg = swap(self.run.cfg, swaps, config_dir)
            return amend(cfg, [text for text in overrides if text not in swaps])
        if "env" not in groups:
            raise UserError(f"{self.name}: say in which worlds, as env=NAME")
        return OmegaConf.create(resolved(compose_config(overrides, config_dir=config_dir)))


def swap(
    cfg: DictConfig, choices: Sequence[str], config_dir: str | Path | None = None
) -> DictConfig:
    """A copy of a run's configuration with another simulator or robot: `sim=NAME`, `robot=NAME`.

    All else of its worlds stays as it was. Raises `UserError` where they take none.
    """
    if not choices:
        return cfg
    fresh = compose_config([*choices, "env=reach"], config_dir=config_dir)
    swapped = copy.deepcopy(cfg)
    for group in {text.partition("=")[0] for text in choices}:
        if group == "sim":
            taken = "task" in cfg.env
            swapped.sim = fresh.sim  # its interpolations are looked up here
        else:
            robot = OmegaConf.create(resolved(fresh)["robot"])
            taken = _replace(swapped.env, cfg.get("robot"), robot)
            swapped.robot = robot
        if not taken:
            raise UserError(f"env={cfg.env.name} takes no {group}: leave out {group}=...")
    return OmegaConf.create(resolved(swapped))


def _replace(node: DictConfig, old: Any, new: DictConfig) -> bool:
    """Put `new` where a part of `node` equals `old`; whether there was any."""
    found = False
    for key, part in list(node.items()):
        if isinstance(part, DictConfig) and part == old:
            node[key], found = copy.deepcopy(new), True
        elif isinstance(part, DictConfig):
            found |= _replace(part, old, new)
    return found


def find_actor(who: str, overrides: Sequence[str] = (), trust_pickle: bool = False) -> Actor:
    """The actor that `who` names, see the head of this file; `agent.device=cpu` changes its agent.

    With `trust_pickle` the pickled parts of an SB3 model are run. Raises `UserError`.
    """
    kind, _, flaw = who.partition(":")
    if kind == "expert":
        return Actor(who, lambda env: _expert(env, flaw or None))
    if who == "random":
        return Actor(who, Chance)
    if who == "human":
        return Actor(who, _human)
    if who.startswith(("ws://", "wss://")):
        return _remote(who)
    if is_exported(who):
        return _onnx(who)
    if who.endswith(".zip"):
        return _sb3(Path(who), trust_pickle)
    run = open_run(who)
    run.cfg = amend(run.cfg, [text for text in overrides if text.startswith("agent")])
    for line in run.checkpoint.skipped:
        print(f"passed over: {line}", file=sys.stderr)
    manifest = json.loads((run.checkpoint.path / "manifest.json").read_bytes())
    name = f"{run.checkpoint.path.name}@{manifest['sha256'][:12]}"
    return Actor(name, lambda env: _in_blocks(load_policy(run, env)), run)


def _in_blocks(policy: Policy) -> Policy:
    """A policy that speaks keeps what it has read of each world: it is asked about all at once."""
    return policy if getattr(policy, "speaks", False) else InBlocks(policy)


def _human(env: Stepper) -> Policy:
    if not isinstance(env, TextEnv):
        raise UserError(f"{env.name}: only a world of text can be talked to")
    return Human()


def _expert(env: Stepper, flaw: str | None) -> Policy:
    if not isinstance(env, TextEnv):
        return Expert(env, flaw)
    if flaw is not None:
        raise UserError(f"{env.name}: the gold actions have no flaw {flaw!r}")
    return Gold(env)


def _sb3(path: Path, trust_pickle: bool) -> Actor:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        load = get_method("embodied.agents.sb3_ppo.load_sb3_zip")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (HydraException, ImportError) as error:
        raise UserError(f"{path}: needs stable-baselines3 ({error})") from error
    name = f"{path.name}@{digest[:12]}"
    return Actor(name, lambda env: InBlocks(load(path, env, trust_pickle)))


def _remote(url: str) -> Actor:
    """The policy that `embodied serve` has at a websocket."""
    try:
        policy = get_class("embodied.agents.remote.RemotePolicy")(url)
    except (HydraException, ImportError) as error:
        raise UserError(f"{url}: needs embodied-rl[serve] ({error})") from error

    def fitted(env: Stepper) -> Policy:
        policy.check(env.observation_space, env.action_spec)
        return InBlocks(policy)

    return Actor(policy.name, fitted)


def _onnx(folder: str) -> Actor:
    try:
        load = get_method("embodied.agents.onnx_policy.load_onnx")
    except (HydraException, ImportError) as error:
        raise UserError(f"{folder}: needs embodied-rl[onnx] ({error})") from error
    return Actor(read_exported(folder).name, lambda env: InBlocks(load(folder, env)))


class InBlocks:
    """A policy whose action in a world does not depend on the other worlds, bit for bit.

    The last bits of a matrix product depend on its height and on a row's place in it, and
    physics makes them grow. So the policy is asked about blocks of `ROWS` worlds, in which a
    world's place follows from the seed of its episode; empty places are filled with any world.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self.action_spec = policy, policy.action_spec

    def carry(self, num_worlds: int) -> Carry:
        self.seat(np.arange(num_worlds))
        return self.policy.carry(num_worlds)

    def seat(self, seeds: np.ndarray) -> None:
        """Say which episodes the worlds are running, `(N,)`: those of one place take turns."""
        self.places = seeds % ROWS
        order = np.argsort(self.places, kind="stable")
        grouped = self.places[order]
        self.turns = np.empty_like(order)
        self.turns[order] = np.arange(len(order)) - np.searchsorted(grouped, grouped)
        self.blocks = np.zeros((self.turns.max() + 1, ROWS), np.int64)
        self.blocks[self.turns, self.places] = np.arange(len(order))

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        afters, actions = [], []
        for worlds in self.blocks:
            before, seen = ({k: v[worlds] for k, v in part.items()} for part in (carry, obs))
            after, action = self.policy.act(before, seen, greedy)
            afters.append(after)
            actions.append(action)

        def back(parts: list[np.ndarray]) -> np.ndarray:
            return np.stack(parts)[self.turns, self.places]

        return {k: back([after[k] for after in afters]) for k in carry}, back(actions)


def seat(policy: Policy, seeds: np.ndarray) -> None:
    """Tell a policy that wants to know which episodes `(N,)` its worlds run."""
    if isinstance(policy, InBlocks):
        policy.seat(seeds)


class Expert:
    """The task's scripted expert, or one of its flaws."""

    def __init__(self, env: Stepper, flaw: str | None = None) -> None:
        if not isinstance(env, TaskEnv) or type(env.task).expert is Task.expert:
            raise UserError(f"{env.name} has no scripted expert")
        flaws = [known.name for known in env.task.flaws]
        if flaw is not None and flaw not in flaws:
            raise unknown(f"flaw of {env.name}'s expert", flaw, flaws)
        self.env, self.flaw = env, flaw
        self.action_spec: ActionSpec | None = env.action_spec

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        return carry, self.env.expert(self.flaw)


class Chance:
    """Actions drawn uniformly within their limits (a standard normal where there are none)."""

    def __init__(self, env: Stepper, seed: int = 0) -> None:
        if isinstance(env, TextEnv):
            raise UserError(
                f"{env.name}: texts at random say nothing: expert, human or a run speaks"
            )
        self.action_spec: Any = env.action_spec
        self.space = copy.deepcopy(env.action_space)
        self.space.seed(seed)

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        count = len(next(iter(obs.values())))
        actions = [np.reshape(self.space.sample(), -1) for _ in range(count)]
        return carry, np.stack(actions).astype(np.float32)
