"""A websocket server that outlives whoever asks it.

Policy or model run in one thread, in the order in which requests come, off the event loop: pings
are answered meanwhile. Whatever a client sends, it gets a short answer with the name of what is
wrong; what went wrong here goes to the log, and to nobody else.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from embodied.errors import UserError
from embodied.packets import MOST_BYTES, BadPacket, decode, encode
from embodied.served import Message, Refusal, Served, Session
from embodied.server_limits import Limits, Pace
from embodied.websocket import is_loopback

try:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as missing:
    raise UserError("a server needs websockets: pip install 'embodied-rl[serve]'") from missing

LOG = logging.getLogger(__name__)
GOING_AWAY, TOO_BIG, TRY_LATER = 1001, 1009, 1013
CLOSE_S = 0.5
"""Until a client has said goodbye too, which one that waits for nothing does not."""


class Server:
    """Serves `served` at `addresses` (this machine's own, or there is a token and TLS).

    `run` serves until it is stopped; as a context manager it serves in the background. Its
    `port` is known then, and `counts` what came of the requests.
    """

    def __init__(
        self,
        served: Served,
        addresses: Sequence[str] = ("127.0.0.1",),
        port: int = 0,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not (token and tls) and not all(map(is_loopback, addresses)):
            raise UserError(f"{', '.join(addresses)}: other machines need a token and TLS")
        self.served, self.addresses, self.port = served, tuple(addresses), port
        self.token, self.tls, self.limits = token, tls, limits or Limits()
        self.counts: Counter[str] = Counter()
        """Connections, answers, and refusals by name."""
        self._hello = encode(served.hello)
        self._open = 0

    @property
    def url(self) -> str:
        host = self.addresses[0]
        scheme = "ws" if self.tls is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def run(self, started: Callable[[], object]) -> None:
        """Serve until SIGTERM, or Ctrl-C, which raises `KeyboardInterrupt`; `started()` is called
        once it does. Raises `UserError` where the address cannot be had."""

        async def main() -> None:
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            await self._run(started, stop)

        asyncio.run(main())

    def __enter__(self) -> Server:
        ready: threading.Event = threading.Event()
        fault: list[BaseException] = []

        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self._run(ready.set, self._stop)

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                fault.append(error)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        ready.wait()
        if fault:
            raise fault[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self, started: Callable[[], object], stop: asyncio.Event) -> None:
        self._pool = ThreadPoolExecutor(1, "served")
        try:
            async with serve(self._attend, **self._settings()) as listener:
                self.port = listener.sockets[0].getsockname()[1]
                started()
                await stop.wait()
        except OSError as error:
            where = f"{self.addresses[0]}:{self.port}"
            raise UserError(f"cannot serve at {where}: {error.strerror or error}") from error
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _settings(self) -> dict[str, Any]:
        limits = self.limits
        return {
            "host": list(self.addresses),
            "port": self.port,
            "ssl": self.tls,
            "compression": None,  # a few bytes could become many
            "origins": [None],  # no page in a browser
            "process_request": self._admit,
            "server_header": None,
            "open_timeout": limits.handshake_s,
            "close_timeout": CLOSE_S,
            "ping_interval": None,  # a client that asks nothing answers nothing: see `idle_s`
            "max_size": MOST_BYTES,
            "max_queue": 1,
            "create_connection": _few(4 * limits.connections + 16),
        }

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """None, or why a connection is not made."""
        given = request.headers.get_all("Authorization")
        wanted = f"Bearer {self.token}".encode()
        if self.token and not (
            len(given) == 1
            and hmac.compare_digest(given[0].encode("utf-8", "surrogateescape"), wanted)
        ):
            self.counts["unauthorised"] += 1
            return connection.respond(HTTPStatus.UNAUTHORIZED, "unauthorised\n")
        if self._open >= self.limits.connections:
            self.counts["busy"] += 1
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "busy\n")
        return None

    async def _attend(self, connection: ServerConnection) -> None:
        if self._open >= self.limits.connections:  # several were let in at once
            await connection.close(TRY_LATER, "busy")
            return
        self._open += 1
        self.counts["connections"] += 1
        waiting: set[asyncio.Task[None]] = set()
        try:
            await self._send(connection, self._hello)
            await self._listen(connection, waiting)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == TOO_BIG:
                self.counts["too_large"] += 1
        finally:
            self._open -= 1
            for task in waiting:
                task.cancel()

    async def _listen(self, connection: ServerConnection, waiting: set[asyncio.Task[None]]) -> None:
        pace, session = Pace(self.limits.rate), Session()
        while True:
            try:
                async with asyncio.timeout(self.limits.idle_s):
                    packet = await connection.recv()
            except TimeoutError:
                if waiting:
                    continue
                self.counts["idle"] += 1
                await connection.close(GOING_AWAY, "idle")
                return
            received = time.monotonic()
            if not pace.allows():
                await self._refuse(connection, "too_fast")
                await asyncio.sleep(1.0 / pace.rate)
            elif isinstance(packet, str):
                await self._refuse(connection, "bad_packet")
            elif len(waiting) >= self.limits.in_flight:
                await self._refuse(connection, "busy")
            else:
                task = asyncio.create_task(self._serve(connection, packet, received, session))
                waiting.add(task)
                task.add_done_callback(waiting.discard)

    async def _serve(
        self, connection: ServerConnection, packet: bytes, received: float, session: Session
    ) -> None:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._pool, self._answer, packet, received, session)
        await self._send(connection, answer)

    async def _refuse(self, connection: ServerConnection, name: str) -> None:
        self.counts[name] += 1
        await self._send(connection, encode({"id": None, "error": name}))

    async def _send(self, connection: ServerConnection, packet: bytes) -> None:
        try:
            async with asyncio.timeout(self.limits.send_s):
                await connection.send(packet)
        except TimeoutError:
            self.counts["stalled"] += 1
            connection.transport.abort()
        except ConnectionClosed:
            pass  # whoever listens to it will find out

    def _answer(self, packet: bytes, received: float, session: Session) -> bytes:
        """The answer to a packet, whatever it is."""
        number: int | None = None
        try:
            request = decode(packet)
            number = _number(request)
            answer = {"error": "late"}
            if not _is_late(request, received):
                answer = self.served.answer(request, session)
        except BadPacket as error:
            answer = {"error": "bad_packet", "why": str(error)[:200]}
        except Refusal as refusal:
            answer = {"error": refusal.name, "why": str(refusal)[:200]}
        except Exception:
            LOG.exception("a request failed")
            answer = {"error": "failed"}
        try:
            out = encode({"id": number, **answer})
        except BadPacket:
            LOG.exception("an answer cannot be sent")
            answer = {"error": "failed"}
            out = encode({"id": number, **answer})
        self.counts[answer.get("error", "answers")] += 1
        return out


def _number(request: Message) -> int | None:
    number = request.get("id")
    if number is not None and type(number) is not int:
        raise BadPacket("id: a whole number is wanted")
    return number


def _is_late(request: Message, received: float) -> bool:
    """Whether a request has waited for longer than it wanted to."""
    most_ms = request.get("deadline_ms")
    if most_ms is None:
        return False
    if type(most_ms) not in (int, float):
        raise BadPacket("deadline_ms: a number is wanted")
    return not 1000.0 * (time.monotonic() - received) < most_ms


def _few(most: int) -> type[ServerConnection]:
    """Connections, of which there are so many at most, those included that shake hands yet."""
    there: set[ServerConnection] = set()

    class Connection(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            there.add(self)
            if len(there) > most:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            there.discard(self)
            super().connection_lost(exc)

    return Connection
