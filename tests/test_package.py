"""What is installed is what is on disk, under its right name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("embodied", "envs", "agents", "reward_models")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def installed_as(path: Path) -> str:
    """The place in a wheel of `path`, which is relative to the root."""
    return str(path if path.parts[0] == "embodied" else Path("embodied") / path)


def files(*patterns: str) -> set[Path]:
    folders = [ROOT / name for name in FOLDERS]
    return {p.relative_to(ROOT) for f in folders for pattern in patterns for p in f.rglob(pattern)}


def python(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    env = {**os.environ, **environ}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_package_list_equals_the_disk() -> None:
    on_disk = {installed_as(path.parent).replace("/", ".") for path in files("*.py")}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == on_disk


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in files("*.py")}
    assert [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []


def test_version_is_said_once() -> None:
    import embodied

    assert embodied.__version__ == SETTINGS["project"]["version"]


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    project = SETTINGS["project"]
    needed = sum(project["optional-dependencies"].values(), project["dependencies"])
    names = {re.split(r"[\[>=<]", need)[0].strip() for need in needed}
    assert names - pinned == {"embodied-rl"}  # the extras name each other


@pytest.mark.parametrize("name", ["envs", "agents", "reward_models"])
def test_a_leaf_refuses_its_bare_name(name: str) -> None:
    run = python("-c", f"import {name}", cwd=ROOT)
    assert run.returncode == 1
    last = f"ImportError: `{name}` is part of embodied: import `embodied.{name}` instead"
    assert run.stderr.splitlines()[-1] == last
    assert python("-c", f"import embodied.{name}", cwd=ROOT).returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed: built from an sdist that is built from a clean copy."""
    folder = tmp_path_factory.mktemp("package")
    clean, target = folder / "clean", folder / "target"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, clean / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clean)
    run = python("-m", "build", "--no-isolation", "--outdir", str(folder), str(clean), cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = folder.glob("embodied_rl-*.whl")
    options = ("--no-deps", "--no-index", "--quiet", "--target", str(target))
    run = python("-m", "pip", "install", *options, str(wheel), cwd=folder)
    assert run.returncode == 0, run.stderr
    return target


def test_wheel_holds_every_source_and_data_file(installed: Path) -> None:
    wanted = files("*.py", "*.yaml", "*.xml", "py.typed")
    assert any(path.suffix == ".yaml" for path in wanted)
    assert any(path.suffix == ".xml" for path in wanted)
    missing = [str(path) for path in wanted if not (installed / installed_as(path)).exists()]
    assert missing == []


def test_wheel_adds_no_top_level_name_but_its_own(installed: Path) -> None:
    version = SETTINGS["project"]["version"]
    names = {path.name for path in installed.iterdir()}
    assert names == {"embodied", "bin", f"embodied_rl-{version}.dist-info"}


def test_wheel_imports_from_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    packages = SETTINGS["tool"]["setuptools"]["packages"]
    code = f"import {', '.join(packages)}; print({', '.join(f'{p}.__file__' for p in packages)})"
    run = python("-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert run.returncode == 0, run.stderr
    assert [place for place in run.stdout.split() if not place.startswith(str(installed))] == []


def test_wheel_has_the_command_line(installed: Path, tmp_path: Path) -> None:
    for start in (["-m", "embodied.cli"], [str(installed / "bin" / "embodied")]):
        run = python(*start, "--help", cwd=tmp_path, PYTHONPATH=str(installed))
        assert run.returncode == 0, run.stderr
        assert "train" in run.stdout
