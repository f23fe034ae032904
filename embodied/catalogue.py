"""`embodied list`: what there is to choose from, read from the YAML files without importing it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from embodied.config import CONF, options
from embodied.errors import UserError, unknown

KINDS = ("env", "agent", "reward_model", "robot", "sim", "transport")


def catalogue(kind: str | None = None, config_dir: str | Path | None = None) -> int:
    """Print every option of one kind, or of all, with a line about it.

    Raises `UserError` for an unknown kind or a YAML file that cannot be read.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    extra = Path(config_dir) if config_dir else None
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("kind", "option", "what it is"):
        table.add_column(title, no_wrap=title != "what it is")
    for group in [kind] if kind else KINDS:
        for n, name in enumerate(options(group, extra)):
            table.add_row(group if n == 0 else "", name, describe(group, name, extra))
    Console(highlight=False, markup=False).print(table)
    return 0


def describe(group: str, name: str, extra: Path | None = None) -> str:
    """One line about an option: the first of the docstring of what its `_target_` names.

    Where a file is named for the option, as `envs/tasks/hopper.py` is, its own docstring says it.
    """
    folders = [CONF] if extra is None else [extra, CONF]
    file = next(f for folder in folders if (f := folder / group / f"{name}.yaml").exists())
    try:
        target = find_target(OmegaConf.load(file))
    except Exception as error:  # YAML has many ways to be wrong
        raise UserError(f"{file}: {' '.join(str(error).split())[:160]}") from error
    if target is None:
        return ""
    module, _, item = target.rpartition(".")
    source = _source(module)
    if source is None:
        return f"missing: {target}"
    tree = ast.parse(source)
    described = [tree] if module.endswith(f".{name}") else []
    described += [node for node in tree.body if getattr(node, "name", None) == item]  # type: ignore[misc]
    if not defines(target):
        return f"missing: {target}"
    return next((line for node in described if (line := _first_line(node))), "")


def defines(target: str) -> bool:
    """Whether the module that a `_target_` names defines it itself, read without running it."""
    module, _, item = target.rpartition(".")
    source = _source(module)
    body = ast.parse(source).body if source is not None else []
    return any(getattr(node, "name", None) == item for node in body)


def find_target(cfg: Any) -> str | None:
    """The first `_target_` of a YAML: of itself, or of the task, world or stepper inside."""
    if not isinstance(cfg, DictConfig):
        return None
    if "world" in cfg:
        return find_target(cfg._get_node("world"))
    if "_target_" in cfg:
        return str(cfg["_target_"])
    inner = (find_target(cfg._get_node(key)) for key in cfg)
    return next((target for target in inner if target is not None), None)


def _source(module: str) -> str | None:
    """The text of a module, found without running it (its packages' `__init__` excepted)."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_text()


def _first_line(node: Any) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0].strip().rstrip(".:")
