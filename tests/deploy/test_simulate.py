from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embodied.cli import main

DEPLOY = "from embodied.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


def test_one_process_simulates_and_another_deploys(tmp_path: Path) -> None:
    folder = f"transport.folder={tmp_path / 'way'}"
    run = [sys.executable, "-c", DEPLOY]
    robot = subprocess.Popen(
        [*run, "simulate", "env=reach", "transport=sim", folder, "seed=1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert robot.stdout is not None
        assert "panda_sim does reach over sim" in robot.stdout.readline()
        elsewhere = ["transport=zenoh", "transport.connect=[]"]
        assert main(["simulate", "env=reach", *elsewhere, "robot=none"]) == 2
        fly = [*run, "deploy", "expert", "env=reach", "transport=sim", folder, "simulated=false"]
        done = subprocess.run(
            [*fly, "seed=1", "record=false"], capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        assert "seed 1  done" in done.stdout
    finally:
        robot.send_signal(signal.SIGINT)
        assert robot.wait(20) == 130


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["transport=sim"], "say in which worlds"),
        (["env=ant", "transport=sim"], "no task of a robot arm"),
        (["env=reach", "transport=smoke"], "unknown transport"),
        (["env=reach", "shadow=true"], "unknown key 'shadow'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 2
    said = capsys.readouterr().err
    assert what in said and said.count("\n") == 1
