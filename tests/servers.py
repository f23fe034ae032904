"""Servers to test clients on: a real one with a toy behind it, and ones that misbehave."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.client import connect

from embodied.env import TaskEnv
from embodied.packets import decode, encode
from embodied.served import ServedPolicy
from embodied.server import Server
from embodied.server_limits import Limits
from tests.toys import Wander, reach

QUICK = Limits(rate=1e6)


@contextmanager
def serving(
    policy: Any = None, env: TaskEnv | None = None, limits: Limits = QUICK, **settings: Any
) -> Iterator[Server]:
    """A server with a policy, by default one that remembers how often it was asked."""
    env = reach(1) if env is None else env
    policy = Wander(env) if policy is None else policy
    served = ServedPolicy(policy, env.observation_space, "toy@0123", "0123", 64)
    with Server(served, limits=limits, **settings) as server:
        yield server


class Raw:
    """A client that sends what it likes."""

    def __init__(self, url: str, **how: Any) -> None:
        self.stack = ExitStack()
        opened = connect(url, max_size=None, compression=None, **how)
        self.socket = self.stack.enter_context(opened)
        self.hello = decode(self._hear())

    def _hear(self) -> bytes:
        data = self.socket.recv(timeout=20.0)
        assert isinstance(data, bytes)
        return data

    def send(self, message: Any) -> None:
        self.socket.send(encode(message) if isinstance(message, dict) else message)

    def hear(self) -> dict[str, Any]:
        return decode(self._hear())

    def ask(self, message: Any) -> dict[str, Any]:
        self.send(message)
        return self.hear()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()


class Talk:
    """One connection of a server that misbehaves."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.protocol = sock, ServerProtocol()

    def shake_hands(self) -> None:
        for event in self._events():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
                self._flush()
                return

    def hear(self) -> dict[str, Any]:
        """The next request."""
        for event in self._events():
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                return decode(bytes(event.data))
        raise EOFError

    def say(self, message: dict[str, Any] | bytes, pause_s: float = 0.0) -> None:
        """An answer, byte by byte with pauses where there are some."""
        self.protocol.send_binary(message if isinstance(message, bytes) else encode(message))
        data = b"".join(self.protocol.data_to_send())
        for piece in [data[k : k + 1] for k in range(len(data))] if pause_s else [data]:
            self.sock.sendall(piece)
            time.sleep(pause_s)

    def write(self, text: str) -> None:
        self.protocol.send_text(text.encode())
        self._flush()

    def _events(self) -> Iterator[Any]:
        while True:
            yield from self.protocol.events_received()
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.protocol.receive_data(data)
            self._flush()

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            self.sock.sendall(data)


class Fake:
    """A server that shakes hands, says `hello`, and then does as `behave` does."""

    def __init__(
        self, hello: dict[str, Any], behave: Callable[[Talk, int], None], hands: bool = True
    ) -> None:
        self.hello, self.behave, self.hands = hello, behave, hands
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = 0

    def __enter__(self) -> Fake:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(
                    target=self._talk, args=(sock, self.connections), daemon=True
                ).start()

    def _talk(self, sock: socket.socket, number: int) -> None:
        with sock, suppress(OSError, EOFError):
            talk = Talk(sock)
            if self.hands:
                talk.shake_hands()
                talk.say(self.hello)
            self.behave(talk, number)


def certificate(folder: Path) -> tuple[str, str]:
    """Files with a certificate of 127.0.0.1 that is signed by itself, and with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(cert.public_bytes(pem))
    (folder / "key.pem").write_bytes(secret)
    return str(folder / "cert.pem"), str(folder / "key.pem")
