"""The list of options: complete, described, and read without importing what it describes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embodied.catalogue import KINDS, catalogue, describe
from embodied.config import CONF, options
from embodied.errors import UserError

OPTIONS = [(file.parent.name, file.stem) for kind in KINDS for file in (CONF / kind).glob("*.yaml")]


def test_every_group_that_can_be_chosen_is_listed() -> None:
    groups = {file.parent.name for file in CONF.glob("*/*.yaml")}
    assert set(KINDS) == groups - {"tuned"}  # which follows from env and agent


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_every_option_is_described(kind: str, name: str) -> None:
    text = describe(kind, name)
    assert 10 < len(text) < 120
    assert not text.startswith("missing")
    assert text[0].isupper()


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert catalogue() == 0
    words = capsys.readouterr().out.split()
    assert {name for _, name in OPTIONS} <= set(words)
    assert catalogue("sim") == 0
    assert "mujoco" in (text := capsys.readouterr().out)
    assert "half_cheetah" not in text


def test_an_unknown_kind() -> None:
    with pytest.raises(UserError, match="did you mean agent"):
        catalogue("agents")


def test_a_users_own_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '"""Not this."""\n\nclass Tidy:\n    """Tidy a drawer. Well."""\n'
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "env").mkdir()
    (tmp_path / "env/tidy.yaml").write_text("name: tidy\ntask:\n  _target_: mine.Tidy\n")
    (tmp_path / "env/gone.yaml").write_text("task:\n  _target_: mine.Gone\n")
    (tmp_path / "env/lost.yaml").write_text("task:\n  _target_: nowhere.Lost\n")
    (tmp_path / "env/plain.yaml").write_text("a: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"tidy", "half_cheetah"} <= set(options("env", tmp_path))
    assert describe("env", "tidy", tmp_path) == "Tidy a drawer. Well"
    assert describe("env", "gone", tmp_path) == "missing: mine.Gone"
    assert describe("env", "lost", tmp_path) == "missing: nowhere.Lost"
    assert describe("env", "plain", tmp_path) == ""
    assert "mine" not in sys.modules
    (tmp_path / "env/torn.yaml").write_text("task: {_target_: [")
    with pytest.raises(UserError, match="torn.yaml"):
        catalogue("env", tmp_path)


def test_listing_loads_neither_torch_nor_a_simulator() -> None:
    code = "import sys; from embodied.cli import main; main(['list']); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "omegaconf" in loaded
    assert loaded & {"torch", "mujoco", "pybullet", "stable_baselines3", "matplotlib"} == set()
