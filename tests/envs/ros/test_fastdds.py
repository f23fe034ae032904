"""The DDS transport against another vendor's: Fast DDS, which is ROS 2's own default, in C++."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import pytest

from embodied.deploy.messages import Floats, JointState, JointTrajectory
from tests.envs.ros.kinds import numbered, slug, told
from tests.envs.ros.links import free_domain, wait_until

pytest.importorskip("cyclonedds")
from embodied.envs.ros.dds import Dds  # noqa: E402

SOURCES = Path(__file__).parent / "fastdds"
KINDS = (JointState, Floats, JointTrajectory)
COUNT = 50
needs_fastdds = pytest.mark.skipif(
    shutil.which("fastddsgen") is None or shutil.which("g++") is None,
    reason="no Fast DDS: apt-get install fastddsgen libfastrtps-dev default-jre-headless g++",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The peer, made of its IDL and its one file."""
    folder = tmp_path_factory.mktemp("fastdds")
    for source in SOURCES.iterdir():
        shutil.copy(source, folder)
    for command in (
        ["fastddsgen", "-replace", "Ros.idl"],
        ["g++", "-O0", "-std=c++17", "-o", "main", "main.cpp", "Ros.cxx", "RosPubSubTypes.cxx",
         "-lfastrtps", "-lfastcdr"],
    ):  # fmt: skip
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert made.returncode == 0, made.stderr
    return folder / "main"


@needs_fastdds
def test_another_vendor_reads_what_we_write_and_we_what_it_writes(program: Path) -> None:
    domain = free_domain()
    peer = subprocess.Popen(
        [program, str(domain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None and peer.stdout is not None
    assert peer.stdout.readline() == "ready\n"
    end = Dds(domain)
    for kind in KINDS:
        end.subscribe(f"/back/{slug(kind)}", kind)
        end.advertise(f"/there/{slug(kind)}", kind)
    silent = {f"/back/{slug(kind)}" for kind in KINDS}

    def answered() -> bool:
        for kind in KINDS:
            end.publish(f"/there/{slug(kind)}", numbered(kind, 1))
        time.sleep(0.05)
        silent.difference_update(came.topic for came in end.take())
        return not silent

    wait_until(answered)
    time.sleep(0.3)
    end.take()
    came = defaultdict(list)

    def take() -> bool:
        for each in end.take():
            came[each.topic].append(told(each.message))
        return sum(map(len, came.values())) == COUNT * len(KINDS)

    for n in range(COUNT):
        for kind in KINDS:
            assert end.publish(f"/there/{slug(kind)}", numbered(kind, n))
        time.sleep(0.01)
        take()
    wait_until(take)
    for kind in KINDS:
        assert came[f"/back/{slug(kind)}"] == [told(numbered(kind, n)) for n in range(COUNT)]
    assert end.rejected == end.lost == 0
    peer.stdin.close()
    wait_until(lambda: not end.connected)
    assert peer.wait(30) == 0
    peer.stdout.close()
    end.close()
