"""ROS 1 through its own Python library, `rospy`, as Debian packages it."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from embodied.deploy.cdr import decode_ros1, typestore
from embodied.deploy.messages import Malformed, Message
from embodied.deploy.ros_fields import build
from embodied.errors import UserError

from .inbox import Inbox, check_topic
from .ros1_node import Node, node_of

KEPT = 10
"""Messages that wait for a reader that is slower than we are; then the oldest go."""
LOOPBACK = ("127.", "localhost", "[::1]")


class Ros1(Inbox):
    """A part of this process's node at `master`, as `http://127.0.0.1:11311`, or ROS_MASTER_URI.

    A process has one node, with one master; its objects share it, and it ends with the process.
    `host` is the address under which other machines reach this one (or ROS_IP says it); without
    one nothing is reachable but from this machine. `packages` is where `rospy` is, should Python
    not find it. Raises `UserError` where `rospy` or the master is missing.
    """

    name = "ros1"

    def __init__(
        self,
        master: str | None = None,
        host: str | None = None,
        packages: str = "/usr/lib/python3/dist-packages",
    ) -> None:
        super().__init__(decode_ros1)
        typestore()
        master = master or os.environ.get("ROS_MASTER_URI") or "http://127.0.0.1:11311"
        where = urlsplit(master)
        if where.scheme != "http" or not where.hostname:
            raise UserError(f"transport.master={master}: give it as http://127.0.0.1:11311")
        host = host or os.environ.get("ROS_IP") or os.environ.get("ROS_HOSTNAME")
        if host is None and not where.netloc.startswith(LOOPBACK):
            raise UserError("transport.host: say under which address the master reaches us")
        self._node: Node = node_of(master, host or "127.0.0.1", packages)
        self._publishers: dict[str, tuple[type[Message], Any]] = {}
        self._subscribers: list[Any] = []
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether the master is there and knows us."""
        return self._node.known and not self._closed

    def advertise(self, topic: str, kind: type[Message]) -> None:
        check_topic(topic)

        def start() -> None:
            publisher = self._node.rospy.Publisher(
                topic, _class(kind.ros), queue_size=KEPT, tcp_nodelay=True
            )
            self._publishers[topic] = kind, publisher

        self._node.when_known(start)

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        self.open(topic, kind)

        def put(message: Any) -> None:
            self.put(topic, message.raw, len(message.raw))

        def start() -> None:
            as_bytes = _kept(_class(kind.ros))
            subscriber = self._node.rospy.Subscriber(topic, as_bytes, put, tcp_nodelay=True)
            self._subscribers.append(subscriber)

        self._node.when_known(start)

    def publish(self, topic: str, message: Message) -> bool:
        kind, publisher = self._publishers.get(topic, (None, None))
        if publisher is None or kind is not type(message):
            return False
        try:
            publisher.publish(build(message, _make))
        except (Malformed, self._node.rospy.ROSException, UnicodeError):
            return False
        return True

    def close(self) -> None:
        self._closed = True
        publishers = [publisher for _, publisher in self._publishers.values()]
        self._node.leave([*publishers, *self._subscribers])
        self._publishers, self._subscribers = {}, []


def _class(ros: str) -> Any:
    package, _, name = ros.partition("/")
    return getattr(import_module(f"{package}.msg"), name)


def _make(ros: str, /, **fields: Any) -> Any:
    """A part of a message as a class of ROS 1."""
    if ros.startswith("builtin_interfaces/"):
        time = getattr(import_module("genpy"), ros.rpartition("/")[2])
        return time(fields["sec"], fields["nanosec"])
    return _class(ros)(**fields)


@cache
def _kept(message: Any) -> Any:
    """A class of ROS 1 that keeps its bytes as they came: its own reading of them is lax, and not
    needed before they are taken."""

    def deserialize(self: Any, raw: bytes) -> Any:
        self.raw = raw
        return self

    return type(message.__name__, (message,), {"deserialize": deserialize})
