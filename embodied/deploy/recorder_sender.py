"""One process's end of a recorder, and the packets that it sends."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from embodied.deploy.messages import KINDS, JointTrajectory, Message, TrajectoryPoint
from embodied.errors import UserError

try:
    from msgpack import packb, unpackb
except ImportError as error:
    raise UserError("the recorder needs msgpack: pip install 'embodied-rl[ros]'") from error

BUFFER = 4_000_000
"""Bytes that are asked for between the two processes; the system may give fewer."""
PACKET = 65536
"""Bytes of a packet; what is larger (an image) is handed over as memory."""
UNDER_WAY = 64_000_000
"""Bytes of such memory that one sender may have handed over and the other end not taken."""
LARGE, SENDER, LAST = b"large", b"sender", b"last "
"""Packets that are no message: they hand over memory with a packet in it, or another sender's other
end; the last of whoever made the recorder says how many it has lost."""
NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Sender:
    """Sends messages to a recorder, and never waits: what does not fit is dropped and counted.

    It travels to another process as an argument of a `multiprocessing` process that is spawned, or
    by `fileno()` among the `pass_fds` of `subprocess`, of which `Sender(fd)` makes it there. One
    for each process: images that fill one then leave the others alone.
    """

    def __init__(self, end: socket.socket | int) -> None:
        if isinstance(end, int):
            end = socket.socket(fileno=end)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.lost = 0
        """Messages that did not get through: no room, nobody there, or not to be written down."""
        self._end, self._under_way = end, 0

    def fileno(self) -> int:
        return self._end.fileno()

    def record(self, topic: str, message: Message, stamp_ns: int | None = None) -> bool:
        """Send a message, with its time (ns since 1970, by default now); whether that was possible.

        Never raises: what is wrong is counted in `lost`."""
        try:
            stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
            packet = pack(self.lost, topic, message, stamp_ns)
            if len(packet) <= PACKET:
                self._end.send(packet, NOW)
            else:
                self._hand_over(packet)
        except Exception:  # whatever it is, the robot's loop goes on
            self.lost += 1
            return False
        return True

    def close(self) -> None:
        """Let go of it here; whoever else has it may go on."""
        self._end.close()

    def _hand_over(self, packet: bytes) -> None:
        self._settle()
        if self._under_way + len(packet) > UNDER_WAY:
            raise BlockingIOError
        fd = os.memfd_create("record")
        try:
            rest = memoryview(packet)
            while rest:
                rest = rest[os.write(fd, rest) :]
            socket.send_fds(self._end, [LARGE], [fd], NOW)
        finally:
            os.close(fd)
        self._under_way += len(packet)

    def _settle(self) -> None:
        """Read how much of what was handed over has been taken."""
        try:
            while taken := self._end.recv(64, NOW):
                self._under_way -= int(taken)
        except BlockingIOError:
            return


def pack(lost: int, topic: str, message: Message, stamp_ns: int) -> bytes:
    """A message as a packet, with how many its sender has lost so far."""
    fields = vars(message).values()
    return packb((lost, stamp_ns, topic, message.ros, *fields), default=_plain)


def unpack(packet: bytes) -> tuple[int, str, Message, int]:
    """What `pack` was given."""
    lost, stamp_ns, topic, ros, *fields = unpackb(packet, use_list=False)
    kind = KINDS[ros]
    if kind is JointTrajectory:
        fields[-1] = tuple(TrajectoryPoint(*point) for point in fields[-1])
    return lost, topic, kind(*fields), stamp_ns


def _plain(value: Any) -> Any:
    """What msgpack does not know: a point of a trajectory, NumPy's numbers and rows."""
    return tuple(vars(value).values()) if isinstance(value, TrajectoryPoint) else value.tolist()
