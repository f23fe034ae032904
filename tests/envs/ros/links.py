"""How two processes are joined by each transport in the tests, on ports that nobody else has."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from embodied.deploy.transport import Transport

ROOT = Path(__file__).parents[3]
PATIENCE_S = 30.0
PACKAGE = "embodied.envs.ros"


@dataclass
class Link:
    """What both ends are made of, and what is between them, where there is anything."""

    near: dict[str, Any]
    far: dict[str, Any]
    middle: Middle | None = None
    far_first: bool = False
    """Whether the far end has to be there for the near one to be made."""


@dataclass
class Middle:
    """A server or a master, which can be ended and started again."""

    command: list[str]
    port: int
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **self.env}, cwd=ROOT, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: listening(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def wait_until(true: Callable[[], object], said: Callable[[], object] = lambda: "too late") -> None:
    """Wait until `true()`; fail after a time in which it is long overdue, with what is `said`."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, said()
        time.sleep(0.005)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_domain() -> int:
    """A DDS domain whose first ports are not in use."""
    dice = random.SystemRandom()
    while True:
        domain = dice.randrange(1, 100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7400 + 250 * domain + 10))
                return domain
            except OSError:
                continue


@contextmanager
def local() -> Iterator[Link]:
    with tempfile.TemporaryDirectory(prefix="bus_") as folder:
        end = {"_target_": f"{PACKAGE}.local.Local", "folder": folder}
        yield Link(end, end)


@contextmanager
def dds() -> Iterator[Link]:
    pytest.importorskip("cyclonedds")
    end = {"_target_": f"{PACKAGE}.dds.Dds", "domain": free_domain()}
    yield Link(end, end)


@contextmanager
def zenoh() -> Iterator[Link]:
    pytest.importorskip("zenoh")
    where = [f"tcp/127.0.0.1:{free_port()}"]
    end = {"_target_": f"{PACKAGE}.zenoh.Zenoh", "domain": 3}
    far = {**end, "connect": [], "listen": where}
    yield Link({**end, "connect": where}, far, far_first=True)


@contextmanager
def rosbridge() -> Iterator[Link]:
    pytest.importorskip("websockets")
    port = free_port()
    server = Middle([sys.executable, "-m", "tests.envs.ros.bridge", str(port)], port)
    server.start()
    end = {"_target_": f"{PACKAGE}.rosbridge.Rosbridge", "url": f"ws://127.0.0.1:{port}"}
    try:
        yield Link(end, end, server)
    finally:
        server.stop()


_master: Middle | None = None


@contextmanager
def ros1() -> Iterator[Link]:
    """A master of its own for this process, since a process cannot change its master."""
    global _master
    if shutil.which("rosmaster") is None:
        pytest.skip("no ROS 1: apt-get install --no-install-recommends ros-base")
    if _master is None:
        port = free_port()
        logs = tempfile.mkdtemp(prefix="ros_logs_")
        uri = f"http://127.0.0.1:{port}"
        env = {"ROS_MASTER_URI": uri, "ROS_IP": "127.0.0.1", "ROS_LOG_DIR": logs}
        _master = Middle(["rosmaster", "--core", "-p", str(port)], port, env)
    if not listening(_master.port):
        _master.start()
    end = {"_target_": f"{PACKAGE}.ros1.Ros1", "master": _master.env["ROS_MASTER_URI"]}
    try:
        yield Link(end, end, _master)
    finally:
        _master.stop()


LINKS = {each.__name__: each for each in (local, ros1, dds, zenoh, rosbridge)}


class Far:
    """The other process. It is gone when the block ends, or when it is killed."""

    def __init__(self, link: Link) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.envs.ros.peer", json.dumps(link.far)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.leave()

    def leave(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.leave()


def made(end: dict[str, Any]) -> Transport:
    from hydra.utils import get_object

    options = dict(end)
    transport: Transport = get_object(options.pop("_target_"))(**options)
    return transport
