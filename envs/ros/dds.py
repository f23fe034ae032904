"""ROS 2 without ROS 2: its names and its bytes over DDS, which any ROS 2 node understands."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from embodied.deploy.cdr import decode, encode, typestore
from embodied.deploy.messages import MOST_BYTES, CompressedImage, Image, Malformed, Message
from embodied.deploy.transport import DEPTH
from embodied.errors import UserError, check_range

from .inbox import Inbox, check_topic

LOOK_NS = 200_000_000
KEPT = 10
"""Messages of a topic that ROS 2 keeps for a reader that is late, unless told otherwise."""
CONFIG = """
<CycloneDDS><Domain id="any">
  <General>
    <Interfaces><NetworkInterface name="{interface}"/></Interfaces>
    <AllowMulticast>{multicast}</AllowMulticast>
  </General>
  <Discovery>
    <ParticipantIndex>auto</ParticipantIndex>
    <MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
    <LeaseDuration>3s</LeaseDuration>
    {peers}
  </Discovery>
  <Internal><MaxSampleSize>{most}B</MaxSampleSize></Internal>
</Domain></CycloneDDS>
"""
LOOPBACK = CONFIG.format(
    interface="lo",
    multicast="false",  # there is none on the loopback: peers are asked one by one
    peers='<Peers><Peer address="127.0.0.1"/></Peers>',
    most=2 * MOST_BYTES,
)


class Dds(Inbox):
    """Cyclone DDS, in the domain of the number `domain`, which ROS calls ROS_DOMAIN_ID.

    It stays on this machine unless `interface` names a network interface, as `eth0`, or, where
    none is named, CYCLONEDDS_URI says otherwise. States and commands are sent reliably, images as
    sensors send them. A process that dies is missed after 3 seconds.
    """

    name = "dds"

    def __init__(self, domain: int = 0, interface: str | None = None) -> None:
        check_range("transport", 0, 232, domain=domain)
        super().__init__(decode)
        typestore()
        try:
            from cyclonedds.core import DDSException, WaitSet
            from cyclonedds.domain import DomainParticipant
        except ImportError:
            raise UserError("DDS needs Cyclone DDS: pip install 'embodied-rl[ros]'") from None
        try:
            self._domain = _domain(domain, interface)
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            raise UserError(f"transport.domain={domain}: {error}") from None
        self._writers: dict[str, tuple[type[Message], Any]] = {}
        self._readers: dict[str, tuple[Any, Any]] = {}
        self._waitset, self._closed = WaitSet(self._participant), False
        self._thread = threading.Thread(target=self._receive, name="dds", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether another end reads what is published here, or publishes what is read here."""
        writers = [writer for _, writer in self._writers.values()]
        readers = [reader for reader, _ in self._readers.values()]
        sides = [w.get_publication_matched_status() for w in writers]
        sides += [r.get_subscription_matched_status() for r in readers]
        return any(side.current_count > 0 for side in sides)

    def advertise(self, topic: str, kind: type[Message]) -> None:
        from cyclonedds.pub import DataWriter

        check_topic(topic)
        quality = _quality(reliable=True, depth=KEPT)
        self._writers[topic] = (
            kind,
            DataWriter(self._participant, self._topic(topic, kind), quality),
        )

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState
        from cyclonedds.sub import DataReader

        self.open(topic, kind)
        quality = _quality(reliable=kind not in (Image, CompressedImage), depth=DEPTH)
        reader: Any = DataReader(self._participant, self._topic(topic, kind), quality)
        anything = SampleState.Any | ViewState.Any | InstanceState.Any
        self._readers[topic] = reader, ReadCondition(reader, anything)
        self._waitset.attach(self._readers[topic][1])

    def publish(self, topic: str, message: Message) -> bool:
        from cyclonedds.core import DDSException

        kind, writer = self._writers.get(topic, (None, None))
        if writer is None or kind is not type(message):
            return False
        try:
            writer.write(_Sample(encode(message)))
        except (DDSException, Malformed):
            return False
        return True

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        for _, condition in self._readers.values():
            self._waitset.detach(condition)
        self._waitset = self._participant = self._domain = None  # type: ignore[assignment]
        self._writers, self._readers = {}, {}

    def _topic(self, topic: str, kind: type[Message]) -> Any:
        from cyclonedds.topic import Topic

        from .dds_types import TYPES

        made: Any = Topic(self._participant, f"rt{topic}", TYPES[kind])
        made.data_type = _Sample
        return made

    def _receive(self) -> None:
        from cyclonedds.core import DDSException
        from cyclonedds.internal import InvalidSample

        while not self._closed:
            self._waitset.wait(LOOK_NS)
            for topic, (reader, _) in list(self._readers.items()):
                try:
                    samples = reader.take(N=DEPTH)
                except DDSException:
                    self.reject()
                    continue
                for sample in samples:
                    if not isinstance(sample, InvalidSample):  # of one who leaves
                        self.put(topic, sample.cdr, len(sample.cdr))


class _Sample:
    """A sample as its bytes: DDS is told their type, and need not take them apart."""

    def __init__(self, cdr: bytes) -> None:
        self.cdr = cdr

    def serialize(self, **_: Any) -> bytes:
        return self.cdr

    @classmethod
    def deserialize(cls, data: bytes) -> _Sample:
        return cls(bytes(data))

    deserialize_key = deserialize


def _quality(reliable: bool, depth: int) -> Any:
    from cyclonedds.qos import Policy, Qos

    return Qos(
        Policy.Reliability.Reliable(0) if reliable else Policy.Reliability.BestEffort,
        Policy.History.KeepLast(depth),
        Policy.Durability.Volatile,
        Policy.DataRepresentation(use_cdrv0_representation=True),
    )


_DOMAINS: WeakValueDictionary[tuple[int, str | None], Any] = WeakValueDictionary()


def _domain(domain: int, interface: str | None) -> Any:
    """What keeps the settings of a domain, for all who are in it; None where they are the user's.

    Raises `UserError` where there is no such interface.
    """
    from cyclonedds.domain import Domain

    if interface is None and "CYCLONEDDS_URI" in os.environ:
        return None
    found = _DOMAINS.get((domain, interface))
    if found is not None:
        return found
    if interface is None:
        before = _sockets()
        made = Domain(domain, LOOPBACK)
        _keep_inside([fd for name, fd in _sockets().items() if name not in before])
    else:
        names = [name for _, name in socket.if_nameindex()]
        if interface not in names:
            raise UserError(f"transport.interface={interface}: give one of {', '.join(names)}")
        made = Domain(
            domain,
            CONFIG.format(interface=interface, multicast="true", peers="", most=2 * MOST_BYTES),
        )
    _DOMAINS[domain, interface] = made
    return made


def _sockets() -> dict[str, int]:
    """The open sockets of this process, by names that are not used again."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found[os.readlink(f"/proc/self/fd/{fd}")] = int(fd)
    return {name: fd for name, fd in found.items() if name.startswith("socket:")}


def _keep_inside(fds: list[int]) -> None:
    """Have sockets hear the loopback alone, and keep them from programs that are started:
    Cyclone's listen on every address, whatever its settings say, and are handed on."""
    for fd in fds:
        os.set_inheritable(fd, False)
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as same:
            if same.type == socket.SOCK_DGRAM and same.getsockname()[0] in ("0.0.0.0", "::"):
                same.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
