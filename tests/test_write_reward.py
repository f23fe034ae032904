"""`embodied write-reward`, from a file, a recording, chance and a server, on a small task."""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embodied.cli import main
from embodied.jail import landlock_version

pytestmark = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: no code is run"
)
WORLDS = ["env=line_reach", "sim.threads=1"]
GOOD = """
Pay for the red pad until the lamp is lit, then for the blue one.

```python
def reward(world, action, dt):
    red = np.linalg.norm(world.puck.position - world.red_pad.position, axis=-1)
    blue = np.linalg.norm(world.puck.position - world.blue_pad.position, axis=-1)
    lit = world.lamp.lit
    return {
        "reach": np.where(lit > 0, 1.0, 1.0 - np.tanh(red / 0.3)),
        "follow": 2.0 * lit * (1.0 - np.tanh(blue / 0.3)),
        "stay": 2.0 * lit * (1.0 - np.tanh(blue / 0.1)),
    }
```
"""
POOR = GOOD.replace("world.lamp.lit", "world.lamp.on")


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["write-reward", *WORLDS, *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_reply_from_a_file_becomes_a_policy_that_succeeds(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "reply.txt").write_text(GOOD)
    out = tmp_path / "out"
    code, said, _ = run(
        capsys, f"out={out}", f"reply_file={tmp_path}/reply.txt", "steps=250000", "episodes=64"
    )
    assert code == 0
    record = json.loads((out / "reward" / "reward.json").read_text())
    assert record["provenance"]["origin"] == "authored"
    assert record["provenance"]["scores"]["success"] > 0.8
    assert record["unreal"] == [] and "lamp.lit" in record["inputs"]
    assert "puck.velocity" not in record["inputs"]  # it does not read that
    assert f"reward_model.reward_code.path={out}/reward" in said
    path = f"reward_model.reward_code.path={out}/reward"
    args = [*WORLDS, "reward_model=reward_code", path, "total_steps=5000", "num_envs=64"]
    assert main(["train", *args, f"run_dir={tmp_path}/run", "video=false"]) == 0  # it was checked
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert header["audits"] == {"reward_code": "passed"}
    (out / "reward" / "audit.json").unlink()
    assert main(["train", *args, f"run_dir={tmp_path}/run2"]) == 2
    assert "never audited" in capsys.readouterr().err


def test_a_recording_is_played_back_without_training(tmp_path: Path, capsys: Any) -> None:
    rows = [
        {"round": 0, "reply": POOR, "origin": "authored"},
        {"round": 1, "reply": GOOD, "origin": "authored"},
    ]
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    code, said, err = run(capsys, f"out={out}", f"replay={tmp_path}", "train=false", "rounds=3")
    assert code == 0 and "2 replies, 1 refused, 1 trained; the best, of round 1 (authored)" in said
    assert "refused (name): line 4: AttributeError: world.lamp has no 'on': it has lit" in err
    told = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [row["refused"] for row in told] == ["name", ""]
    again = tmp_path / "again"
    assert run(capsys, f"out={again}", f"replay={out}", "train=false")[0] == 0
    assert (again / "reward" / "reward.py").read_text() == (
        out / "reward" / "reward.py"
    ).read_text()


def test_nothing_good_is_exit_code_1(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "reply.txt").write_text("I would rather not.")
    out = tmp_path / "out"
    code, said, _ = run(capsys, f"out={out}", f"reply_file={tmp_path}/reply.txt", "train=false")
    assert code == 1 and "none could be trained on" in said
    assert not (out / "reward").exists() and (out / "rounds.jsonl").exists()


def test_chance_writes_rewards(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    code, said, _ = run(capsys, f"out={out}", "blind=true", "samples=12", "rounds=1", "train=false")
    assert code == 0 and "(chance)" in said and "12 replies" in said


class Server(BaseHTTPRequestHandler):
    asked: list[Any]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        repaired = len(body["messages"]) > 2
        reply = {
            "choices": [
                {"message": {"content": GOOD if repaired else POOR}, "finish_reason": "stop"}
            ]
        }
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *said: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []
    handler = type("Own", (Server,), {"asked": asked})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1", asked
    httpd.shutdown()


def test_a_model_is_told_what_is_wrong_and_its_replies_are_kept(
    tmp_path: Path, capsys: Any, server: tuple[str, list[Any]]
) -> None:
    pytest.importorskip("httpx")
    url, asked = server
    given = [f"url={url}", "model=some", f"cache={tmp_path}/cache", "train=false"]
    given += ["samples=2", "rounds=1", "task=park the puck on blue"]
    code, said, _ = run(capsys, f"out={tmp_path}/out", *given)
    assert code == 0 and "(model): checked, not trained" in said
    assert "park the puck on blue" in asked[0]["messages"][1]["content"]
    assert "lit: Array  # (N,): 1 while" in asked[0]["messages"][1]["content"]
    repairs = [body for body in asked if len(body["messages"]) > 2]
    assert "world.lamp has no 'on'" in repairs[0]["messages"][-1]["content"]
    count = len(asked)
    assert run(capsys, f"out={tmp_path}/again", *given)[0] == 0
    assert len(asked) == count  # all of it from what was kept


def test_what_would_be_asked_can_be_read(capsys: Any) -> None:
    code, said, _ = run(capsys, "prompt=true", "task=hold it")
    assert code == 0 and "The task: hold it" in said and "class World:" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["blind=true"], "say where to write: out=FOLDER"),
        (["out=x"], "say who writes"),
        (["out=x", "blind=true", "reply_file=y"], "not reply_file and blind"),
        (["out=x", "url=http://127.0.0.1:1"], "say which model"),
        (["out=x", "blind=true", "mode=eurek"], "did you mean eureka"),
        (["out=x", "reply_file=nowhere.txt"], "No such file"),
        (["out=x", "blind=true", "env=half_cheetah"], "has no success to choose rewards by"),
        (["out=.", "blind=true"], ". exists"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: Any) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not Path("x").exists()
