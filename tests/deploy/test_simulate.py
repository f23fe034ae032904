from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from embodied.envs.ros.local import Local

from embodied.cli import main
from embodied.deploy.messages import Flag, Floats, Text

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
        robot.communicate(timeout=20)
        assert robot.returncode == 130


def test_after_a_stop_it_waits_to_be_armed_and_goes_home_when_interrupted(tmp_path: Path) -> None:
    folder = str(tmp_path / "way")
    way = ["transport=sim", f"transport.folder={folder}"]
    run = [sys.executable, "-c", DEPLOY]
    robot = subprocess.Popen(
        [*run, "simulate", "env=reach", *way, "seed=1"], stdout=subprocess.PIPE, text=True
    )
    fly = [*run, "deploy", "expert:slow", "env=reach", *way, "simulated=false", "seed=1"]
    policy = subprocess.Popen(
        [*fly, "record=false", "episodes=50"], stdout=subprocess.PIPE, text=True
    )
    operator = Local(folder)
    operator.advertise("/stop", Flag)
    operator.advertise("/arm", Flag)
    operator.subscribe("/position_controller/commands", Floats)
    operator.subscribe("/status", Text)
    try:
        rows = watch(operator, lambda rows, said: len(rows) > 200)[0]
        operator.publish("/stop", Flag(True))
        assert policy.stdout is not None
        assert "tripped: emergency stop" in policy.stdout.readline()
        while "waiting for true on /arm" not in (line := policy.stdout.readline()):
            assert line
        operator.publish("/stop", Flag(False))
        operator.publish("/arm", Flag(True))
        watch(operator, lambda rows, said: len(rows) > 100)
        policy.send_signal(signal.SIGINT)
        rows, said = watch(operator, lambda rows, said: "done" in said)
        assert policy.wait(30) == 130
        home = [0.0, -0.1, 0.0, -2.3, 0.0, 2.2, 0.785, 0.04, 0.04]
        assert rows[-1] == pytest.approx(home, abs=0.01)
    finally:
        operator.close()
        for process in (policy, robot):
            process.kill()
            process.communicate()


def watch(
    operator: Local, enough: Callable[[list[tuple[float, ...]], set[str]], bool]
) -> tuple[list[tuple[float, ...]], set[str]]:
    """Commands that are sent, and kinds of what the guard says, until that is enough."""
    rows: list[tuple[float, ...]] = []
    said: set[str] = set()
    end = time.monotonic() + 60.0
    while not enough(rows, said):
        assert time.monotonic() < end
        for came in operator.take():
            if isinstance(came.message, Floats):
                rows.append(came.message.data)
            elif isinstance(came.message, Text):
                said.add(json.loads(came.message.data)["kind"])
        time.sleep(0.01)
    return rows, said


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
