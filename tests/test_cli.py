"""The command line: verbs, help, exit codes, and one line for every kind of bad input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embodied import __version__, cli
from embodied.checkpoint import save_checkpoint
from embodied.cli import VERBS, main
from embodied.train import train

SMALL = [
    "~tuned", "num_envs=4", "agent.rollout_steps=8", "agent.hidden=[8]", "agent.compile=false",
    "tensorboard=false", "video=false", "total_steps=32",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: one that is whole, and ways in which one can be broken."""
    folder = tmp_path_factory.mktemp("work")
    train([*SMALL, "env=hopper", f"run_dir={folder}/whole"])
    for name in ("corrupt", "torn"):
        shutil.copytree(folder / "whole", folder / name)
        (weights,) = (folder / name).rglob("state.safetensors")
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data if name == "corrupt" else data[:100])
    save_checkpoint(folder / "foreign/checkpoints", {"theirs": 1.0}, step=3, config={"lr": 0.1})
    (folder / "empty").mkdir()
    (folder / "bad.zip").write_bytes(b"PK no zip")
    return folder


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def untouched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as the working directory, and a check that nothing in it changed."""
    monkeypatch.chdir(folder)
    before, names = snapshot(folder), set(folder.rglob("*"))
    yield folder
    assert snapshot(folder) == before
    assert set(folder.rglob("*")) == names


BAD = {
    "unknown verb": ("trian env=hopper", "unknown verb 'trian': did you mean train"),
    "unknown env": ("train env=hoper", "unknown env 'hoper': did you mean hopper"),
    "unknown agent": ("train agent=pp0", "unknown agent 'pp0': did you mean ppo"),
    "unknown reward": ("train reward_model=sucess", "did you mean success"),
    "unknown robot": ("train env=pick_cube robot=pnda", "did you mean panda"),
    "unknown key": ("train agent.lrr=1", "unknown key 'agent.lrr': did you mean agent.lr"),
    "unknown top key": ("train num_env=3", "did you mean num_envs"),
    "unknown option": ("train --resme x", "did you mean --resume"),
    "option without value": ("train --resume", "--resume needs a value"),
    "no equals sign": ("train hopper", "write key=value"),
    "broken override": ("train env=hopper agent.hidden=[8", "write key=value"),
    "no envs": ("train env=hopper num_envs=0", "num_envs=0"),
    "negative envs": ("train env=hopper num_envs=-3", "num_envs=-3"),
    "no steps": ("train env=hopper total_steps=0", "total_steps=0"),
    "text for a number": ("train env=hopper agent.lr=fast", "agent.lr='fast'"),
    "text for null": ("train env=hopper env.max_steps=long", "env.max_steps"),
    "bad range": ("train env=hopper env.randomise.mass=[2,1]", "0 < low <= high"),
    "no episode": ("train env=hopper env.max_steps=0", "env.max_steps=0"),
    "no threads": ("train env=hopper sim.threads=0", "sim.threads=0"),
    "no such folder": ("train --config-dir nowhere", "no such folder"),
    "a run is there": ("train env=hopper run_dir=whole", "holds a run already"),
    "resume nothing": ("train --resume nowhere", "no run at nowhere"),
    "resume empty": ("train --resume empty", "no checkpoint"),
    "resume a corrupt run": ("train --resume corrupt", "corrupt or foreign"),
    "resume another env": ("train --resume whole env=ant", "fixed by the run"),
    "eval nothing": ("eval", "say who acts"),
    "eval a corrupt checkpoint": ("eval corrupt", "sha256 differs"),
    "eval a torn checkpoint": ("eval torn", "size or sha256"),
    "eval a foreign checkpoint": ("eval foreign", "not a run of embodied"),
    "eval an empty folder": ("eval empty", "no checkpoint"),
    "eval a file": ("eval bad.zip env=hopper", "not a model saved by stable-baselines3"),
    "eval other observations": ("eval whole env=walker2d", "does not fit"),
    "eval without worlds": ("eval whole num_envs=0", "num_envs=0"),
    "eval without episodes": ("eval whole episodes=0", "episodes=0"),
    "eval an unknown setting": ("eval whole episods=3", "did you mean episodes"),
    "eval an unknown key": ("eval whole env.max_stps=3", "did you mean env.max_steps"),
    "eval against nothing": ("eval whole --against nowhere", "no run at nowhere"),
    "eval an unknown flaw": ("eval expert:drop env=pick_cube", "did you mean drops"),
    "play an unknown camera": ("play whole camera=frnt episodes=1", "unknown camera"),
    "play a corrupt run": ("play corrupt", "sha256 differs"),
    "play into nowhere": ("play whole episodes=1 out=nowhere/a.mp4 size=64x64", "no folder"),
    "list an unknown kind": ("list envs", "did you mean env"),
    "list too much": ("list env agent", "one group at most"),
    "doctor of what": ("doctor who", "no arguments"),
    "fit into nothing": ("fit reward_model=success env=pick_cube", "out=FOLDER"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str, untouched: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command, message = BAD[name]
    assert main(command.split()) == 2
    out, err = capfd.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert message in err
    assert out == ""


def embodied(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embodied", *arguments]
    env = {**os.environ, **environ_without_display(), **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def environ_without_display() -> dict[str, str]:
    return {"DISPLAY": "", "WAYLAND_DISPLAY": ""}


@pytest.mark.parametrize("gl", ["disable", "nonsense"])
def test_no_opengl_is_one_line_and_leaves_nothing(gl: str, untouched: Path) -> None:
    arguments = ("whole", "episodes=1", "max_steps=2", "size=64x64")
    run = embodied("play", *arguments, MUJOCO_GL=gl)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert "GL" in run.stderr


def test_a_process_ends_with_the_exit_code(untouched: Path) -> None:
    run = embodied("train", "env=humanoi")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: unknown env 'humanoi': did you mean humanoid")
    assert run.stderr.count("\n") == 1
    assert embodied("--version").stdout == f"embodied {__version__}\n"


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {verb} " in text for verb in VERBS)
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: embodied {verb}")
    assert text.count(f"embodied {verb}") >= 2 or verb == "doctor"
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("verb", ["eval", "play"])
def test_help_tells_the_defaults(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from embodied import evaluate, play

    main([verb, "--help"])
    text = capsys.readouterr().out
    for key, value in {"eval": evaluate, "play": play}[verb].DEFAULTS.items():
        shown = value if not isinstance(value, bool | float) else f"{value:g}"
        shown = str(value).lower() if isinstance(value, bool) else shown
        assert key == "against" or f"{key}={'' if isinstance(value, type) else shown}" in text


def test_options_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("embodied.train.train", lambda *given: seen.append(given))
    main(["train", "env=ant", "--resume", "a", "seed=1", "--config-dir=b"])
    main(["train"])
    assert seen == [(["env=ant", "seed=1"], "a", "b"), ([], None, None)]


def test_an_interrupt_is_a_line_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


@pytest.mark.parametrize("verb", ["list", "--help"])
def test_a_reader_that_leaves_early_ends_it_quietly(verb: str) -> None:
    command = f"{sys.executable} -m embodied {verb} | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (1, "")


def test_the_verbs_work_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["train", *SMALL, "env=hopper", "run_dir=mine", "seed=4"]) == 0
    assert main(["train", "--resume", "mine", "total_steps=64"]) == 0
    assert main(["eval", "mine", "episodes=2", "max_steps=4", "--against", "whole"]) == 0
    assert main(["play", "mine", "episodes=1", "max_steps=2", "size=64x64"]) == 0
    assert main(["list", "agent"]) == 0
    names = {path.name for path in (folder / "mine").iterdir()}
    assert {"config.yaml", "run.json", "log.jsonl", "eval.jsonl", "video.mp4"} <= names
    assert (folder / "whole/eval.jsonl").exists()
    assert "step_000000000064@" in capsys.readouterr().out


def test_a_users_own_task_runs_by_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leap.py").write_text(
        "from embodied.envs.tasks.hopper import Hopper\n\n\n"
        'class Leap(Hopper):\n    """Leap at half the weight."""\n\n    name = "leap"\n'
    )
    (tmp_path / "env").mkdir()
    (tmp_path / "env/leap.yaml").write_text("name: leap\ntask:\n  _target_: leap.Leap\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    here = ["--config-dir", str(tmp_path)]
    assert main(["train", *SMALL, "env=leap", "run_dir=mine", *here]) == 0
    assert main(["eval", "mine", "episodes=1", "max_steps=3"]) == 2  # code that is not ours
    monkeypatch.setenv("EMBODIED_TRUST", "leap")
    assert main(["eval", "mine", "episodes=1", "max_steps=3"]) == 0
    assert main(["eval", "random", "env=leap", "episodes=1", "max_steps=3", *here]) == 0
