"""The process that writes a record: `python -m embodied.deploy.recorder_writer FOLDER STORAGE FD`.

Started by `embodied.deploy.recorder`. One thread takes packets off the sockets as fast as they
come, the other writes. It ends when the process that started it says so, or is gone and all other
senders too; not before: signals that end a whole session leave it to finish the bag.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import sqlite3
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from embodied.deploy.cdr import encode, typestore
from embodied.deploy.messages import Message, Text
from embodied.deploy.recorder import END, EVENT
from embodied.deploy.recorder_sender import LARGE, LAST, PACKET, SENDER, unpack
from embodied.deploy.ros_fields import ros2_name

BACKLOG = 64_000_000
"""Bytes that wait to be written, at most; then senders begin to lose."""
FLUSH_S = 1.0
LAST_S = 0.5
"""How long, at most, what other senders have sent by the end is still taken."""
LINGER_S = 10.0
"""How long other senders are listened to where whoever made the recorder has died: the guard stops
the robot, which is worth a record."""


class Feed:
    """Takes the packets of all senders, in a thread of its own; None is the last."""

    def __init__(self, owner: socket.socket) -> None:
        self.packets: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self.taken = self.written = 0
        """Bytes: the first is this thread's to count, the second the other's."""
        self.parted = False
        """Whether the owner has said that this is the end."""
        self.lost: list[int] = []
        """By sender, as it last told."""
        self._owner, self._ends = owner, selectors.DefaultSelector()
        self._watch(owner)

    def run(self) -> None:
        until = math.inf
        while self._ends.get_map() and time.monotonic() < until:
            left = None if until == math.inf else 0.0 if self.parted else until - time.monotonic()
            ready = self._ends.select(left)
            if self.parted and not ready:
                break
            for key, _ in ready:
                if not self._take(key.fileobj, key.data):
                    self._ends.unregister(key.fileobj)
                    if key.fileobj is self._owner:
                        until = time.monotonic() + (LAST_S if self.parted else LINGER_S)
            while self.taken - self.written > BACKLOG:
                time.sleep(0.005)
        self.packets.put(None)

    def _watch(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._ends.register(end, selectors.EVENT_READ, len(self.lost))
        self.lost.append(0)

    def _take(self, end: Any, number: int) -> bool:
        """Take one packet of a sender; False where that was its last."""
        try:
            packet, fds, _, _ = socket.recv_fds(end, PACKET, 1)
        except OSError:
            return False
        if packet == SENDER and fds:
            self._watch(socket.socket(fileno=fds[0]))
            return True
        if packet == LARGE and fds:
            packet = _memory(fds[0])
            with suppress(OSError):
                end.send(b"%d" % len(packet))
        if packet.startswith(LAST):
            self.lost[number], self.parted = int(packet[len(LAST) :]), True
        if not packet or packet.startswith(LAST):
            return False
        self.taken += len(packet)
        self.packets.put((number, packet))
        return True


class BagFile:
    """A bag that is being written, until the disk is full: what comes then is counted."""

    def __init__(self, folder: Path, storage: str) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.folder, self.messages, self.lost = folder, 0, 0
        self._writer = Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()])
        self._writer.open()
        self._storage: Any = self._writer.storage
        self._connections: dict[tuple[str, type[Message]], Any] = {}
        self._fresh = 0
        self._failed = False

    def write(self, topic: str, message: Message, stamp_ns: int) -> None:
        if self._failed or not 0 <= stamp_ns < 2**63:
            self.lost += 1
            return
        data = encode(message)
        try:
            self._writer.write(self._connection(topic, type(message)), stamp_ns, data)
        except (OSError, sqlite3.Error) as error:
            self.lost += 1
            self._fail(error)
        else:
            self.messages += 1
            self._fresh += 1

    def flush(self) -> None:
        """Bring what was written onto the disk."""
        if self._failed or not self._fresh:
            return
        try:
            if hasattr(self._storage, "chunk"):  # MCAP
                if self._storage.chunk.msgs:
                    self._storage.close_chunk()
                self._storage.bio.flush()
                os.fdatasync(self._storage.bio.fileno())
            else:
                self._storage.conn.commit()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        self._fresh = 0

    def close(self) -> None:
        self.flush()
        try:
            if not self._failed:
                self._writer.set_custom_data("lost", str(self.lost))
                self._writer.close()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)

    def _connection(self, topic: str, kind: type[Message]) -> Any:
        known = self._connections.get((topic, kind))
        if known is None:
            known = self._writer.add_connection(topic, ros2_name(kind), typestore=typestore())
            self._connections[topic, kind] = known
        return known

    def _fail(self, error: Exception) -> None:
        """Write no more: what is on the disk can be read, and what is not is counted."""
        self._failed = True
        self.messages -= self._fresh
        self.lost += self._fresh
        with suppress(OSError, sqlite3.Error):
            self._storage.abort()
        reason = error.strerror if isinstance(error, OSError) else error
        say(f"{self.folder}: {reason}: nothing more is recorded")


def write(feed: Feed, bag: BagFile) -> None:
    """Write what comes, to the end."""
    due = time.monotonic() + FLUSH_S
    while True:
        try:
            item = feed.packets.get(timeout=max(0.0, due - time.monotonic()))
            if item is None:
                return
            number, packet = item
            feed.written += len(packet)
            try:
                feed.lost[number], topic, message, stamp_ns = unpack(packet)
                bag.write(topic, message, stamp_ns)
            except Exception:  # of a message that is none: the others are worth more
                bag.lost += 1
        except Empty:
            pass
        if time.monotonic() >= due:
            bag.flush()
            due = time.monotonic() + FLUSH_S


def finish(feed: Feed, bag: BagFile) -> tuple[int, int]:
    """Write the last event; messages that were written, and lost by all."""
    bag.lost += sum(feed.lost)
    now, lost = time.time_ns(), bag.lost
    what = f"{bag.messages} messages, {lost} lost"
    if not feed.parted:
        what += "; whoever recorded is gone"
    event = {"t_ns": now, "kind": END, "what": what, "lost": lost}
    bag.write(EVENT, Text(json.dumps(event)), now)
    bag.close()
    if lost:
        say(f"{bag.folder}: {what}")
    return bag.messages, bag.lost


def say(what: str) -> None:
    with suppress(OSError, ValueError):
        print(what, file=sys.stderr, flush=True)


def main(folder: str, storage: str, fd: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)  # the robot's loop comes first
    owner = socket.socket(fileno=int(fd))
    from rosbags.rosbag2 import WriterError

    try:
        typestore()
        bag = BagFile(Path(folder), storage)
    except (OSError, sqlite3.Error, WriterError) as error:
        owner.send(f"cannot record into {folder}: {error}".encode())
        return 1
    owner.send(b"ready")
    feed = Feed(owner)
    threading.Thread(target=feed.run, daemon=True).start()
    write(feed, bag)
    told = finish(feed, bag)
    with suppress(OSError):
        owner.send(b"%d %d" % told)
    return 0


def _memory(fd: int) -> bytes:
    """What is in memory that was handed over."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
