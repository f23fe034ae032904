"""DDS: noise on its ports, peers of another type or quality, what it listens on, its leaving."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from embodied.deploy.cdr import encode
from embodied.deploy.messages import Floats, Image, JointState, Message, Text
from embodied.errors import UserError
from tests.envs.ros.kinds import numbered, told
from tests.envs.ros.links import ROOT, free_domain, wait_until
from tests.envs.ros.noise import mangled

pytest.importorskip("cyclonedds")
from cyclonedds.domain import DomainParticipant  # noqa: E402
from cyclonedds.idl import make_idl_struct, types  # noqa: E402
from cyclonedds.pub import DataWriter  # noqa: E402
from cyclonedds.qos import Policy, Qos  # noqa: E402
from cyclonedds.sub import DataReader  # noqa: E402
from cyclonedds.topic import Topic  # noqa: E402
from embodied.envs.ros.dds import Dds, _Sample, _sockets  # noqa: E402
from embodied.envs.ros.dds_types import TYPES  # noqa: E402

RELIABLE = Policy.Reliability.Reliable(max_blocking_time=0)


Bytes: Any = types.sequence
Blob: Any = make_idl_struct(
    "Blob", "sensor_msgs.msg.dds_.JointState_", {"data": Bytes[types.uint8]}
)
"""Another type under a name of ROS."""


def arrived(end: Dds, kind: type[Message]) -> list[Message]:
    return [came.message for came in end.take() if isinstance(came.message, kind)]


def test_cyclone_itself_understands_what_is_sent_and_is_understood() -> None:
    """A peer made of Cyclone's own classes, with the settings of ROS 2's nodes."""
    domain = free_domain()
    end = Dds(domain)
    end.advertise("/states", JointState)
    end.subscribe("/commands", Floats)
    peer = DomainParticipant(domain)
    quality = Qos(RELIABLE, Policy.History.KeepLast(10), Policy.Durability.Volatile)
    parts: dict[str, Any] = {
        "reader": DataReader(peer, Topic(peer, "rt/states", TYPES[JointState]), quality),
        "writer": DataWriter(peer, Topic(peer, "rt/commands", TYPES[Floats]), quality),
    }
    taken: list[Any] = []

    def heard() -> list[Any]:
        end.publish("/states", numbered(JointState, 3))
        taken.extend(parts["reader"].take(N=10))
        return taken

    wait_until(heard)
    sample = taken[0]
    assert sample.header.stamp.nanosec == 21 and sample.name == ["shoulder", "élbow", "j3"]
    assert sample.effort == [1e-300, 3.1, 3.0]
    command = TYPES[Floats].deserialize(encode(Floats((1.0, 2.0))))
    messages: list[Message] = []

    def answered() -> list[Message]:
        parts["writer"].write(command)
        messages.extend(arrived(end, Floats))
        return messages

    wait_until(answered)
    assert messages[0] == Floats((1.0, 2.0))
    parts.clear()  # whose leaving comes as samples without data
    wait_until(lambda: not end.connected)
    assert end.rejected == 0
    end.close()


def test_a_camera_that_promises_nothing_is_read() -> None:
    domain = free_domain()
    end = Dds(domain)
    end.subscribe("/camera", Image)
    peer = DomainParticipant(domain)
    topic: Any = Topic(peer, "rt/camera", TYPES[Image])
    topic.data_type = _Sample
    writer: Any = DataWriter(peer, topic, Qos(Policy.Reliability.BestEffort))
    messages: list[Message] = []

    def seen() -> list[Message]:
        writer.write(_Sample(encode(numbered(Image, 1))))
        messages.extend(arrived(end, Image))
        return messages

    wait_until(seen)
    assert messages[0] == numbered(Image, 1)
    end.close()


def test_another_type_under_the_same_name_does_no_harm() -> None:
    domain = free_domain()
    end = Dds(domain)
    end.subscribe("/states", JointState)
    peer = DomainParticipant(domain)
    stranger: Any = DataWriter(peer, Topic(peer, "rt/states", Blob), Qos(RELIABLE))
    friend = Dds(domain)
    friend.advertise("/states", JointState)
    messages: list[Message] = []

    def heard() -> list[Message]:
        for noise in mangled(encode(numbered(JointState, 3)), 20, time.monotonic_ns()):
            stranger.write(Blob(list(noise)))
        friend.publish("/states", numbered(JointState, 3))
        messages.extend(arrived(end, JointState))
        return messages

    wait_until(heard)
    assert told(messages[0]) == told(numbered(JointState, 3))
    end.close()
    friend.close()


def test_samples_that_are_none_are_counted() -> None:
    """What comes through DDS is read by the decoder of CDR alone."""
    end = Dds(free_domain())
    end.subscribe("/states", JointState)
    data, read = encode(numbered(JointState, 3)), 0
    for noise in mangled(data, 600):
        end.put("/states", _Sample.deserialize(noise).cdr, len(noise))
        read += len(end.take())
    assert end.rejected + read == 600 and end.rejected > 300
    end.close()


def test_noise_on_its_ports_does_no_harm() -> None:
    domain = free_domain()
    near, far = Dds(domain), Dds(domain)
    near.subscribe("/a", Text)
    far.advertise("/a", Text)
    wait_until(lambda: near.connected and far.connected)
    # a heartbeat, information on a destination, data: as RTPS puts them one after another
    packet = bytes.fromhex("525450530203010f" + "01" * 12 + "0e010c00" + "00" * 12)
    packet += bytes.fromhex("15052c0000001000000004c7000004c200000000010000000001000000300010")
    packet += encode(Text("hello"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for noise in mangled(packet, 600):
            for port in (10, 11, 12, 13):  # of both ends, for meetings and for messages
                stranger.sendto(noise, ("127.0.0.1", 7400 + 250 * domain + port))
    messages: list[Message] = []

    def heard() -> list[Message]:
        far.publish("/a", Text("still here"))
        messages.extend(arrived(near, Text))
        return messages

    wait_until(heard)
    assert messages[0] == Text("still here")
    near.close()
    far.close()


def listening(fds: set[int]) -> set[tuple[str, str]]:
    """Addresses and devices that sockets hear."""
    found = set()
    for fd in fds:
        with socket.socket(fileno=os.dup(fd)) as same:
            device = same.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            found.add((same.getsockname()[0], device.rstrip(b"\0").decode()))
    return found


def test_nothing_is_open_beyond_this_machine() -> None:
    before = _sockets()
    end = Dds(free_domain())
    fds = {fd for name, fd in _sockets().items() if name not in before}
    assert listening(fds) == {("127.0.0.1", ""), ("0.0.0.0", "lo")}
    assert not any(map(os.get_inheritable, fds))
    end.close()


def test_settings_of_the_users_own_are_left_alone() -> None:
    """CYCLONEDDS_URI rules, as in any other program that uses Cyclone."""
    domain = free_domain()
    code = f"from embodied.envs.ros.dds import Dds; end = Dds({domain}); print(end._domain)"
    uri = "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name='lo'/></Interfaces>"
    uri += "</General></Domain></CycloneDDS>"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "CYCLONEDDS_URI": uri},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.stdout == "None\n", run.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"domain": -1}, "from 0 to 232"),
        ({"domain": 233}, "from 0 to 232"),
        ({"domain": 7, "interface": "moon0"}, "moon0: give one of .*lo"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Dds(**options)


def test_a_named_interface_is_used() -> None:
    end = Dds(free_domain(), interface="lo")
    end.advertise("/a", Text)
    assert end.publish("/a", Text("to nobody")) and not end.connected
    end.close()
