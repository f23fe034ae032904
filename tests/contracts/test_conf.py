"""Every option in conf/ composes, names a class that exists, and has a source and a test."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from embodied.config import CONF, GROUPS, compose_config, options, resolved
from embodied.deploy.deploy import transport_settings

ROOT = Path(__file__).parents[2]
FILES = sorted(CONF.glob("*/*.yaml"))
NAMED_FOR_THE_FILE = ("env", "agent", "reward_model")
"""Groups in which option, source and test share one name; the others may share a source."""
APART = "transport"
"""The group that is no part of a run: `embodied deploy` chooses of it."""
GIVEN = {
    "env/gym": ["env.id=Pendulum-v1"],
}
"""What an option asks the user for."""


def in_group(group: str) -> list[Path]:
    return [file for file in FILES if file.parent.name == group]


def option(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def overrides(file: Path) -> list[str]:
    """What selects an option; robots are chosen with an env that takes one."""
    group, name = file.parent.name, file.stem
    given = GIVEN.get(option(file), [])
    if group == "tuned":  # named for the env and the agent that it is for
        pairs = [(e, a) for e in options("env") for a in options("agent")]
        (env, agent) = next(pair for pair in pairs if "_".join(pair) == name)
        return [f"env={env}", f"agent={agent}", *GIVEN.get(f"env/{env}", [])]
    if group == "robot":
        return ["env=pick_cube", f"robot={name}"]
    return [f"{group}=[{name}]" if group == "reward_model" else f"{group}={name}", *given]


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a resolved configuration that has a `_target_`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_every_folder_is_a_group() -> None:
    assert {file.parent.name for file in FILES} <= {*GROUPS, APART}


@pytest.mark.parametrize("file", FILES, ids=option)
def test_an_option_composes_and_its_targets_exist(file: Path) -> None:
    if file.parent.name == APART:
        found = [transport_settings(file.stem)]
    else:
        found = list(targets(resolved(compose_config(overrides(file)))))
        assert len(found) >= 3  # env, agent, reward model
    for node in found:
        target = get_object(node["_target_"])
        parameters = inspect.signature(target).parameters
        core = {"weight", "shaping", "every", "late", "threshold", "bonus", "clip"}  # its own keys
        assert node.keys() - {"_target_", "_recursive_"} - core <= parameters.keys(), node[
            "_target_"
        ]


@pytest.mark.parametrize("file", in_group("tuned"), ids=option)
def test_tuned_settings_take_effect(file: Path) -> None:
    tuned = OmegaConf.load(file)
    cfg = compose_config(overrides(file))
    plain = compose_config([*overrides(file), "~tuned"])
    assert OmegaConf.merge(cfg, tuned) == cfg
    assert plain != cfg


@pytest.mark.parametrize("file", in_group("reward_model"), ids=option)
def test_a_reward_model_has_a_place_of_its_own(file: Path) -> None:
    """Without this header Hydra silently keeps the last of several."""
    assert file.read_text().splitlines()[0] == f"# @package reward_model.{file.stem}"


def test_reward_models_compose_with_each_other() -> None:
    names = options("reward_model")
    cfg = compose_config([f"reward_model=[{','.join(names)}]"])
    assert sorted(cfg.reward_model) == names


def own_target(file: Path) -> str:
    """The dotted name of what an option builds."""
    first = next(targets(OmegaConf.to_container(OmegaConf.load(file))))
    return str(first.get("world", first)["_target_"])  # of a text env, the world that it runs


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent.name != "tuned"], ids=option
)
def test_an_option_has_a_source_and_a_test(file: Path) -> None:
    module, _, item = own_target(file).rpartition(".")
    assert module.startswith("embodied.")
    source = Path(*module.split(".")[1:]).with_suffix(".py")
    assert (ROOT / source).exists()
    definitions = ast.parse((ROOT / source).read_text()).body
    assert item in {getattr(node, "name", None) for node in definitions}
    if file.parent.name in NAMED_FOR_THE_FILE:
        assert source.stem == file.stem
    folder = ROOT / "tests" / source.parent
    tests = {test.name: test.read_text() for test in folder.glob("test_*.py")}
    found = f"test_{source.name}" in tests
    if file.parent.name not in NAMED_FOR_THE_FILE:  # those may share a test as well
        found |= any(re.search(rf"\b{file.stem}\b", text) for text in tests.values())
    assert found, f"no {folder.relative_to(ROOT)}/test_{source.name} for {option(file)}"


MARKS = {
    "envs/tasks": {"name"},
    "envs/text": {"gold"},
    "agents": {"update", "learn"},
    "reward_models": {"score"},
}
"""What tells a task, a text world, an agent and a reward model from parts of one: any of these in
its class."""


@pytest.mark.parametrize(
    ("folder", "group"), list(zip(MARKS, ("env", *NAMED_FOR_THE_FILE), strict=True))
)
def test_every_source_is_an_option(folder: str, group: str) -> None:
    """A file whose public class is named for it can be chosen by that name."""
    for source in (ROOT / folder).glob("*.py"):
        for node in ast.parse(source.read_text()).body:
            named = getattr(node, "name", "").lower() == source.stem.replace("_", "")
            if isinstance(node, ast.ClassDef) and named and members(node) & MARKS[folder]:
                assert source.stem in options(group), f"no conf/{group}/{source.stem}.yaml"


def members(node: ast.ClassDef) -> set[str]:
    """Names that a class body gives a value or a function."""
    assigned = [n.targets[0] for n in node.body if isinstance(n, ast.Assign)]
    names = {n.id for n in assigned if isinstance(n, ast.Name)}
    return names | {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
