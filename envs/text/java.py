"""Java for the worlds that are written in it: one machine for all worlds of a kind in a process.

The first world that borrows a machine starts it, the last that leaves ends it; and it goes with
the process, however that ends. Worlds share whatever their library keeps in static fields.
"""

from __future__ import annotations

import atexit
import os
import shutil
from pathlib import Path
from typing import Any

from embodied.errors import UserError

MOST_LETTERS = 200
"""Of an action that is sent to Java; no command of these worlds is as long."""
OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",  # all objects hash alike, so sets have the same order in any process
    "--add-opens=java.base/java.util=ALL-UNNAMED",  # to read how far a source of chance has come
)


class Machine:
    """A running Java with the classes of `jar`, under `jvm`."""

    def __init__(self, jar: str) -> None:
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        java = java_path()
        try:
            port, token, self.process = launch_gateway(
                classpath=jar, javaopts=list(OPTIONS), java_path=java, cwd=str(Path(jar).parent),
                die_on_exit=True, enable_auth=True, return_proc=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise UserError(f"{java} does not start: {error}") from None
        where = GatewayParameters(port=port, auth_token=token)
        self._gateway = JavaGateway(gateway_parameters=where)
        self.jvm: Any = self._gateway.jvm
        self.users = 0
        silent = self.jvm.java.io.OutputStream.nullOutputStream()
        self.jvm.java.lang.System.setOut(self.jvm.java.io.PrintStream(silent))

    def leave(self) -> None:
        """Say that one who borrowed it needs it no more."""
        self.users -= 1
        if self.users <= 0:
            self.end()

    def end(self) -> None:
        self._gateway.shutdown()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
        self.process.kill()
        self.process.wait()


_MACHINES: dict[tuple[str, str], Machine] = {}


def borrow(jar: str, kind: str = "") -> Machine:
    """The machine of this process for `jar` and `kind`; whoever borrows it must `leave` it.

    Raises `UserError` where there is no Java.
    """
    machine = _MACHINES.get((jar, kind))
    if machine is None or machine.process.poll() is not None:
        machine = _MACHINES[jar, kind] = Machine(jar)
    machine.users += 1
    return machine


def java_path() -> str:
    """The program `java`. Raises `UserError` where there is none."""
    home = os.environ.get("JAVA_HOME", "")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    path = path or shutil.which("java")
    if path is None:
        raise UserError("this world needs Java: apt install default-jre-headless")
    return path


def sendable(action: str) -> str:
    """An action as one short line of plain letters."""
    line = action.encode("ascii", "replace").decode()
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    return " ".join(line.split())[:MOST_LETTERS]


@atexit.register
def _end_all() -> None:
    for machine in _MACHINES.values():
        if machine.process.poll() is None:
            machine.end()
