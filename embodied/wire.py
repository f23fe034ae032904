"""One request to a server that speaks OpenAI's chat completions, and what can be wrong with it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MOST_BYTES = 8_000_000
"""Of a reply; a longer one is not read to its end."""
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses after which another attempt may fare better."""


class Fault(Exception):
    """Why there is no reply. `name` is one of

    unreachable, reset, http_NNN, no_json, no_choice, empty, cut_off, refused, too_long, encoding,
    and of the caller deadline, budget, no_account, resting, not_recorded.

    `passing`: another attempt may fare better, not before `after_s` seconds where a server said so.
    `free`: the server has done nothing that it would charge for.
    """

    def __init__(
        self, name: str, passing: bool = False, free: bool = False, after_s: float | None = None
    ) -> None:
        super().__init__(name)
        self.name, self.passing, self.free, self.after_s = name, passing, free, after_s


@dataclass(frozen=True)
class Answer:
    """The text of a reply, and the tokens that were read and written for it, where it says so."""

    text: str
    tokens: tuple[int, int] | None


async def post(client: Any, url: str, key: str, body: dict[str, Any]) -> Answer:
    """Send `body` to the server at `url` and read its answer; raises `Fault`, and nothing else but
    what cancels it."""
    import httpx

    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with client.stream(
            "POST", f"{url.rstrip('/')}/chat/completions", json=body, headers=headers
        ) as response:
            if response.status_code != 200:
                raise _refusal(response)
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if len(data) > MOST_BYTES:
                    raise Fault("too_long")
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        raise Fault("unreachable", passing=True, free=True) from error
    except httpx.DecodingError as error:
        raise Fault("encoding", passing=True) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Fault("reset", passing=True) from error
    return read(bytes(data))


def read(data: bytes) -> Answer:
    """The answer in a body; raises `Fault`."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Fault("no_json", passing=True) from error
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Fault("no_choice", passing=True)
    choice = choices[0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if choice.get("finish_reason") == "length":
        raise Fault("cut_off")
    if choice.get("finish_reason") == "content_filter":
        raise Fault("refused")
    if not isinstance(text, str) or not text.strip():
        raise Fault("empty", passing=True)
    return Answer(text.encode("utf-8", "replace").decode(), _tokens(body.get("usage")))


def _tokens(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(read) is int and type(written) is int and min(read, written) >= 0:
        return read, written
    return None


def _refusal(response: Any) -> Fault:
    status = response.status_code
    free = status in (408, 425, 429) or 300 <= status < 500
    after = _retry_after(response.headers.get("retry-after", ""))
    return Fault(f"http_{status}", status in PASSING, free, after)


def _retry_after(text: str) -> float | None:
    """Seconds, from a number or a date; None where it says nothing that makes sense."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
