"""Composing a run's configuration from `conf/`, with mistakes answered in one line."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embodied.errors import UserError, unknown

CONF = Path(__file__).parent / "conf"
GROUPS = ("env", "sim", "robot", "agent", "reward_model", "tuned")
EXAMPLES = {
    "run_dir": "runs/mine",
    "stop_at_success": 0.9,
    "stop_at_return": 1000.0,
    "stop_at_judged": 0.9,
    "env.max_steps": 100,
}
"""Of keys that may be null: what they hold otherwise, so that a wrong type shows."""


def options(group: str, extra: Path | None = None) -> list[str]:
    """Names of a group's YAML files, ours and those of the user's own folder."""
    folders = [CONF / group] + ([extra / group] if extra else [])
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


def compose_config(
    overrides: Sequence[str] = (), name: str = "train", config_dir: Path | str | None = None
) -> DictConfig:
    """The configuration of a run; `config_dir` holds the user's own options, group by group.

    Raises `UserError` for an unknown option or key (with the nearest names) or a bad value.
    """
    extra = Path(config_dir).resolve() if config_dir else None
    if extra and not extra.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    parsed = _parse(overrides)
    choices = []
    for override, text in zip(parsed, overrides, strict=True):
        if override.key_or_group in GROUPS:
            _check_choice(override, extra)
            choices.append(text)
    try:
        base = _compose(name, choices, extra)
        for override in parsed:
            if override.key_or_group not in GROUPS and not override.is_add():
                _check_key(base, override.key_or_group)
        cfg = _compose(name, list(overrides), extra)
        _check_values(base, cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"configuration: {_one_line(error)}") from error
    _refuse_unused(cfg, parsed)
    return cfg


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain data, every interpolation resolved."""
    for key in _missing(cfg):
        raise UserError(f"{key} is not given: add {key}=VALUE")
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {_one_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _missing(cfg: DictConfig) -> Iterator[str]:
    """The full names of mandatory keys without a value."""
    for key in map(str, cfg):
        if OmegaConf.is_interpolation(cfg, key):
            continue
        if OmegaConf.is_missing(cfg, key):
            yield _full(cfg, key)
        elif isinstance(cfg[key], DictConfig):
            yield from _missing(cfg[key])


def amend(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A copy of a saved configuration with `key=value` overrides; a key must exist, or be `+key`.

    Raises `UserError` for an unknown key (with the nearest), or a value of another kind.
    """
    amended = copy.deepcopy(cfg)
    for override in _parse(overrides):
        key = override.key_or_group
        if override.is_delete():
            raise UserError(f"{override.input_line}: a saved configuration keeps its keys")
        if not override.is_add():
            _check_key(cfg, key)
        OmegaConf.update(amended, key, override.value())
    _check_values(cfg, amended)
    return amended


def _compose(name: str, overrides: list[str], extra: Path | None) -> DictConfig:
    if GlobalHydra.instance().is_initialized():
        raise UserError("embodied composes its own configuration: not inside another Hydra app")
    quoted = str(extra).replace("\\", "\\\\").replace("'", "\\'")
    search = [f"hydra.searchpath=['file://{quoted}']"] if extra else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=[*overrides, *search])


def _parse(overrides: Sequence[str]) -> list[Any]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"override: {_one_line(error)} (write key=value)") from error


def _check_choice(override: Any, extra: Path | None) -> None:
    group = override.key_or_group
    if override.is_delete():
        if group in ("env", "agent"):
            raise UserError(f"~{group}: a run needs one, as {group}={options(group)[0]}")
        return
    if override.is_sweep_override():
        raise UserError(f"{override.input_line}: give one, or several as reward_model=[NAME,NAME]")
    chosen = override.value()
    if isinstance(chosen, list) and group != "reward_model":
        raise UserError(f"{override.input_line}: give one, as {group}={options(group, extra)[0]}")
    for option in chosen if isinstance(chosen, list) else [chosen]:
        if option not in options(group, extra):
            raise unknown(group, str(option), options(group, extra))


def _check_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    path: list[str] = []
    for part in key.lstrip("~+").split("@")[0].replace("/", ".").split("."):
        if not isinstance(node, DictConfig):
            raise UserError(f"unknown key {key!r}: {'.'.join(path)} has no keys of its own")
        if part not in list(node):  # `in node` is False for a mandatory key not given yet
            known = [".".join([*path, str(k)]) for k in node]
            raise unknown("key", ".".join([*path, part]), known)
        path.append(part)
        node = OmegaConf.select(cfg, ".".join(path), throw_on_missing=False)
        if node is None:
            return


def _check_values(base: DictConfig, cfg: DictConfig) -> None:
    """Refuse a value of another type than the default's, before anything is built."""
    for key in base:
        if not isinstance(key, str) or OmegaConf.is_missing(base, key):
            continue
        if OmegaConf.is_interpolation(base, key) or OmegaConf.is_interpolation(cfg, key):
            continue
        full = _full(base, key)
        default, value = EXAMPLES.get(full, base[key]), cfg.get(key)
        if isinstance(default, DictConfig) and isinstance(value, DictConfig):
            _check_values(default, value)
        elif value is not None or not (full in EXAMPLES or "_target_" in base):
            cfg[key] = _fitting(full, default, value)


def _fitting(key: str, default: Any, value: Any) -> Any:
    """`value`, if it is of the default's kind; a whole number as an int, however written."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{key}={value!r}: give true or false")
    elif _is_number(default):
        if not _is_number(value):
            raise UserError(f"{key}={value!r}: give a number, as {default}")
        if isinstance(default, int) and isinstance(value, float):
            if not value.is_integer():
                raise UserError(f"{key}={value!r}: give a whole number, as {default}")
            return int(value)
    elif isinstance(default, ListConfig):
        if not isinstance(value, ListConfig):
            raise UserError(f"{key}={value!r}: give a list, as {default}")
        for item in value if default else ():
            _fitting(key, default[0], item)
    elif isinstance(default, DictConfig):
        raise UserError(f"{key}={value!r}: {key} has keys of its own, give those")
    elif isinstance(default, str) and isinstance(value, DictConfig | ListConfig):
        raise UserError(f"{key}={value!r}: give text, as {default}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _full(cfg: DictConfig, key: str) -> str:
    return str(cfg._get_full_key(key))


def _refuse_unused(cfg: DictConfig, parsed: list[Any]) -> None:
    """A simulator or robot that was asked for but that the env cannot use is a mistake."""
    asked = {o.key_or_group.split(".")[0] for o in parsed}
    if "sim" in asked and "task" not in cfg.env:
        raise UserError(f"env={cfg.env.name} brings its own simulator: leave out sim=...")
    text = OmegaConf.to_yaml(cfg.env)
    if "robot" in asked and "${robot}" not in text:
        raise UserError(f"env={cfg.env.name} takes no robot: leave out robot=...")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(" See https:")[0][:300]
