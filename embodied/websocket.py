"""A websocket to a server, every wait of which ends at a moment that the caller names.

The time-outs of a socket are per read, so a server that drips would never meet one: here each read
and each write gets what is left until then. Only looking up a name may take longer.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections import deque
from typing import Any

from embodied.errors import UserError
from embodied.packets import MOST_BYTES

try:
    from websockets.client import ClientProtocol
    from websockets.exceptions import InvalidURI
    from websockets.frames import Frame, Opcode
    from websockets.protocol import OPEN
    from websockets.uri import WebSocketURI, parse_uri
except ImportError as missing:
    raise UserError(
        "a server is reached through websockets: pip install 'embodied-rl[serve]'"
    ) from missing

TOO_BIG = 1009
READ_BYTES, MOST_PARTS = 2**16, 4096


class RemoteFault(UserError):
    """Why a server gave no answer. `name` is one of

    overdue, unreachable, certificate, http_NNN, closed, too_large, malformed, another (it serves
    something else), or what the server says: bad_packet, too_fast, busy, unknown_session, failed.

    `passing`: another attempt may fare better.
    """

    def __init__(self, name: str, detail: str = "", passing: bool = False) -> None:
        super().__init__(f"{detail} ({name})" if detail else name)
        self.name, self.passing = name, passing


class Overdue(RemoteFault):
    """The answer did not come in time."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("overdue", detail)


class Websocket:
    """One connection to `url`, open once it is made. Raises `RemoteFault`, `Overdue` after `until`
    (of `time.monotonic`)."""

    def __init__(
        self, url: WebSocketURI, token: str, tls: ssl.SSLContext | None, until: float
    ) -> None:
        self._messages: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._unsent: deque[memoryview] = deque()
        self._socket: socket.socket = _connect(url.host, url.port, until)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._secure(tls, url.host, until)
            self._protocol = ClientProtocol(url, max_size=MOST_BYTES)
            self._shake_hands(token, until)
        except BaseException:
            self.close()
            raise

    def _secure(self, tls: ssl.SSLContext, host: str, until: float) -> None:
        self._socket.settimeout(_left(until))
        try:
            self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise RemoteFault("certificate", error.verify_message) from error
        except TimeoutError as error:
            raise Overdue("no TLS") from error
        except OSError as error:
            raise RemoteFault("unreachable", f"no TLS: {error}", passing=True) from error

    def _shake_hands(self, token: str, until: float) -> None:
        request = self._protocol.connect()
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        self._protocol.send_request(request)
        self._flush(until)
        while self._protocol.state is not OPEN:
            if self._protocol.handshake_exc is not None:
                response = getattr(self._protocol.handshake_exc, "response", None)
                if response is None:
                    raise RemoteFault("malformed", "no websocket answers there")
                code = response.status_code
                raise RemoteFault(f"http_{code}", "refused", passing=code in (429, 503))
            self._read(until)

    def send(self, message: bytes, until: float) -> None:
        """Send all of a message; the connection is of no use once this raised."""
        if self._protocol.state is not OPEN:
            raise self._gone()
        self._protocol.send_binary(message)
        self._flush(until)

    def receive(self, until: float) -> bytes:
        """The next message. After `Overdue` one can go on where it was left."""
        while not self._messages:
            if self._protocol.state is not OPEN:
                raise self._gone()
            self._read(until)
        return self._messages.popleft()

    def close(self) -> None:
        self._socket.close()

    def _gone(self) -> RemoteFault:
        closed = self._protocol.close_rcvd or self._protocol.close_sent
        if closed is not None and closed.code == TOO_BIG:
            return RemoteFault("too_large")
        return RemoteFault("closed", passing=True)

    def _flush(self, until: float) -> None:
        """Send what there is to send; what was not sent by then stays to be sent."""
        self._unsent += [memoryview(data) for data in self._protocol.data_to_send() if data]
        while self._unsent:
            self._socket.settimeout(_left(until))
            try:
                sent = self._socket.send(self._unsent[0])
            except TimeoutError as error:
                raise Overdue("it takes nothing") from error
            except OSError as error:
                raise RemoteFault("closed", passing=True) from error
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                self._unsent.popleft()

    def _read(self, until: float) -> None:
        self._socket.settimeout(_left(until))
        try:
            data = self._socket.recv(READ_BYTES)
        except TimeoutError as error:
            raise Overdue() from error
        except OSError as error:
            raise RemoteFault("closed", passing=True) from error
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._hear(event)
        self._flush(until)  # the answer to a ping

    def _hear(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            raise RemoteFault("malformed", "it sends text")
        if frame.opcode not in (Opcode.BINARY, Opcode.CONT):
            return
        self._parts.append(bytes(frame.data))
        if len(self._parts) > MOST_PARTS:
            raise RemoteFault("malformed", "it sends crumbs")
        if frame.fin:
            self._messages.append(b"".join(self._parts))
            self._parts.clear()


def read_url(url: str) -> WebSocketURI:
    """The parts of `ws://HOST:PORT` or `wss://HOST:PORT`. Raises `UserError` for anything else."""
    try:
        found = parse_uri(url)
    except (InvalidURI, ValueError):
        found = None
    if found is None or found.user_info is not None:
        raise UserError(f"url={url!r:.80}: give ws://HOST:PORT, or wss://HOST:PORT for TLS")
    return found


def is_loopback(address: str) -> bool:
    """Whether an address, or a name that stands for one, is this machine's own."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


def _left(until: float) -> float:
    """Seconds until then; raises `Overdue` where there are none."""
    left = until - time.monotonic()
    if left <= 0.0:
        raise Overdue()
    return left


def _connect(host: str, port: int, until: float) -> socket.socket:
    fault: RemoteFault | None = None
    for family, address in _addresses(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(until))
            sock.connect(address)
            return sock
        except TimeoutError as error:
            sock.close()
            raise Overdue(f"no answer from {host}:{port}") from error
        except OSError as error:
            sock.close()
            why = f"nobody serves at {host}:{port}: {error.strerror or error}"
            fault = RemoteFault("unreachable", why, passing=True)
        except BaseException:
            sock.close()
            raise
    raise fault or RemoteFault("unreachable", f"{host} has no address", passing=True)


def _addresses(host: str, port: int) -> list[tuple[Any, Any]]:
    """What a name stands for; the system's resolver has time-outs of its own."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RemoteFault("unreachable", f"{host}: {error}", passing=True) from error
    return [(family, address) for family, _, _, _, address in found]
