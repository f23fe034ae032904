"""Policies of Stable-Baselines3 under our contract, and reading them from SB3's `.zip` files.

A `.zip` holds weights, read here with `weights_only`, and settings in JSON. Settings that JSON
cannot say are pickled in it, and unpickling runs whatever code the file's author put there: they
are left alone, and the network is rebuilt from the shapes of its weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.policies import (
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from embodied.env import Stepper
from embodied.errors import UserError
from embodied.gym_view import ObsView
from embodied.sb3_view import SB3View
from embodied.spaces import vector_keys
from embodied.types import ActionSpec, Array, Carry, Obs

from .sb3_layers import greedy_layers

log = logging.getLogger(__name__)
NORMALISER = "embodied_normaliser.json"
ACTIVATIONS = ("Tanh", "ReLU", "ELU", "SiLU", "GELU", "LeakyReLU", "Sigmoid", "Mish", "Identity")
ALGORITHMS = {"sac": "SAC", "td3": "TD3", "dqn": "DQN"}  # by the module of their policies
TRUST = "trust_pickle=true runs the pickled code in it, if you trust its author"


class Normaliser:
    """`VecNormalize`'s running statistics: of observations by key, and of discounted returns."""

    limit, epsilon = 10.0, 1e-8

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.obs = {key: RunningMeanStd(shape=shape) for key, shape in shapes.items()}
        self.reward = RunningMeanStd(shape=())

    def __call__(self, key: str, obs: np.ndarray) -> np.ndarray:
        """Observations `(N, ...)` of one key in units of their spread, as float32."""
        seen = self.obs[key]
        unit = (obs - seen.mean) / np.sqrt(seen.var + self.epsilon)
        return np.clip(unit, -self.limit, self.limit).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"obs": {k: _moments(v) for k, v in self.obs.items()}} | {
            "reward": _moments(self.reward)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `UserError` for statistics of other observations."""
        for key, seen in [*self.obs.items(), ("reward", self.reward)]:
            row = state["reward"] if seen is self.reward else state["obs"].get(key, {})
            mean, var = (np.array(row.get(name, []), np.float64) for name in ("mean", "var"))
            if mean.shape != seen.mean.shape or var.shape != seen.var.shape:
                raise UserError(
                    f"the saved normaliser is of other observations: {key} is {mean.shape} there, "
                    f"{seen.mean.shape} here"
                )
            seen.mean, seen.var, seen.count = mean, var, float(row["count"])

    def to_json(self) -> dict[str, Any]:
        def plain(row: Any) -> Any:
            if isinstance(row, dict):
                return {k: plain(v) for k, v in row.items()}
            return np.asarray(row).tolist()

        return plain(self.state_dict())


class SB3Policy:
    """A policy of SB3. Discrete actions are whole numbers in `(N, A)` float32.

    `origin` says where a loaded one came from and whether its pickled code was run.
    """

    def __init__(
        self,
        net: BasePolicy,
        view: ObsView,
        action_spec: ActionSpec | None,
        normaliser: Normaliser | None = None,
    ) -> None:
        self.net, self.view, self.normaliser = net, view, normaliser
        self.action_spec: Any = action_spec
        self.origin: dict[str, Any] = {}

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        if self.normaliser is not None:
            known = self.normaliser.obs
            obs = {k: self.normaliser(k, v) if k in known else v for k, v in obs.items()}
        action, _ = self.net.predict(self.view(obs), deterministic=greedy)
        return carry, action.reshape(len(action), -1).astype(np.float32)

    @property
    def keys(self) -> tuple[str, ...]:
        """The observations that the network takes, in its order."""
        return ("state",) if self.view.flat else tuple(self.view.space)  # type: ignore[arg-type]

    def greedy_layers(self) -> nn.Sequential:
        """What `act` does where it is greedy, layer by layer, to be exported."""
        return greedy_layers(self.net, self.normaliser, self.keys)


def load_sb3_zip(path: str | Path, env: Stepper, trust_pickle: bool = False) -> SB3Policy:
    """The policy of a model saved by SB3's `PPO` or `A2C`, for the worlds of `env`.

    With `trust_pickle` SB3 itself loads the file, of any of its algorithms, and a
    `vecnormalize.pkl` beside it; both run code that their author chose.

    Raises `UserError` for a file that is no such model, one that was trained on other
    observations or actions, or a network that cannot be rebuilt from its weights.
    """
    path, space = Path(path), env.observation_space
    view = ObsView(space, None if trust_pickle else vector_keys(space))
    digest, settings, weights, statistics = _read(path)
    if trust_pickle:
        net, normaliser = _unpickled(path, env, settings)
    else:
        net, normaliser = _rebuilt(path, settings, weights, view, env), None
        if (path.parent / "vecnormalize.pkl").exists() and statistics is None:
            log.warning("%s: vecnormalize.pkl beside it is not read; %s", path.name, TRUST)
    if statistics is not None:
        normaliser = _restored(path, statistics, env)
    policy = SB3Policy(net, view, env.action_spec, normaliser)
    policy.origin = {"zip": path.name, "sha256": digest, "trust_pickle": trust_pickle}
    return policy


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """A model file's hash, settings, weights of the policy, and our normaliser if it is in it."""
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            settings = json.loads(archive.read("data"))
            file = io.BytesIO(archive.read("policy.pth"))
            extra = archive.read(NORMALISER) if NORMALISER in archive.namelist() else None
        # SB3 saves weights in no other form; weights_only reads tensors and runs nothing.
        weights = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
        statistics = None if extra is None else json.loads(extra)
    except FileNotFoundError:
        raise UserError(f"no model at {path}") from None
    except Exception as error:  # every way in which a file can be broken
        text = _one_line(error)
        raise UserError(f"{path} is not a model saved by stable-baselines3: {text}") from error
    if not isinstance(settings, dict) or not isinstance(weights, dict):
        raise UserError(f"{path} is not a model saved by stable-baselines3")
    return hashlib.sha256(content).hexdigest(), settings, weights, statistics


def _rebuilt(
    path: Path, settings: dict[str, Any], weights: dict[str, Any], view: ObsView, env: Stepper
) -> BasePolicy:
    """The network that the weights fit into, its settings from JSON."""
    odd = [n for n in weights if not re.match(r"(mlp_extractor|action_net|value_net|log_std)", n)]
    if odd or "action_net.weight" not in weights:
        raise UserError(
            f"{path}: cannot rebuild its network from {odd[:1] or ['no action_net']}, only an MLP "
            f"of PPO or A2C; {TRUST}"
        )
    try:
        _check_spaces(path, settings, weights, view, env)
        net = _network(path, settings, weights, view, env)
        net.load_state_dict(weights)
        if net.use_sde:
            net.reset_noise()
    except UserError:
        raise
    except Exception as error:  # JSON or weights that are not what SB3 writes
        raise UserError(f"{path} does not fit {env.name}: {_one_line(error)}") from error
    return net


def _network(
    path: Path, settings: dict[str, Any], weights: dict[str, Any], view: ObsView, env: Stepper
) -> ActorCriticPolicy:
    inner = settings.get("policy_kwargs") or {}
    kind: Any = ActorCriticPolicy if view.flat else MultiInputActorCriticPolicy
    use_sde = bool(settings.get("use_sde", False))
    return kind(
        view.space,
        env.action_space,
        lambda _: 0.0,
        net_arch={"pi": _widths(weights, "policy_net"), "vf": _widths(weights, "value_net")},
        activation_fn=_activation(path, inner),
        use_sde=use_sde,
        full_std=bool(inner.get("full_std", True)),
        use_expln=bool(inner.get("use_expln", False)),
        squash_output=use_sde and bool(inner.get("squash_output", False)),
    )


def _widths(weights: Mapping[str, Any], part: str) -> list[int]:
    """Sizes of an MLP's layers, in order."""
    pattern = re.compile(rf"mlp_extractor\.{part}\.(\d+)\.weight")
    layers = {int(m[1]): w for n, w in weights.items() if (m := pattern.fullmatch(n))}
    return [int(layers[i].shape[0]) for i in sorted(layers)]


def _activation(path: Path, policy_kwargs: Mapping[str, Any]) -> type[torch.nn.Module]:
    """SB3's JSON names the class as text, "<class 'torch.nn.modules.activation.ReLU'>"."""
    text = str(policy_kwargs.get("activation_fn", "<class 'torch.nn.modules.activation.Tanh'>"))
    found = re.fullmatch(r"<class 'torch\.nn\.modules\.\w+\.(\w+)'>", text)
    if found is None or found[1] not in ACTIVATIONS:
        raise UserError(f"{path}: cannot rebuild its activation {text[:80]}; {TRUST}")
    return getattr(torch.nn, found[1])


def _check_spaces(
    path: Path, settings: dict[str, Any], weights: dict[str, Any], view: ObsView, env: Stepper
) -> None:
    """Refuse a model of other observations or actions; warn where actions had other limits."""
    first = weights.get("mlp_extractor.policy_net.0.weight", weights["action_net.weight"])
    sizes = {"observations": (first.shape[1], gym.spaces.flatdim(view.space))}
    space = env.action_space
    size = gym.spaces.flatdim(space)
    sizes["actions"] = (weights["action_net.weight"].shape[0], size)
    for what, (saved, here) in sizes.items():
        if saved != here:
            raise UserError(f"{path} was trained with {saved} {what}, {env.name} has {here}")
    old = settings.get("action_space")
    if isinstance(old, dict) and isinstance(space, gym.spaces.Box):
        limits = (str(old.get("low")), str(old.get("high")))
        if limits != (str(space.low), str(space.high)):
            text = " to ".join(" ".join(limit.split())[:60] for limit in limits)
            log.warning("%s: its actions went from %s; %s's differ", path.name, text, env.name)


def _unpickled(
    path: Path, env: Stepper, settings: dict[str, Any]
) -> tuple[BasePolicy, Normaliser | None]:
    """SB3 loads the model, and a `vecnormalize.pkl` beside it, running the code in them."""
    module = str((settings.get("policy_class") or {}).get("__module__", ""))
    name = next((a for part, a in ALGORITHMS.items() if f".{part}." in module), "PPO")
    beside, normaliser = path.parent / "vecnormalize.pkl", None
    try:
        world = SB3View(env)
        net = getattr(stable_baselines3, name).load(path, env=world, device="cpu").policy
        if beside.exists():
            seen = VecNormalize.load(str(beside), world)
            rms = seen.obs_rms if isinstance(seen.obs_rms, dict) else {"state": seen.obs_rms}
            normaliser = Normaliser({})
            normaliser.obs = rms if seen.norm_obs else {}
            normaliser.limit, normaliser.epsilon = seen.clip_obs, seen.epsilon
    except Exception as error:
        text = _one_line(error)
        raise UserError(f"stable-baselines3 cannot load {path} for {env.name}: {text}") from error
    log.warning("%s: its pickled code was run, as trust_pickle=true allows", path.name)
    return net, normaliser


def _restored(path: Path, statistics: Any, env: Stepper) -> Normaliser:
    """The normaliser that our own `save_zip` put into a file."""
    try:
        shapes = {str(key): np.shape(row["mean"]) for key, row in statistics["obs"].items()}
        normaliser = Normaliser(shapes)
        normaliser.load_state_dict(statistics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its normaliser is broken: {_one_line(error)}") from error
    here = {key: box.shape for key, box in env.observation_space.items()}
    if not shapes.items() <= here.items():
        raise UserError(f"{path}: its normaliser is for observations {shapes}, not {here}")
    return normaliser


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _moments(seen: RunningMeanStd) -> dict[str, Any]:
    return {"mean": np.array(seen.mean), "var": np.array(seen.var), "count": float(seen.count)}
