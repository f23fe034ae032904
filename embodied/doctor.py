"""`embodied doctor`: what is installed, what is missing, and the command that fixes it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from embodied import __version__

PROBE_S = 60.0
GRAPHICS = "apt-get install libegl1 libopengl0 libgl1-mesa-dri"
RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(mujoco.MjData(model))
assert renderer.render().shape == (16, 16, 3)
"""
CUDA = """
import torch
print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else "")
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fix` is the command that mends it."""

    name: str
    ok: bool
    what: str
    fix: str = ""
    essential: bool = False


def doctor() -> int:
    """Print all findings; 1 if something essential is missing, else 0."""
    findings = []
    for finding in examine():
        findings.append(finding)
        mark = "ok" if finding.ok else "NO" if finding.essential else "--"
        print(f"{mark}  {finding.name:<24}{finding.what}", flush=True)
    wrong = [finding for finding in findings if not finding.ok]
    for finding in wrong:
        print(f"\n{finding.name}: {finding.what}\n  {finding.fix}")
    essential = [finding.name for finding in wrong if finding.essential]
    if essential:
        print(f"\nmissing and essential: {', '.join(essential)}")
    return 1 if essential else 0


def examine() -> Iterator[Finding]:
    """Look at everything, the quick things first."""
    yield Finding("embodied", True, f"{__version__}, {Path(__file__).parent}")
    new_enough = sys.version_info >= (3, 11)
    yield Finding(
        "python", new_enough, f"{platform.python_version()}, {sys.executable}",
        "apt-get install python3.11 python3.11-venv", essential=True,
    )  # fmt: skip
    yield from packages()
    yield cores()
    yield graphics()
    yield compiler()
    yield gpu()
    yield disk()


def packages() -> Iterator[Finding]:
    """Every package that is needed, and every extra, against what is installed."""
    try:
        needed = [Requirement(line) for line in requires("embodied-rl") or ()]
    except PackageNotFoundError:
        fix = "pip install --editable . (in the repository)"
        yield Finding("embodied-rl", False, "not installed as a package", fix, essential=True)
        return
    extras: dict[str, list[str]] = {}
    for need in needed:
        ok, found = _installed(need)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            wanted = f" (needs {need.specifier})" if need.specifier and not ok else ""
            fix = f"{sys.executable} -m pip install '{need.name}{need.specifier}'"
            yield Finding(need.name, ok, found + wanted, fix, essential=True)
        else:
            extra = str(need.marker).split("extra ==")[-1].strip(" \"'()")
            extras.setdefault(extra, []).extend([] if ok else [need.name])
    for extra, missing in extras.items():
        what = f"optional, lacks {', '.join(missing)}" if missing else "optional, complete"
        fix = f"{sys.executable} -m pip install 'embodied-rl[{extra}]'"
        yield Finding(f"[{extra}]", not missing, what, fix)


def _installed(need: Requirement) -> tuple[bool, str]:
    try:
        found = version(need.name)
    except PackageNotFoundError:
        return False, "not installed"
    return need.specifier.contains(found, prereleases=True), found


def cores() -> Finding:
    """How many threads may run at once: affinity and the control group's quota."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(Path("/sys/fs/cgroup"))
    what = f"{allowed} of {os.cpu_count()} may be used"
    if quota is None or quota >= allowed:
        return Finding("cores", True, what)
    fix = f"embodied train sim.threads={max(1, int(quota))} ..."
    return Finding("cores", False, f"{what}, but the control group allows {quota:g}", fix)


def cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the control group at `root` grants, None for no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = (root / "cpu/cpu.cfs_quota_us").read_text()
        period = (root / "cpu/cpu.cfs_period_us").read_text()
        return None if int(quota) < 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def graphics() -> Finding:
    """Which OpenGL really renders, each tried in a process of its own."""
    tried = ["egl", "osmesa", *(["glfw"] if os.environ.get("DISPLAY") else [])]
    works = [gl for gl in tried if probe(RENDER, MUJOCO_GL=gl)[0]]
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen and chosen not in works:
        fix = f"export MUJOCO_GL={works[0]}" if works else GRAPHICS
        return Finding("rendering", False, f"MUJOCO_GL={chosen} does not work", fix)
    if not works:
        what = f"neither {' nor '.join(tried)} works: no camera images, no videos"
        return Finding("rendering", False, what, GRAPHICS)
    return Finding("rendering", True, f"{', '.join(works)} (of {', '.join(tried)})")


def compiler() -> Finding:
    """What `torch.compile` needs: a C++ compiler and Python's own headers."""
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    headers = f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev"
    if found and header.exists():
        return Finding("torch.compile", True, found)
    lacks = ["a C++ compiler"] * (not found) + ["Python's headers"] * (not header.exists())
    what = f"lacks {' and '.join(lacks)}: PPO runs uncompiled, slower"
    return Finding("torch.compile", False, what, f"apt-get install g++ {headers}")


def gpu() -> Finding:
    """Whether there is a GPU, and a torch that can use it."""
    has_driver = shutil.which("nvidia-smi") is not None
    ok, said = probe(CUDA)
    if ok and said:
        return Finding("gpu", True, f"{said} (device=cuda)")
    if not has_driver:
        return Finding("gpu", True, "none; everything runs on the CPU")
    fix = f"{sys.executable} -m pip install --force-reinstall torch (a build with CUDA)"
    return Finding("gpu", False, "there is one, but this torch cannot use it", fix)


def disk() -> Finding:
    """Whether runs can be written here."""
    folder = Path("runs") if Path("runs").is_dir() else Path()
    free_gb = shutil.disk_usage(folder).free / 1e9
    where = folder.resolve()
    if not os.access(folder, os.W_OK):
        fix = "cd to a folder of yours, or give run_dir="
        return Finding("runs", False, f"{where} cannot be written to", fix, essential=True)
    fix = "free some space, or give run_dir= on another disk"
    return Finding("runs", free_gb > 0.5, f"{where}, {free_gb:.1f} GB free", fix)


def probe(code: str, **environment: str) -> tuple[bool, str]:
    """Whether `code` runs in a fresh interpreter, and the last line it said."""
    command = [sys.executable, "-c", code]
    try:
        run = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True,
            timeout=PROBE_S, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_S:.0f} s"
    said = (run.stdout if run.returncode == 0 else run.stderr).strip()
    return run.returncode == 0, said.splitlines()[-1][:120] if said else ""
