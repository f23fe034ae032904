"""From a configuration to the objects of a run. Only Hydra's `_target_` reaches a leaf."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from array_api_compat import is_torch_namespace
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from embodied.agent import Agent
from embodied.collect import Collector
from embodied.env import Stepper, TaskEnv
from embodied.errors import UserError
from embodied.host_env import HostTaskEnv
from embodied.randomise import Randomisation
from embodied.reward_model import Channel, RewardModel
from embodied.rewards import Rewards

MOST_WORLDS = 1_000_000
_CHANNEL_KEYS = ("weight", "shaping", "every", "late", "threshold", "bonus", "clip")


def make_env(
    cfg: DictConfig, num_envs: int | None = None, seed: int | None = None, first_world: int = 0
) -> Stepper:
    """The worlds of a run. Raises `UserError` when they cannot be made."""
    count = cfg.num_envs if num_envs is None else num_envs
    if not 1 <= count <= MOST_WORLDS:
        raise UserError(f"num_envs={count}: give a whole number >= 1 and <= {MOST_WORLDS}")
    seed = cfg.seed if seed is None else seed
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: give a whole number from 0 to {2**32 - 1}")
    if "task" not in cfg.env:
        limit, seed = cfg.env.max_steps, seed + first_world
        return make(cfg.env.stepper, num_worlds=count, max_steps=limit, seed=seed)
    task = make(cfg.env.task)
    sim = make(cfg.sim, source=task.model(), num_worlds=count)
    randomise = Randomisation(**OmegaConf.to_container(cfg.env.randomise, resolve=True))  # type: ignore[arg-type]
    kind = HostTaskEnv if is_torch_namespace(sim.xp) else TaskEnv
    return kind(task, sim, cfg.env.max_steps, seed, first_world, randomise)


def make_rewards(
    cfg: DictConfig, env: Stepper, gamma: float, agent: Agent | None = None
) -> Rewards:
    """All reward models of a run, shaped and weighted as configured.

    One that takes `language` is given a function that returns the language model of the agent.
    """
    channels = {}
    for name, node in (cfg.get("reward_model") or {}).items():
        options = {k: node[k] for k in _CHANNEL_KEYS if k in node}
        _check_kinds(Channel, options, f"reward_model.{name}")
        model = make_reward_model(cfg, env, name, agent)
        channels[name] = Channel(name, model, whole=_whole(agent), **options)
    return Rewards(channels, env.num_worlds, gamma)


def make_reward_model(
    cfg: DictConfig, env: Stepper, name: str, agent: Agent | None = None
) -> RewardModel:
    """One reward model by its name in the configuration, without its shaping."""
    node = cfg.reward_model[name]
    rest = OmegaConf.create({k: v for k, v in node.items() if k not in _CHANNEL_KEYS})
    task = getattr(env, "task", None)
    offered = {
        "observation_space": env.observation_space,
        "proprio_size": getattr(task, "proprio_size", None),
        "instructions": getattr(task, "instructions", ()),
        "language": partial(_language, agent),
    }
    return make(rest, offered)


def _whole(agent: Agent | None) -> bool:
    """Whether an agent learns from whole episodes."""
    return agent is not None and getattr(agent, "rollout_steps", 1) is None


def _language(agent: Agent | None) -> Any:
    """The language model of an agent. Raises `UserError` where it has none."""
    if agent is None or not hasattr(type(agent), "language"):
        raise UserError(
            "this reward model needs an agent that speaks: agent=gigpo, grpo, rloo, ..."
        )
    return agent.language  # type: ignore[attr-defined]


def make_collector(cfg: DictConfig, env: Stepper, agent: Agent, rewards: Rewards) -> Collector:
    """What rolls out the agent's policy in these worlds: on their device, where that can be."""
    how = (env, rewards, cfg.max_fault_rate, cfg.stagger)
    if isinstance(env, HostTaskEnv):
        from embodied.device_collect import DeviceCollector, fits

        if fits(env, agent, rewards):
            return DeviceCollector(*how)
    return Collector(*how, transform=getattr(agent, "transform", None))


def make_agent(cfg: DictConfig, env: Stepper, num_worlds: int | None = None) -> Agent:
    """The agent of a run, for the spaces of its worlds (`num_worlds`: where it was trained)."""
    offered = {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "action_spec": env.action_spec,
        "num_worlds": num_worlds or env.num_worlds,
        "seed": cfg.seed,
    }
    return make(cfg.agent, offered)


def make(node: Any, offered: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """Instantiate a `_target_` with what the core gives it, and what it takes of the `offered`.

    Raises `UserError` for a target that cannot be found, and for a wrong or missing argument.
    """
    try:
        factory = instantiate(node, _partial_=True, _convert_="all")
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        text = " ".join(str(cause).split())[:300]
        raise UserError(f"cannot make {node.get('_target_')}: {text}") from error
    signature = inspect.signature(factory.func)
    taken = signature.parameters.keys() - factory.keywords.keys()
    given |= {name: value for name, value in (offered or {}).items() if name in taken}
    try:
        signature.bind(**factory.keywords, **given)
    except TypeError as error:
        raise UserError(f"{node['_target_']}: {error}") from error
    _check_kinds(factory.func, factory.keywords, node["_target_"])
    return factory(**given)


_KINDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"
}  # fmt: skip


def _check_kinds(function: Any, options: Mapping[str, Any], where: str) -> None:
    """Refuse an option whose parameter is annotated with plain types, none of them its own."""
    line = reversed(function.__mro__) if inspect.isclass(function) else ()
    try:
        hints: dict[str, Any] = {}
        for part in [vars(kind).get("__init__") for kind in line] or [function]:
            hints |= get_type_hints(part) if inspect.isfunction(part) else {}
    except (NameError, TypeError):
        return  # annotated with names that cannot be looked up: its author's to check
    for name, value in options.items():
        hint = hints.get(name)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not set(kinds) <= _KINDS.keys() or type(value) in kinds:
            continue
        if not (type(value) is int and float in kinds):
            wanted = " or ".join(_KINDS[kind] for kind in kinds)
            raise UserError(f"{where}: {name}={value!r}: give {wanted}")
