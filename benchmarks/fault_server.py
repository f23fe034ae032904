"""A server of chat completions that goes wrong on request: `model` names the way it does.

It listens on the loopback, in a thread of its own. `FAULTS` maps every mode to the faults that a
client may make of it (see `embodied.wire`); none stands for a good reply.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Mode = Callable[["Call"], Awaitable[None]]
FAULTS: dict[str, tuple[str, ...]] = {}
MODES: dict[str, Mode] = {}
TOKENS = 10
"""What every good reply says it has read, and written."""


class Call:
    """One request, and how to answer it."""

    def __init__(self, writer: Writer, body: dict[str, Any], before: int) -> None:
        self.writer, self.body, self.before = writer, body, before
        """`before`: how many requests of this mode came earlier."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, data: bytes, status: str = "200 OK", length: int | None = None, **headers: str
    ) -> None:
        headers = {"content-type": "application/json", **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines.append(f"content-length: {len(data) if length is None else length}")
        head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()
        await self.send(head + data)

    async def say(self, text: Any = None, **choice: Any) -> None:
        await self.answer(reply(f"echo {self.said}" if text is None else text, **choice))

    @property
    def said(self) -> str:
        return str(self.body["messages"][-1]["content"])


def reply(text: Any, **choice: Any) -> bytes:
    told = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": TOKENS, "completion_tokens": TOKENS}
    return json.dumps({"choices": [told], "usage": usage}).encode()


def mode(*faults: str) -> Callable[[Mode], Mode]:
    def add(function: Mode) -> Mode:
        name = function.__name__
        MODES[name], FAULTS[name] = function, faults
        return function

    return add


def fixed(name: str, faults: tuple[str, ...], data: bytes, **how: Any) -> None:
    async def answer(call: Call) -> None:
        await call.answer(data, **how)

    MODES[name], FAULTS[name] = answer, faults


@mode()
async def well(call: Call) -> None:
    await call.say()


@mode()
async def slowly(call: Call) -> None:
    await asyncio.sleep(0.1)
    await call.say()


@mode()
async def in_chunks(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for byte in reply("echo"):
        await call.send(b"1\r\n%c\r\n" % byte)
    await call.send(b"0\r\n\r\n")


@mode()
async def after_continue(call: Call) -> None:
    await call.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 3)
    await call.say()


@mode()
async def one_in_three(call: Call) -> None:
    if call.before % 3 == 2:
        await call.say()
    else:
        await call.answer(b"{}", status="503 Service Unavailable", retry_after="0")


@mode("deadline")
async def silence(call: Call) -> None:
    await asyncio.sleep(60)


@mode("deadline")
async def drip(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        await call.send(b" ")
        await asyncio.sleep(0.02)


@mode("deadline")
async def slow_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\n")
    for k in range(100_000):
        await call.send(b"x-%d: y\r\n" % k)
        await asyncio.sleep(0.05)


@mode("deadline")
async def never_ends(call: Call) -> None:
    """A good reply, but the last byte is missing and the line stays open."""
    data = reply("echo")
    await call.answer(data[:-1], length=len(data))
    await asyncio.sleep(60)


@mode("too_long")
async def flood(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await call.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


@mode("too_long")
async def bomb(call: Call) -> None:
    """A hundred megabytes, packed."""
    await call.answer(gzip.compress(bytes(100_000_000), 1), content_encoding="gzip")


@mode("reset")
async def cut(call: Call) -> None:
    await call.answer(reply("echo")[:30], length=10_000)


@mode("reset")
async def closes_at_once(call: Call) -> None:
    return


@mode("reset")
async def resets(call: Call) -> None:
    sock = call.writer.get_extra_info("socket")
    await call.answer(reply("echo")[:30], length=10_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@mode("reset")
async def no_http(call: Call) -> None:
    await call.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


@mode("reset")
async def bad_chunks(call: Call) -> None:
    await call.send(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"
    )


@mode("reset")
async def two_lengths(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nhellooo")


@mode("http_429")
async def limited_for_an_hour(call: Call) -> None:
    await call.answer(b"{}", status="429 Too Many Requests", retry_after="3600")


@mode("http_429")
async def limited_until_tomorrow(call: Call) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    await call.answer(b"{}", status="429 Too Many Requests", retry_after=when)


HTML = b"<!doctype html><html><body><h1>Sign in</h1></body></html>"
GOOD = reply("echo")
fixed("html", ("no_json",), HTML, content_type="text/html")
fixed("no_body", ("no_json",), b"")
fixed("half_json", ("no_json",), GOOD[: len(GOOD) // 2])
fixed("twice", ("no_json",), GOOD + GOOD)
fixed("bytes", ("no_json",), bytes(range(128, 256)))
fixed("deep", ("no_json",), b"[" * 100_000)
fixed("events", ("no_json",), b'data: {"choices": []}\n\ndata: [DONE]\n\n')
fixed("a_list", ("no_choice",), b"[" + GOOD + b"]")
fixed("an_error", ("no_choice",), b'{"error": {"message": "overloaded"}}')
fixed("no_choices", ("no_choice",), b'{"choices": []}')
fixed("odd_choices", ("no_choice",), b'{"choices": ["echo"]}')
fixed("null", ("empty",), reply(None))
fixed("blank", ("empty",), reply("  \n"))
fixed("a_number", ("empty",), reply(7))
fixed("no_message", ("empty",), reply("echo", message=None))
fixed("cut_off", ("cut_off",), reply("echo", finish_reason="length"))
fixed("refused", ("refused",), reply("echo", finish_reason="content_filter"))
fixed("not_packed", ("encoding",), GOOD, content_encoding="gzip")
fixed("elsewhere", ("http_302",), b"", status="302 Found", location="/v1/chat/completions")
for code, name in ((400, "bad"), (401, "key"), (404, "where"), (500, "broken"), (529, "overload")):
    fixed(f"http_{name}", (f"http_{code}",), HTML, status=f"{code} No")
fixed("odd_usage", (), json.dumps({**json.loads(GOOD), "usage": {"prompt_tokens": -5}}).encode())
fixed("half_a_character", (), reply("echo \ud800"))


class FaultServer:
    """Serves until it is closed; a context manager. `url` is where, `asked` what came, by mode and
    by what was said."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.out, self.most = 0, 0
        """Requests that are being answered, and the most there have been at once."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        start = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        self._server = start.result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _shut(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        try:
            while body := await self._read(reader):
                name = body["model"]
                call = Call(writer, body, self.asked[name])
                self.asked[name] += 1
                self.said[call.said] += 1
                self.out += 1
                self.most = max(self.most, self.out)
                try:
                    await MODES[name](call)
                finally:
                    self.out -= 1
                if FAULTS[name]:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: Reader) -> dict[str, Any] | None:
        length = 0
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
        return json.loads(await reader.readexactly(length)) if length else None
