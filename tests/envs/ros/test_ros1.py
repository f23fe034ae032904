"""ROS 1: peers that send noise, what `rospy` does to its process, and what it must not do."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

import pytest

from embodied.deploy.cdr import decode_ros1
from embodied.deploy.messages import MOST_BYTES, Malformed, Message, Text
from embodied.deploy.ros_fields import build
from embodied.errors import UserError
from tests.envs.ros.kinds import ALL, numbered, told
from tests.envs.ros.links import ROOT, Link, free_port, ros1, wait_until
from tests.envs.ros.noise import mangled

from embodied.envs.ros import ros1 as module  # isort: skip
from embodied.envs.ros import ros1_node  # isort: skip

MD5 = "992ce8a1687cec8c8bd883ec73ca41d1"
"""Of std_msgs/String, by which both sides know that they mean the same."""
pytestmark = pytest.mark.filterwarnings("ignore:notifyAll")


@pytest.fixture
def link() -> Iterator[Link]:
    with ros1() as made:
        yield made


@pytest.fixture
def end(link: Link) -> Iterator[Any]:
    made = module.Ros1(link.near["master"])
    yield made
    made.close()


def header(**fields: str) -> bytes:
    """What both sides of a connection say first."""
    rows = [f"{key}={value}".encode() for key, value in fields.items()]
    body = b"".join(struct.pack("<I", len(row)) + row for row in rows)
    return struct.pack("<I", len(body)) + body


def framed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def receive(sock: socket.socket) -> bytes:
    """One thing that comes with its length before it."""
    (length,) = struct.unpack("<I", sock.recv(4, socket.MSG_WAITALL))
    return sock.recv(length, socket.MSG_WAITALL)


class FakePublisher:
    """A node that publishes `topic` as a stranger might: whoever subscribed comes to `accept`."""

    def __init__(self, master: str, topic: str) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30)
        port = self.listener.getsockname()[1]
        self.server = SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False, allow_none=True)
        self.server.register_function(
            lambda *_: [1, "", ["TCPROS", "127.0.0.1", port]], "requestTopic"
        )
        self.server.register_function(lambda *_: [1, "", [[topic, "?"]]], "getPublications")
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        uri = f"http://127.0.0.1:{self.server.server_address[1]}"
        with xmlrpc.client.ServerProxy(master) as proxy:
            proxy.registerPublisher("/stranger", topic, "std_msgs/String", uri)

    def accept(self) -> socket.socket:
        """A subscriber, who was told that all is well."""
        sock, _ = self.listener.accept()
        receive(sock)
        sock.sendall(header(callerid="/stranger", md5sum=MD5, type="std_msgs/String"))
        return sock

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.listener.close()


def packed(message: Message) -> bytes:
    """A message as ROS 1's bytes."""
    buffer = io.BytesIO()
    build(message, module._make).serialize(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.ros)
def test_noise_is_read_or_malformed_and_nothing_else(end: Any, kind: type[Message]) -> None:
    data, refused = packed(numbered(kind, 3)), 0
    assert told(decode_ros1(kind, data)) == told(numbered(kind, 3))
    for noise in mangled(data, 600):
        try:
            assert isinstance(decode_ros1(kind, noise), kind)
        except Malformed:
            refused += 1
    assert refused > 100


def test_a_publisher_of_noise_is_survived_and_counted(link: Link, end: Any) -> None:
    end.subscribe("/noise", Text)
    stranger = FakePublisher(link.near["master"], "/noise")
    texts: list[Message] = []
    sent = 0

    def read() -> bool:
        texts.extend(came.message for came in end.take())
        return end.rejected + len(texts) == sent

    with stranger.accept() as sock:
        for noise in mangled(packed(Text("hello there")), 600):
            sock.sendall(framed(noise))
            sent += 1
            if sent % 20 == 0:
                wait_until(read)
        sock.sendall(framed(packed(Text("still here"))))
        sent += 1
        wait_until(read)
    assert texts[-1] == Text("still here") and end.rejected > 300
    stranger.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_publisher_that_never_stops_is_let_go(link: Link, end: Any) -> None:
    """It says that four thousand million bytes follow, and sends what it is let to."""
    end.subscribe("/long", Text)
    stranger = FakePublisher(link.near["master"], "/long")
    before, sent, part = resident_bytes(), 0, bytes(1_000_000)
    with stranger.accept() as sock, suppress(OSError):
        sock.sendall(struct.pack("<I", 2**32 - 1))
        while sent < 6 * MOST_BYTES:
            sock.sendall(part)
            sent += len(part)
    assert sent < 3 * MOST_BYTES
    assert resident_bytes() - before < 4 * MOST_BYTES
    friend = module.Ros1(link.near["master"])
    friend.advertise("/long", Text)

    def heard() -> bool:
        friend.publish("/long", Text("short"))
        return Text("short") in [came.message for came in end.take()]

    wait_until(heard)
    friend.close()
    stranger.close()


def test_noise_on_its_ports_keeps_nobody_from_its_messages(end: Any) -> None:
    end.advertise("/a", Text)
    tcpros = import_module("rospy.impl.tcpros_base")
    tcpros.start_tcpros_server()
    where = ("127.0.0.1", tcpros.get_tcpros_server_address()[1])
    node = ("127.0.0.1", int(end._node.rospy.get_node_uri().rstrip("/").rpartition(":")[2]))
    asked = header(callerid="/reader", topic="/a", md5sum=MD5, type="std_msgs/String")
    for address, count in ((where, 500), (node, 100)):
        for noise in mangled(asked, count):
            with socket.create_connection(address, 30) as stranger, suppress(OSError):
                stranger.settimeout(0.02)  # some are taken for readers
                stranger.sendall(noise)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
    silent = [socket.create_connection(where) for _ in range(3)]
    with socket.create_connection(where, timeout=30) as reader:
        reader.sendall(asked)
        assert MD5.encode() in receive(reader)
        reader.settimeout(0.1)

        def heard() -> bool:
            end.publish("/a", Text("hello"))
            with suppress(TimeoutError):
                return receive(reader) == framed(b"hello")
            return False

        wait_until(heard)
    for each in silent:
        each.close()


def test_other_sockets_of_the_process_are_left_as_they_are(link: Link, end: Any) -> None:
    """`rospy` sets a time limit for all that are made from then on, when it meets a peer."""
    end.advertise("/limits", Text)
    end.subscribe("/limits", Text)
    wait_until(lambda: end.publish("/limits", Text("!")) and end.take())
    assert socket.getdefaulttimeout() is None


def test_two_ends_of_a_process_share_its_node(link: Link, end: Any) -> None:
    other = module.Ros1(link.near["master"])
    end.subscribe("/shared", Text)
    other.subscribe("/shared", Text)
    other.advertise("/shared", Text)

    def heard() -> bool:
        other.publish("/shared", Text("both"))
        return bool(end.take())

    wait_until(heard)
    assert other.take()
    other.close()
    assert end.connected and not other.connected
    assert not other.publish("/shared", Text("late"))


def test_a_master_that_knows_the_node_is_believed(
    monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    """Nothing is registered anew, and the transport is never down, while the master stays."""
    node, ask, looks = end._node, ros1_node._ask, []
    anew: list[str] = []

    def listen(uri: str, method: str, *arguments: Any) -> Any:
        (looks if method == "lookupNode" else anew).append(method)
        return ask(uri, method, *arguments)

    end.advertise("/known", Text)
    wait_until(lambda: ask(node.master, "lookupNode", "/me", node.rospy.get_name())[0] == 1)
    monkeypatch.setattr(ros1_node, "_ask", listen)

    def looked() -> bool:
        assert end.connected
        return len(looks) > 2

    wait_until(looked)
    assert not anew


def test_a_process_has_one_master(end: Any) -> None:
    port = free_port()
    with SimpleXMLRPCServer(("127.0.0.1", port), logRequests=False) as other:
        other.register_function(lambda *_: [1, "", 1], "getPid")
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        with pytest.raises(UserError, match="this process has a node at"):
            module.Ros1(f"http://127.0.0.1:{port}")
        thread.join()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"master": "127.0.0.1:11311"}, "give it as http://"),
        ({"master": "http://"}, "give it as http://"),
        ({"master": "http://192.0.2.7:11311"}, "under which address"),
    ],
)
def test_bad_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], said: str
) -> None:
    monkeypatch.delenv("ROS_IP", raising=False)
    with pytest.raises(UserError, match=said):
        module.Ros1(**options)


def test_a_master_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        with pytest.raises(UserError, match="no ROS master there"):
            module.Ros1(f"http://127.0.0.1:{mute.getsockname()[1]}")


def run(code: str, home: Path) -> str:
    """What a program prints that has a home of its own; it has to end by itself."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("ROS_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**env, "HOME": str(home)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


INSIDE = """
import logging, os, signal, socket, sys
from importlib.util import find_spec
before = (logging.getLoggerClass(), list(logging.root.handlers), logging.root.level,
          signal.getsignal(signal.SIGINT), list(sys.path))
from embodied.envs.ros.ros1 import Ros1
from embodied.deploy.messages import Text
end = Ros1("{master}")
end.subscribe("/a", Text)
end.advertise("/a", Text)
while not end.take():
    end.publish("/a", Text("to myself"))
print(before == (logging.getLoggerClass(), list(logging.root.handlers), logging.root.level,
                 signal.getsignal(signal.SIGINT), list(sys.path)))
print(find_spec("rosbag") is None)
hosts = set()
for fd in os.listdir("/proc/self/fd"):
    try:
        with socket.socket(fileno=os.dup(int(fd))) as same:
            hosts.add(same.getsockname()[0])
    except (OSError, IndexError):
        pass
print(hosts)
"""


def test_the_process_stays_as_it_was_and_ends_without_being_told(
    link: Link, tmp_path: Path
) -> None:
    """Nothing is logged, nothing is written, nothing of Debian's shows, nothing is open to others;
    and an end that nobody closed keeps no process alive."""
    printed = run(INSIDE.format(master=link.near["master"]), tmp_path).splitlines()
    assert printed == ["True", "True", "{'127.0.0.1'}"]
    assert list(tmp_path.iterdir()) == []
    with xmlrpc.client.ServerProxy(link.near["master"]) as proxy:
        _, _, (publishers, subscribers, _) = proxy.getSystemState("/test")  # type: ignore[misc]
    topics = [topic for topic, _ in [*publishers, *subscribers]]  # type: ignore[misc]
    assert "/a" not in topics  # it took leave of the master


def test_without_rospy_there_is_one_line_that_says_how_to_get_it(
    link: Link, tmp_path: Path
) -> None:
    code = f"""
from embodied.envs.ros.ros1 import Ros1
from embodied.errors import UserError
try:
    Ros1("{link.near["master"]}", packages="/nowhere")
except UserError as error:
    print(error)
"""
    assert "apt install python3-rospy" in run(code, tmp_path)
