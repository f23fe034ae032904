"""Java for the worlds that are written in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest
from embodied.envs.text import java

from embodied.errors import UserError

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")


@pytest.fixture
def jar() -> str:
    return pytest.importorskip("textworld_express.constants").JAR_PATH


@needs_java
def test_a_machine_is_shared_and_gone_with_its_last_user(jar: str) -> None:
    one, two = java.borrow(jar, "test"), java.borrow(jar, "test")
    other = java.borrow(jar, "another")
    assert one is two and one.process.pid != other.process.pid
    assert one.jvm.java.lang.Math.max(2, 3) == 3
    one.leave()
    assert one.process.poll() is None
    two.leave()
    other.leave()
    assert one.process.poll() is not None and other.process.poll() is not None


@needs_java
def test_one_that_has_died_is_replaced(jar: str) -> None:
    dead = java.borrow(jar, "test")
    dead.process.kill()
    dead.process.wait()
    alive = java.borrow(jar, "test")
    assert alive is not dead and alive.jvm.java.lang.Math.max(2, 3) == 3
    alive.leave()
    dead.leave()
    assert java.borrow(jar, "test").process.poll() is None
    java.borrow(jar, "test").end()


@needs_java
def test_it_goes_with_its_process(jar: str) -> None:
    code = (
        "import sys, os; from embodied.envs.text.java import borrow;"
        "print(borrow(sys.argv[1]).process.pid, flush=True); {}"
    )
    for end in ("", "os.kill(os.getpid(), 9)"):
        ran = subprocess.run(
            [sys.executable, "-c", code.format(end), jar], capture_output=True, text=True
        )
        pid = ran.stdout.strip()
        assert pid.isdigit()
        for _ in range(600):  # it notices by itself, a little later
            state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
            if state.stdout.strip()[:1] in ("", "Z"):  # gone, or waiting to be buried
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"Java outlives its process, {end or 'that ended by itself'}")


def test_where_there_is_no_java_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UserError, match="needs Java: apt install default-jre-headless"):
        java.java_path()


@pytest.mark.parametrize(
    ("said", "sent"),
    [("", ""), (" look\n around\x00", "look around"), ("\ud800ß", "??"), ("a" * 5000, "a" * 200)],
)
def test_any_action_is_sent_as_one_short_plain_line(said: str, sent: str) -> None:
    assert java.sendable(said) == sent
