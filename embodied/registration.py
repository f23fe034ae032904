"""Gymnasium ids `embodied/NAME`, one for each file in `conf/env`.

Registering loads nothing; a configuration is read when its env is made. Hydra's `compose` is not
used for that, since it refuses to work inside another Hydra app.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from embodied.env import Stepper
    from embodied.gym_view import GymView, SingleEnv

CONF = Path(__file__).parent / "conf"
VIEW_KEYS = ("flatten", "render_mode", "camera", "height", "width")
Choice = str | Mapping[str, Any] | None


def register_envs() -> None:
    """Register `embodied/NAME` for every env but `gym`, which shows Gymnasium's own."""
    for file in sorted((CONF / "env").glob("*.yaml")):
        if file.stem == "gym" or f"embodied/{file.stem}" in gym.registry:
            continue
        gym.register(
            f"embodied/{file.stem}",
            entry_point="embodied.registration:make_single",
            vector_entry_point="embodied.registration:make_vector",
            kwargs={"env": file.stem},
        )


def make_single(env: str, **settings: Any) -> SingleEnv:
    """What `gymnasium.make("embodied/NAME", **settings)` returns, without its wrappers.

    Settings are those of `SingleEnv` and of `make_stepper`.
    """
    from embodied.gym_view import SingleEnv

    view = {key: settings.pop(key) for key in VIEW_KEYS if key in settings}
    return SingleEnv(make_stepper(env, 1, **settings), **view)


def make_vector(
    env: str, num_envs: int = 1, max_episode_steps: int | None = None, **settings: Any
) -> GymView:
    """What `gymnasium.make_vec("embodied/NAME", num_envs, **settings)` returns.

    Settings are those of `GymView` and of `make_stepper`.
    """
    from embodied.gym_view import GymView

    if max_episode_steps is not None:
        settings["max_steps"] = max_episode_steps
    names = (*VIEW_KEYS, "autoreset_mode")
    view = {key: settings.pop(key) for key in names if key in settings}
    return GymView(make_stepper(env, num_envs, **settings), **view)


def make_stepper(
    env: str,
    num_envs: int = 1,
    seed: int | None = None,
    robot: Choice = None,
    sim: Choice = None,
    **keys: Any,
) -> Stepper:
    """Worlds of an env by its name in `conf/env`, their `keys` overridden (`max_steps=200`).

    `robot` and `sim` are names in `conf/robot` and `conf/sim`, or keys to change of the default
    one (`sim={"threads": 1}`). Without `seed` one is drawn from the operating system.

    Raises `UserError` for an unknown name or key.
    """
    from embodied.build import make_env
    from embodied.gym_view import random_seed

    cfg = _configuration(env, robot, sim, keys)
    return make_env(cfg, num_envs, random_seed() if seed is None else seed)


def _configuration(env: str, robot: Choice, sim: Choice, keys: dict[str, Any]) -> DictConfig:
    from omegaconf import DictConfig, OmegaConf

    from embodied.errors import UserError

    train = _read(CONF / "train.yaml")
    node = DictConfig(OmegaConf.merge(train.env, _load("env", env)))
    if robot is not None and "${robot}" not in OmegaConf.to_yaml(node):
        raise UserError(f"env={env} takes no robot: leave out robot=")
    if sim is not None and "task" not in node:
        raise UserError(f"env={env} brings its own simulator: leave out sim=")
    return OmegaConf.create(
        {
            "env": _changed(node, keys, "env"),
            "robot": _chosen("robot", robot, _default(train, "robot")),
            "sim": _chosen("sim", sim, _default(train, "sim")),
        }
    )


def _load(group: str, name: str) -> DictConfig:
    from embodied.errors import unknown

    known = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if name not in known:
        raise unknown(group, name, known)
    return _read(CONF / group / f"{name}.yaml")


def _read(file: Path) -> DictConfig:
    from omegaconf import DictConfig, OmegaConf

    return DictConfig(OmegaConf.load(file))


def _default(train: DictConfig, group: str) -> str:
    return next(item[group] for item in train.defaults if group in item)


def _chosen(group: str, choice: Choice, default: str) -> DictConfig:
    if isinstance(choice, Mapping):
        return _changed(_load(group, default), choice, group)
    return _load(group, choice or default)


def _changed(cfg: DictConfig, keys: Mapping[str, Any], path: str) -> DictConfig:
    """`cfg` with some of its keys changed; a key that it has not got is a mistake."""
    from omegaconf import DictConfig

    from embodied.errors import unknown

    for key, value in keys.items():
        if key not in cfg:
            raise unknown("key", f"{path}.{key}", [f"{path}.{name!s}" for name in cfg])
        inner = cfg._get_node(key)
        if isinstance(value, Mapping) and isinstance(inner, DictConfig):
            value = _changed(inner, value, f"{path}.{key}")
        cfg[key] = value
    return cfg
