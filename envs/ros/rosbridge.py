"""ROS 1 or 2 through a rosbridge server: JSON over a web socket."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64decode, b64encode
from collections import deque
from contextlib import suppress
from typing import Any

from embodied.deploy.messages import CompressedImage, Image, Malformed, Message
from embodied.deploy.ros_fields import build, read, ros2_name
from embodied.deploy.transport import DEPTH
from embodied.errors import UserError

from .inbox import Inbox, check_topic
from .json_fields import as_strict_json, parse

MOST_TEXT = 16_000_000
"""Letters of a message: an image of 12 million bytes."""
CONNECT_S, REST_S = 2.0, 0.5


class Rosbridge(Inbox):
    """A client of the server at `url`, of the ROS of the given `version`.

    It reads the topics that it subscribed to and nothing else. JSON has no NaN or infinity: they
    go as null, and null comes as NaN. The protocol knows no passwords: whoever reaches the server
    can command the robot.
    """

    name = "rosbridge"

    def __init__(self, url: str = "ws://127.0.0.1:9090", version: int = 2) -> None:
        super().__init__(_decode)
        try:
            import websockets.asyncio.client  # noqa: F401
        except ImportError:
            raise UserError("rosbridge needs websockets: pip install 'embodied-rl[ros]'") from None
        if version not in (1, 2):
            raise UserError(f"transport.version={version}: give 1 or 2")
        if not url.startswith(("ws://", "wss://")):
            raise UserError(f"transport.url={url}: give it as ws://127.0.0.1:9090")
        self._url, self._version = url, version
        self._out: dict[str, type[Message]] = {}
        self._calls: list[str] = []
        self._lock = threading.Lock()
        self._queue: deque[str] = deque()
        self._up, self._tried, self._fault = threading.Event(), threading.Event(), "no answer"
        self._loop = asyncio.new_event_loop()
        self._news = asyncio.Event()
        self._task = self._loop.create_task(self._stay())
        self._thread = threading.Thread(target=self._run, name="rosbridge", daemon=True)
        self._thread.start()
        self._tried.wait(2 * CONNECT_S)
        if not self.connected:
            self.close()
            raise UserError(f"transport.url={url}: no rosbridge server there ({self._fault})")

    @property
    def connected(self) -> bool:
        """Whether the server is there."""
        return self._up.is_set()

    def advertise(self, topic: str, kind: type[Message]) -> None:
        check_topic(topic)
        self._out[topic] = kind
        self._call(op="advertise", topic=topic, type=self._type(kind))

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        self.open(topic, kind)
        self._call(op="subscribe", topic=topic, type=self._type(kind))

    def publish(self, topic: str, message: Message) -> bool:
        if self._out.get(topic) is not type(message) or not self.connected:
            return False
        try:
            fields = build(message, self._make)
            if isinstance(message, Image | CompressedImage):
                fields["data"] = b64encode(message.data).decode()
            text = json.dumps({"op": "publish", "topic": topic, "msg": fields}, allow_nan=False)
        except (Malformed, ValueError):
            return False
        return len(text) <= MOST_TEXT and self._send(text)

    def close(self) -> None:
        with suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _type(self, kind: type[Message]) -> str:
        return kind.ros if self._version == 1 else ros2_name(kind)

    def _make(self, ros: str, /, **fields: Any) -> dict[str, Any]:
        if self._version == 1 and ros.startswith("builtin_interfaces/"):
            return {"secs": fields["sec"], "nsecs": fields["nanosec"]}
        return as_strict_json(ros, **fields)

    def _call(self, **fields: str) -> None:
        """Say something to the server, now and whenever it is back."""
        text = json.dumps(fields)
        with self._lock:
            self._calls.append(text)
            if self.connected:
                self._queue.append(text)
        self._loop.call_soon_threadsafe(self._news.set)

    def _send(self, text: str) -> bool:
        """Have a text sent; False where many wait already."""
        if len(self._queue) >= DEPTH or sum(map(len, self._queue)) + len(text) > 2 * MOST_TEXT:
            return False
        self._queue.append(text)
        self._loop.call_soon_threadsafe(self._news.set)
        return True

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _stay(self) -> None:
        """Be connected; connect again when that ends."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        while True:
            try:
                async with connect(
                    self._url, max_size=MOST_TEXT, compression=None, open_timeout=CONNECT_S,
                    close_timeout=0.2, ping_interval=2.0, ping_timeout=4.0, proxy=None,
                ) as server:  # fmt: skip
                    await self._talk(server)
            except (OSError, WebSocketException, TimeoutError) as error:
                self._fault = str(error) or type(error).__name__
            finally:
                self._tried.set()
                with self._lock:
                    self._up.clear()
                    self._queue.clear()
            await asyncio.sleep(REST_S)

    async def _talk(self, server: Any) -> None:
        said = 0
        while not self._all_said(said):
            await server.send(self._calls[said])
            said += 1
        self._tried.set()
        sender = asyncio.create_task(self._send_all(server))
        try:
            async for text in server:
                self._hear(text if isinstance(text, bytes) else text.encode())
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            await server.close()

    def _all_said(self, said: int) -> bool:
        """Whether the server knows all that it is to know, so that messages may follow."""
        with self._lock:
            if said == len(self._calls):
                self._up.set()
            return self.connected

    async def _send_all(self, server: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):
            while True:
                await self._news.wait()
                self._news.clear()
                while self._queue:
                    await server.send(self._queue.popleft())

    def _hear(self, text: bytes) -> None:
        """Keep what was published, as text, which is smaller than what it says; what the server
        says of itself is no message."""
        try:
            said = parse(text)
            if not isinstance(said.op, str):
                raise Malformed("no operation")
            if said.op == "publish":
                self.put(str(said.topic), text, len(text))
        except (Malformed, AttributeError):
            self.reject()


def _decode(kind: type[Message], text: bytes) -> Message:
    """The message of a kind in rosbridge's JSON. Raises `Malformed`, and nothing else."""
    try:
        fields = parse(text).msg
        if kind in (Image, CompressedImage):
            data = fields.data
            fields.data = bytes(data) if isinstance(data, list) else b64decode(data, validate=True)
    except (AttributeError, TypeError, ValueError) as error:
        raise Malformed(f"{kind.ros}: {error}") from error
    return read(kind, fields)
