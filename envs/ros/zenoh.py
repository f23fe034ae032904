"""ROS 2's bytes and keys over Zenoh, as `rmw_zenoh` writes them. Untested against ROS 2 itself."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from embodied.deploy.cdr import decode, encode, typestore
from embodied.deploy.messages import MOST_BYTES, Malformed, Message
from embodied.deploy.ros_fields import ros2_name
from embodied.errors import UserError, check_range

from .inbox import Inbox, check_topic

TRY_MS = 2000


class Zenoh(Inbox):
    """A peer in the ROS domain of the number `domain`.

    It connects to the endpoints of `connect`, by default a router of this machine, and takes
    connections at `listen`, by default from this machine alone; it looks for no others. It does
    not show in ROS's graph: `ros2 topic list` knows nothing of it.
    """

    name = "zenoh"

    def __init__(
        self,
        domain: int = 0,
        connect: list[str] | tuple[str, ...] = ("tcp/127.0.0.1:7447",),
        listen: list[str] | tuple[str, ...] = ("tcp/127.0.0.1:0",),
    ) -> None:
        check_range("transport", 0, 232, domain=domain)
        super().__init__(decode)
        typestore()
        try:
            import zenoh
        except ImportError:
            raise UserError("Zenoh needs its library: pip install 'embodied-rl[ros]'") from None
        self._domain = domain
        try:
            self._session = zenoh.open(_config(list(connect), list(listen)))
        except zenoh.ZError as error:
            reason = " ".join(str(error).split()).partition(" at /")[0]
            where = f"transport.connect={list(connect)}, listen={list(listen)}"
            raise UserError(f"{where}: {reason}") from None
        self._gid = secrets.token_bytes(16)
        self._publishers: dict[str, tuple[type[Message], Any, Iterator[int]]] = {}
        self._subscribers: list[Any] = []

    @property
    def connected(self) -> bool:
        """Whether there is a router or a peer, and, where we publish, somebody who reads it."""
        info = self._session.info
        if not (info.routers_zid() or info.peers_zid()):
            return False
        publishers = [publisher for _, publisher, _ in self._publishers.values()]
        return not publishers or any(each.matching_status.matching for each in publishers)

    def advertise(self, topic: str, kind: type[Message]) -> None:
        import zenoh

        check_topic(topic)
        publisher = self._session.declare_publisher(
            self._key(topic, kind),
            congestion_control=zenoh.CongestionControl.DROP,
        )
        self._publishers[topic] = kind, publisher, itertools.count(1)

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        self.open(topic, kind)

        def put(sample: Any) -> None:
            data = sample.payload.to_bytes()
            self.put(topic, data, len(data))

        self._subscribers.append(self._session.declare_subscriber(self._key(topic, kind), put))

    def publish(self, topic: str, message: Message) -> bool:
        import zenoh

        kind, publisher, count = self._publishers.get(topic, (None, None, None))
        if count is None or publisher is None or kind is not type(message):
            return False
        try:
            publisher.put(encode(message), attachment=self._attachment(next(count)))
        except (zenoh.ZError, Malformed):
            return False
        return True

    def close(self) -> None:
        self._session.close()

    def _key(self, topic: str, kind: type[Message]) -> str:
        """`<domain>/<topic>/<type>/<hash of the type>`."""
        name = ros2_name(kind)
        dds_name = name.replace("/msg/", "::msg::dds_::") + "_"
        return f"{self._domain}{topic}/{dds_name}/{typestore().hash_rihs01(name)}"

    def _attachment(self, count: int) -> Any:
        from zenoh.ext import Int64, z_serialize

        number, now = Int64(count), Int64(time.time_ns())
        pairs = ("sequence_number", number, "source_timestamp", now, "source_gid", self._gid)
        return z_serialize(pairs)


def _config(connect: list[str], listen: list[str]) -> Any:
    import zenoh

    config = zenoh.Config()
    settings = {
        "mode": "peer",
        "connect/endpoints": connect,
        "connect/timeout_ms": TRY_MS,
        "connect/exit_on_failure": True,
        "listen/endpoints": listen,
        "listen/exit_on_failure": True,
        "scouting/multicast/enabled": False,
        "transport/link/rx/max_message_size": 2 * MOST_BYTES,
        "transport/link/tx/queue/size/data": 16,  # batches; with fewer, an image crowds out states
        "transport/shared_memory/enabled": False,
    }
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return config
