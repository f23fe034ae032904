"""DDS by way of another maker's: every state and command is read and sent on by Fast DDS.

The peer (`tests/envs/ros/fastdds`, in C++) gives back on `/back/KIND` what comes on `/there/KIND`.
Both ends of a robot use this transport: what one publishes there, the other takes from the peer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from embodied.build import make
from embodied.deploy.messages import JointState, JointTrajectory, Message
from embodied.deploy.transport import Received, Transport

SOURCES = Path(__file__).parents[1] / "tests" / "envs" / "ros" / "fastdds"
SLUGS = {JointState: "jointstate", JointTrajectory: "jointtrajectory"}
BUILD = (
    ("fastddsgen", "-replace", "Ros.idl"),
    ("g++", "-O2", "-std=c++17", "-o", "main", "main.cpp", "Ros.cxx", "RosPubSubTypes.cxx",
     "-lfastrtps", "-lfastcdr"),
)  # fmt: skip


class Relayed:
    """The transport `inner` (its configuration as JSON), its states and commands by the peer."""

    name = "relayed"

    def __init__(self, inner: str) -> None:
        self._inner: Transport = make(OmegaConf.create(json.loads(inner)))
        self._ours: dict[str, str] = {}

    @property
    def rejected(self) -> int:
        return self._inner.rejected

    @property
    def lost(self) -> int:
        return self._inner.lost

    @property
    def connected(self) -> bool:
        return self._inner.connected

    def advertise(self, topic: str, kind: type[Message]) -> None:
        self._ours[topic] = f"/there/{SLUGS[kind]}" if kind in SLUGS else topic
        self._inner.advertise(self._ours[topic], kind)

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        by = f"/back/{SLUGS[kind]}" if kind in SLUGS else topic
        self._ours[by] = topic
        self._inner.subscribe(by, kind)

    def publish(self, topic: str, message: Message) -> bool:
        return self._inner.publish(self._ours[topic], message)

    def take(self) -> list[Received]:
        return [replace(one, topic=self._ours[one.topic]) for one in self._inner.take()]

    def close(self) -> None:
        self._inner.close()


@contextmanager
def peer(folder: Path, domain: int) -> Iterator[None]:
    """The program in C++, made and running."""
    for source in SOURCES.iterdir():
        shutil.copy(source, folder)
    for command in BUILD:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    program = [str(folder / "main"), str(domain)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
