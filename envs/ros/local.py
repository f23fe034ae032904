"""Messages between processes of this machine, through sockets in a folder: no middleware."""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import stat
import tempfile
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from embodied.deploy.messages import CompressedImage, Image, Malformed, Message
from embodied.errors import UserError

from .inbox import Inbox, check_topic
from .local_packet import contents_of, decode, encode, file_of

SMALL = 60_000
"""Bytes that a packet holds; what is larger goes as a file in memory."""
FEW_IMAGES = 4096
"""Bytes of the socket of a topic of images: room for the packets that stand for a few."""
TICK_NS = 20_000_000
"""By more than which a folder's time of change is told from the next."""
LONGEST_PATH = 75
"""Of a folder: a socket's own name is up to 30 letters, and both together 107."""
LOOK_S = 0.2
MOST_PEERS = 64


class Local(Inbox):
    """Every subscription is a socket in `folder`, to which whoever publishes connects.

    The folder belongs to one user, who alone can enter it. A peer that reads too slowly misses
    messages; one that is gone is forgotten, and found again once it is back.
    """

    name = "local"

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(decode)
        self._folder = _own_folder(folder)
        self._out: dict[str, _Readers] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._listeners: list[tuple[Path, socket.socket]] = []
        self._incoming: set[socket.socket] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._receive, name="local", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether another end reads what is published here, or publishes what is read here."""
        return bool(self._incoming) or any(out.look() for out in list(self._out.values()))

    def advertise(self, topic: str, kind: type[Message]) -> None:
        check_topic(topic)
        self._out[topic] = _Readers(self._folder, topic, kind)

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        self.open(topic, kind)
        name = f"{_prefix(topic)}{secrets.token_hex(6)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(self._folder / f".{name}"))
            listener.listen(MOST_PEERS)
            path = (self._folder / f".{name}").rename(self._folder / name)
        except OSError as error:
            listener.close()
            raise UserError(f"transport.folder={self._folder}: {error}") from None
        self._listeners.append((path, listener))
        self._selector.register(listener, selectors.EVENT_READ, (topic, True))
        self._wake.send(b"!")

    def publish(self, topic: str, message: Message) -> bool:
        out = self._out.get(topic)
        if out is None or not isinstance(message, out.kind):
            return False
        try:
            return out.send(encode(message))
        except (Malformed, OSError):
            return False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake.send(b"!")
        self._thread.join()
        for path, listener in self._listeners:
            path.unlink(missing_ok=True)
            listener.close()
        for out in self._out.values():
            out.close()
        for each in (*self._incoming, self._wake, self._woken):
            each.close()
        self._selector.close()
        self._out, self._incoming = {}, set()

    def _receive(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(LOOK_S):
                if key.data is None:
                    self._woken.recv(4096)
                elif key.data[1]:
                    self._accept(key.fileobj, key.data[0])  # type: ignore[arg-type]
                else:
                    self._read(key.fileobj, key.data[0])  # type: ignore[arg-type]
            for out in list(self._out.values()):
                out.look()

    def _accept(self, listener: socket.socket, topic: str) -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            if len(self._incoming) >= MOST_PEERS:
                peer.close()
                return
            peer.setblocking(False)
            self._incoming.add(peer)
            self._selector.register(peer, selectors.EVENT_READ, (topic, False))

    def _read(self, peer: socket.socket, topic: str) -> None:
        """Take one packet; let go of a peer that is gone."""
        fds: list[int] = []
        try:
            data, fds, flags, _ = socket.recv_fds(peer, SMALL + 1, 1)
            if not data:
                raise ConnectionError
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                return self.reject()
            packet = contents_of(fds[0]) if fds else data
            self.put(topic, packet, len(packet))
        except Malformed:
            self.reject()
        except BlockingIOError:
            pass
        except OSError:
            self._selector.unregister(peer)
            self._incoming.discard(peer)
            peer.close()
        finally:
            for fd in fds:
                os.close(fd)


class _Readers:
    """The sockets of all who subscribed to a topic, found by their names in the folder."""

    def __init__(self, folder: Path, topic: str, kind: type[Message]) -> None:
        self.kind = kind
        self._folder, self._prefix = folder, _prefix(topic)
        self._sockets: dict[str, socket.socket] = {}
        self._changed_ns, self._looked_ns = -1, 0
        self._lock = threading.Lock()
        self.look()

    def look(self) -> int:
        """Connect to those who came, let go of those who left, and say how many there are."""
        with self._lock:
            for name in [name for name, reader in self._sockets.items() if _gone(reader)]:
                self._drop(name)
            with suppress(OSError):
                changed_ns = self._folder.stat().st_mtime_ns
                if changed_ns != self._changed_ns or self._looked_ns - changed_ns < TICK_NS:
                    self._changed_ns, self._looked_ns = changed_ns, time.time_ns()
                    self._find()
            return len(self._sockets)

    def _find(self) -> None:
        names = {name for name in os.listdir(self._folder) if name.startswith(self._prefix)}
        for name in self._sockets.keys() - names:
            self._sockets.pop(name).close()
        for name in names - self._sockets.keys():
            reader = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            if self.kind in (Image, CompressedImage):
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FEW_IMAGES)
            try:
                reader.connect(str(self._folder / name))
            except ConnectionRefusedError:  # its process ended without taking leave
                (self._folder / name).unlink(missing_ok=True)
                reader.close()
            except OSError:
                self._changed_ns = -1  # try again
                reader.close()
            else:
                self._sockets[name] = reader

    def send(self, packet: bytes) -> bool:
        """Send to all who read; False if one of them did not take it."""
        self.look()
        image = self.kind in (Image, CompressedImage)  # whose socket is small
        fds = [file_of(packet)] if len(packet) > (0 if image else SMALL) else []
        sent = True
        try:
            with self._lock:
                for name, reader in list(self._sockets.items()):
                    sent &= self._send(name, reader, b"\0" if fds else packet, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return sent

    def _send(self, name: str, reader: socket.socket, packet: bytes, fds: list[int]) -> bool:
        try:
            socket.send_fds(reader, [packet], fds)
            return True
        except BlockingIOError:  # it has not read what it was sent before
            return False
        except OSError:
            self._drop(name)
            return True  # who is gone misses nothing

    def _drop(self, name: str) -> None:
        self._sockets.pop(name).close()
        self._changed_ns = -1  # its file may still be there

    def close(self) -> None:
        for reader in self._sockets.values():
            reader.close()


def _own_folder(given: str | None) -> Path:
    """The folder, made where it is missing; `UserError` unless it is this user's alone."""
    home = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(given or f"{home}/embodied-{os.geteuid()}").absolute()
    if len(os.fsencode(folder)) > LONGEST_PATH:
        raise UserError(f"transport.folder={folder}: give a path of at most {LONGEST_PATH} letters")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UserError(f"transport.folder={folder}: {error.strerror}") from None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not mine or found.st_mode & 0o077:
        raise UserError(f"transport.folder={folder}: give a folder that is yours alone (mode 700)")
    return folder


def _gone(reader: socket.socket) -> bool:
    """Whether the other side of a socket, which never says anything, has closed it."""
    try:
        return reader.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _prefix(topic: str) -> str:
    """What the names of all sockets of a topic start with."""
    return f"{sha256(topic.encode()).hexdigest()[:16]}."
