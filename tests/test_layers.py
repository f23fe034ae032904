"""Who may import whom: the core no leaf, a leaf no other leaf, a task no simulator."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = ("envs", "agents", "reward_models")
RUNS_WHAT_IT_READS = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
SIMULATORS = (
    "mujoco",
    "mujoco_warp",
    "warp",
    "pybullet",
    "gymnasium.envs.mujoco",
    *(f"embodied.envs.{backend}" for backend in ("mujoco", "warp", "bullet", "ros")),
)
SOURCES = {
    path.relative_to(ROOT): path.read_text()
    for folder in ("embodied", *LEAVES, "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def module_name(path: Path) -> str:
    """The dotted name under which the file at `path` (relative to the root) is imported."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("embodied", *parts) if parts[0] in LEAVES else parts)


def imports(path: Path, source: str, at_import: bool = False) -> set[str]:
    """Absolute dotted names of all that `source` imports, also by name in a call.

    With `at_import`, only what is imported as soon as the file is: function bodies and
    `if TYPE_CHECKING` blocks are left out. `from a import b` counts as `a` and as `a.b`.
    """
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found: set[str] = set()
    for node in _nodes(ast.parse(source), at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and _is_import(node.func) and node.args:
            name = _leading_text(node.args[0])
            found.add(f"{'.'.join(package)}{name}" if name.startswith(".") else name)
    return found


def _nodes(node: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes(child, at_import)


def _is_import(function: ast.expr) -> bool:
    return ast.unparse(function).split(".")[-1] in ("import_module", "__import__", "find_spec")


def _leading_text(node: ast.expr) -> str:
    """What a string is known to start with: all of a literal, the head of an f-string."""
    while isinstance(node, ast.JoinedStr | ast.BinOp):
        node = node.left if isinstance(node, ast.BinOp) else node.values[0]
    return str(node.value) if isinstance(node, ast.Constant) else ""


def under(name: str, packages: tuple[str, ...]) -> bool:
    return any(name.rstrip(".") == p or name.startswith(f"{p}.") for p in packages)


def offences(path: Path, source: str) -> list[str]:
    """One line for each import in `source` that its place in the house forbids."""
    home = path.parts[0]
    forbidden = {*LEAVES, *(f"embodied.{leaf}" for leaf in LEAVES), *RUNS_WHAT_IT_READS}
    if home in LEAVES:
        forbidden.remove(f"embodied.{home}")
    elif home == "benchmarks":
        forbidden -= {f"embodied.{leaf}" for leaf in LEAVES}
    found = {name for name in imports(path, source) if under(name, tuple(forbidden))}
    if path.match("envs/tasks/*.py"):
        at_import = imports(path, source, at_import=True)
        found |= {name for name in at_import if under(name, SIMULATORS)}
    return [f"{path} imports {name}" for name in sorted(found)]


def test_every_import_points_the_right_way() -> None:
    assert len(SOURCES) > 10
    assert [line for path, source in SOURCES.items() for line in offences(path, source)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("embodied/train.py", "import embodied.envs.tasks.reach"),
        ("embodied/train.py", "from embodied import agents"),
        ("embodied/train.py", "from . import agents"),
        ("embodied/train.py", "from .agents.ppo import PPO"),
        ("embodied/train.py", "import agents"),
        ("embodied/train.py", "def f():\n    from embodied.reward_models import success"),
        ("embodied/train.py", "import importlib\nimportlib.import_module('embodied.envs')"),
        ("embodied/train.py", "import_module('.envs.tasks', 'embodied')"),
        ("embodied/train.py", "import_module(f'embodied.agents.{name}')"),
        ("embodied/train.py", "import_module('embodied.agents.' + name)"),
        ("embodied/train.py", "__import__('embodied.agents')"),
        ("agents/ppo.py", "from embodied.envs.tasks import reach"),
        ("agents/ppo.py", "from ..reward_models import success"),
        ("agents/ppo.py", "from .. import envs"),
        ("agents/ppo.py", "import agents.nets"),
        ("envs/mujoco/sim.py", "from ...agents import ppo"),
        ("envs/tasks/reach.py", "import mujoco"),
        ("envs/tasks/reach.py", "from mujoco import MjModel"),
        ("envs/tasks/reach.py", "from ..mujoco.sim import MujocoSim"),
        ("envs/tasks/reach.py", "from gymnasium.envs import mujoco"),
        ("envs/tasks/reach.py", "class Reach:\n    import pybullet"),
        ("envs/tasks/reach.py", "try:\n    import warp\nexcept ImportError:\n    pass"),
        ("embodied/checkpoint.py", "import pickle"),
        ("reward_models/success.py", "def f():\n    from cloudpickle import loads"),
        ("benchmarks/ppo.py", "import dill"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert offences(Path(path), source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("embodied/train.py", "from embodied.env import TaskEnv\nfrom .agent import Agent"),
        ("embodied/train.py", "import_module(name)"),
        ("embodied/train.py", "from embodied import environment, agents_of_change"),
        ("agents/sac.py", "from .ppo import PPO\nfrom embodied.agent import Agent"),
        ("envs/tasks/pick_cube.py", "from .tabletop import Tabletop\nfrom . import reach"),
        ("envs/tasks/reach.py", "def model(self):\n    import mujoco"),
        ("envs/tasks/reach.py", "if TYPE_CHECKING:\n    import mujoco"),
        ("envs/mujoco/sim.py", "import mujoco"),
        ("benchmarks/ppo.py", "from embodied.agents.ppo import PPO"),
    ],
)
def test_a_right_import_is_not(path: str, source: str) -> None:
    assert offences(Path(path), source) == []


def test_core_has_no_import_cycle() -> None:
    core = {module_name(path): path for path in SOURCES if path.parts[0] == "embodied"}
    needs = {name: imports(path, SOURCES[path], at_import=True) for name, path in core.items()}
    graph = {name: needed & core.keys() - {name, "embodied"} for name, needed in needs.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming it


def unsafe_switches(source: str) -> list[str]:
    """Calls that let a file run code as it is read, as source text."""
    safe = {"allow_pickle": False, "trust_remote_code": False, "weights_only": True}
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call)
        for call in calls
        for keyword in call.keywords
        if keyword.arg in safe and ast.unparse(keyword.value) != str(safe[keyword.arg])
    ]


def test_no_switch_lets_a_file_run_code() -> None:
    assert {path: found for path in SOURCES if (found := unsafe_switches(SOURCES[path]))} == {}
    assert unsafe_switches("load(path, allow_pickle=True)\nload(path, weights_only=flag)")
    assert not unsafe_switches("load(path, allow_pickle=False, weights_only=True)")


HEAVY = {
    "torch", "mujoco", "pybullet", "stable_baselines3", "matplotlib", "cv2", "av", "pyarrow"
}  # fmt: skip


def loaded_by(code: str, watched: set[str]) -> set[str]:
    """Which of the `watched` modules a fresh interpreter has loaded after running `code`."""
    report = f"print(*(sys.modules.keys() & {watched}), file=sys.stderr)"
    script = f"import atexit, sys\natexit.register(lambda: {report})\n{code}"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stderr.splitlines()[-1].split())


def test_the_probe_sees_a_heavy_import() -> None:
    assert loaded_by("import cv2; sys.exit(0)", HEAVY) == {"cv2"}


@pytest.mark.parametrize(
    "code",
    [
        "import embodied.cli",
        "sys.argv = ['embodied', '--help']; from embodied.cli import main; sys.exit(main())",
        "import embodied, embodied.envs.tasks, embodied.agents, embodied.reward_models",
    ],
    ids=["import", "help", "packages"],
)
def test_starting_up_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code, HEAVY) == set()


def test_importing_every_task_loads_no_simulator() -> None:
    tasks = [module_name(path) for path in SOURCES if path.match("envs/tasks/*.py")]
    assert loaded_by(f"import {', '.join(tasks)}", {"mujoco", "pybullet", "warp"}) == set()
