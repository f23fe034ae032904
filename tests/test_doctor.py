"""The doctor: what it finds, the command it gives, and its exit code."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from embodied import doctor as module
from embodied.doctor import Finding, cpu_quota, doctor, probe


def found(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> int:
    monkeypatch.setattr(module, "examine", lambda: iter(findings))
    return doctor()


def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor() == 0
    text = capsys.readouterr().out
    for name in ("python", "torch", "mujoco", "cores", "rendering", "gpu", "runs"):
        assert f"  {name}  " in text
    assert "NO" not in text


def test_what_is_essential_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = Finding("torch", True, "2.13.0", "pip install torch", essential=True)
    slow = Finding("torch.compile", False, "lacks a C++ compiler", "apt-get install g++")
    gone = Finding("numpy", False, "not installed", "pip install numpy", essential=True)
    assert found(monkeypatch, fine) == 0
    assert "pip" not in capsys.readouterr().out
    assert found(monkeypatch, fine, slow) == 0
    assert "\n  apt-get install g++\n" in capsys.readouterr().out
    assert found(monkeypatch, fine, slow, gone) == 1
    text = capsys.readouterr().out
    assert "\n  pip install numpy\n" in text
    assert "missing and essential: numpy" in text


def test_a_package_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=2.1", "rich>=900", "no-such-package>=3", 'also-none>=1; extra == "gpu"']
    monkeypatch.setattr(module, "requires", lambda name: needs)
    got = {finding.name: finding for finding in module.packages()}
    assert got["numpy"].ok
    assert not got["rich"].ok
    assert "needs >=900" in got["rich"].what
    assert got["rich"].essential
    assert got["no-such-package"].what.startswith("not installed")
    assert got["no-such-package"].fix.endswith("-m pip install 'no-such-package>=3'")
    assert not got["[gpu]"].ok
    assert not got["[gpu]"].essential
    assert "also-none" in got["[gpu]"].what
    assert got["[gpu]"].fix.endswith("pip install 'embodied-rl[gpu]'")


def test_what_is_needed_is_what_the_package_says() -> None:
    needed = [Requirement(line) for line in importlib.metadata.requires("embodied-rl") or ()]
    names = {need.name for need in needed if need.marker is None}
    assert {"torch", "mujoco", "gymnasium", "safetensors"} <= names
    assert names <= {finding.name for finding in module.packages()}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu.max": "what is this"}, None),
        ({}, None),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores


def test_fewer_cores_than_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(module, "cpu_quota", lambda root: 2.5)
    finding = module.cores()
    assert not finding.ok
    assert "sim.threads=2" in finding.fix


@pytest.mark.parametrize(
    ("works", "chosen", "ok", "fix"),
    [
        ({"egl"}, "", True, ""),
        (set(), "", False, "libegl1"),
        ({"egl"}, "osmesa", False, "MUJOCO_GL=egl"),
        ({"osmesa"}, "OSMesa", True, ""),
        (set(), "egl", False, "libegl1"),
    ],
)
def test_rendering(
    monkeypatch: pytest.MonkeyPatch, works: set[str], chosen: str, ok: bool, fix: str
) -> None:
    monkeypatch.setattr(module, "probe", lambda code, MUJOCO_GL: (MUJOCO_GL in works, "an error"))
    monkeypatch.setenv("MUJOCO_GL", chosen)
    finding = module.graphics()
    assert finding.ok is ok
    assert fix in finding.fix


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    finding = module.compiler()
    assert not finding.ok
    assert "g++" in finding.fix


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe", lambda code: (True, ""))
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert not module.gpu().ok
    monkeypatch.setattr(module, "probe", lambda code: (True, "NVIDIA H100"))
    assert "H100" in module.gpu().what
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module, "probe", lambda code: (True, ""))
    assert module.gpu().ok


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert module.disk().ok
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    finding = module.disk()
    assert (finding.ok, finding.essential) == (False, True)


def test_a_probe_tells_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe("print('one'); print('two')") == (True, "two")
    assert probe("import os; print(os.environ['COLOUR'])", COLOUR="red") == (True, "red")
    ok, said = probe("raise SystemExit('not today')")
    assert (ok, said) == (False, "not today")
    assert probe("import os; os.abort()")[0] is False
    monkeypatch.setattr(module, "PROBE_S", 0.2)
    assert probe("import time; time.sleep(60)") == (False, "no answer within 0 s")
