"""`embodied deploy` for real: the simulated arm, the guard and the recorder in their processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from embodied.arguments import settings
from embodied.cli import main
from embodied.deploy.bag import read_bag
from embodied.deploy.deploy import DEFAULTS, choose, deploy, run_episode, start
from embodied.deploy.messages import Floats, JointState, Text
from embodied.deploy.recorder import ABOUT, CLAMPED, EVENT

COMMANDS = "/position_controller/commands"


def test_an_expert_reaches_and_everything_is_in_the_record(tmp_path: Path) -> None:
    record = tmp_path / "flight"
    code = main(["deploy", "expert", "env=reach", f"record={record}", "seed=1"])
    assert code == 0
    bag = read_bag(record)
    about = next(message for topic, message, _ in bag if topic == ABOUT)
    assert isinstance(about, Text)
    told = json.loads(about.data)
    assert told["checkpoint"] == "expert" and told["live"] and told["env"] == "reach"
    sent = [m.data for topic, m, _ in bag if topic == COMMANDS and isinstance(m, Floats)]
    clamped = [m.position for topic, m, _ in bag if topic == CLAMPED and isinstance(m, JointState)]
    assert len(sent) > 100 and sent == clamped
    assert bag.counts["/joint_states"] > 100 and bag.counts["/embodied/observation"] > 10
    home = [0.0, -0.1, 0.0, -2.3, 0.0, 2.2, 0.785, 0.04, 0.04]
    np.testing.assert_allclose(sent[-1], home, atol=0.01)
    kinds = [json.loads(m.data)["kind"] for topic, m, _ in bag if topic == EVENT]  # type: ignore[union-attr]
    assert kinds[-2:] == ["done", "end"]


def test_in_shadow_nothing_is_sent(tmp_path: Path) -> None:
    record = tmp_path / "flight"
    assert deploy("expert", ["env=reach", "shadow=true", "max_steps=10", f"record={record}"]) == 0
    bag = read_bag(record)
    assert COMMANDS not in bag.counts
    assert bag.counts["/embodied/asked"] == 10 and bag.counts[CLAMPED] > 50


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["env=ant"], "no task of a robot arm"),
        (["env=open_drawer"], "sees where drawer is"),
        (["env=reach", "robot=pand"], "did you mean panda"),
        (["env=reach", "robot=none.yaml"], "No such file"),
        (["env=reach", "transport=smoke"], "unknown transport 'smoke'"),
        (["env=reach", "transport.nothing=1"], "unknown key 'transport.nothing'"),
        (["env=reach", "shadow=maybe"], "shadow=maybe"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "expert", *arguments, f"record={tmp_path / 'flight'}"]) == 2
    said = capsys.readouterr().err
    assert what in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_robot_that_is_silent_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embodied.deploy.deploy.LISTEN_S", 1.0)
    where = ["transport=dds", f"transport.domain={60 + os.getpid() % 40}"]
    assert main(["deploy", "expert", "env=reach", "record=false", *where]) == 2
    assert "no joints are heard on /joint_states" in capsys.readouterr().err


def test_a_guard_whose_policy_is_killed_stops_and_ends(tmp_path: Path) -> None:
    """A process flies the arm and is killed; the guard's own says why it stops, and is gone."""
    record = tmp_path / "flight"
    script = f"""
import embodied.deploy.deploy as d
from embodied.cli import main
main(["deploy", "expert:slow", "env=reach", "episodes=9", "record={record}"])
"""
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (events := [*record.glob("*.mcap")]) or events[0].stat().st_size < 400_000:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 30
    while time.monotonic() < end and "trip" not in kinds_of(record):
        time.sleep(0.5)
    assert kinds_of(record)["trip"] == "policy process gone"
    rows = [m.data for topic, m, _ in read_bag(record) if topic == COMMANDS]  # type: ignore[union-attr]
    assert rows[-1] == rows[-2]


def kinds_of(record: Path) -> dict[str, str]:
    events = [json.loads(m.data) for t, m, _ in read_bag(record) if t == EVENT]  # type: ignore[union-attr]
    return {event["kind"]: event["what"] for event in events}


def test_what_a_policy_answers_too_late_is_refused_and_the_next_is_not() -> None:
    """Its answer is to what it saw before it thought, however new the robot's state is by then."""
    arguments = ["env=reach", "record=false", "seed=1"]
    wanted, overrides = settings(arguments, DEFAULTS, ("transport",))
    plan = choose("expert", wanted, overrides)
    act, steps = plan.policy.act, [0]

    def ponder(carry: object, obs: object, greedy: bool) -> object:
        steps[0] += 1
        action = act(carry, obs, greedy)  # type: ignore[arg-type]
        time.sleep({8: 0.3, 9: 0.03}.get(steps[0], 0.0))  # else the next one overtakes it
        return action

    plan.policy.act = ponder  # type: ignore[method-assign, assignment]
    with ExitStack() as stack:
        session, _ = start(plan, stack)
        row = run_episode(plan, session, 1)
        assert row["success"] and row["holds"] >= 1
        assert session.keeper.why() == "action late"
        said = [(event["kind"], event["what"]) for event in session.keeper.events]
        late = said.index(("refused", "action late"))
        assert ("hold", "action late") in said[:late]
        assert ("resumed", "action late") in said[late:]
        assert len(session.keeper.hear()) == len(said), "what was looked at is told all the same"


def test_a_guard_that_was_not_given_time_holds_the_robot_and_goes_on() -> None:
    arguments = ["env=reach", "record=false", "seed=1"]
    wanted, overrides = settings(arguments, DEFAULTS, ("transport",))
    plan = choose("expert", wanted, overrides)
    act, steps = plan.policy.act, [0]

    def act_and_press(carry: object, obs: object, greedy: bool) -> object:
        steps[0] += 1
        if steps[0] == 8:
            os.kill(session.keeper.process.pid, signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(session.keeper.process.pid, signal.SIGCONT)
        return act(carry, obs, greedy)  # type: ignore[arg-type]

    plan.policy.act = act_and_press  # type: ignore[method-assign, assignment]
    with ExitStack() as stack:
        session, _ = start(plan, stack)
        row = run_episode(plan, session, 1)
        assert row["tripped"] is None and row["success"], row
        assert row["holds"] >= 1
