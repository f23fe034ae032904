"""Asking a language model: any server that speaks OpenAI's chat completions, over HTTP.

What goes wrong between here and a model is survived and counted, never raised: a `Reply` says what
came of a question. No call outlives its deadline, which is absolute and held outside of the HTTP
client (whose time-outs are per read, so that a body that drips never meets one). Attempts that
failed for a passing reason are repeated after full-jitter pauses, as long as they are few against
the traffic; a server that keeps failing is left alone for a while. Cost is reserved before a
request goes out and settled after, and what was answered once is never paid for again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, TypeVar

from embodied.errors import UserError, check_range
from embodied.ledger import Ledger
from embodied.reply_cache import ReplyCache, key_of
from embodied.wire import Answer, Fault, post

T = TypeVar("T")
PAUSE_S, LONGEST_PAUSE_S = 0.5, 20.0
"""The first pause is drawn from 0 to the one; every further one from twice as wide a range, up to
the other."""
RETRY_SHARE, FIRST_RETRIES = 0.1, 5.0
"""Retries that every question adds to those that are left, and those there are to begin with."""
TRIPS, REST_S = 8, 10.0
"""Faults in a row after which a server is left alone, and for how long."""
IMAGE_TOKENS = 4096
"""More than an image counts for, where cost is reserved."""


@dataclass(frozen=True)
class Prompt:
    """A question. `messages` are (role, content); content is text, or OpenAI's list of parts.

    `sample` tells several answers to one question apart. `schema` is a JSON schema, as text, that
    the server is asked to keep to.
    """

    messages: tuple[tuple[str, Any], ...]
    temperature: float = 0.0
    max_tokens: int = 1024
    sample: int = 0
    schema: str | None = None


@dataclass(frozen=True)
class Reply:
    """What came of a question: its `text`, or the name of the `fault` (see `embodied.wire`).

    `origin` says who wrote it: "model", or "authored" where a person did.
    """

    text: str | None
    fault: str = ""
    origin: str = "model"
    cached: bool = False
    attempts: int = 0
    seconds: float = 0.0
    cost: float = 0.0


class Endpoint:
    """A model behind `url` (as `http://127.0.0.1:8000/v1`), or only what `cache` remembers of it.

    `key_env` names the environment variable that holds its key. `price` is what a million tokens
    cost, in and out, and `budget` the most that the account in the file `ledger` may come to. At
    most `in_flight` requests are out at once; the others wait, within their own deadline of
    `deadline_s` seconds. Replies are kept in the folder `cache` and found there again; without a
    `url` nothing else answers, so that a recorded run is played back. `revision` says which weights
    the name of the model stands for.
    """

    def __init__(
        self,
        url: str | None,
        model: str,
        revision: str = "",
        key_env: str = "",
        deadline_s: float = 120.0,
        in_flight: int = 8,
        price: tuple[float, float] = (0.0, 0.0),
        budget: float | None = None,
        ledger: str | None = None,
        cache: str | None = None,
    ) -> None:
        check_range("endpoint", 0.001, deadline_s=deadline_s)
        check_range("endpoint", 1, in_flight=in_flight)
        check_range("endpoint", 0, price_in=price[0], price_out=price[1])
        if budget is not None and ledger is None:
            raise UserError("endpoint.budget: say in which file to keep account: endpoint.ledger=")
        if url is None and cache is None:
            raise UserError("endpoint.url: say where the model is, as http://127.0.0.1:8000/v1")
        if key_env and key_env not in os.environ:
            raise UserError(f"endpoint.key_env={key_env}: no such environment variable")
        if url is not None and find_spec("httpx") is None:
            raise UserError("a model behind a server needs httpx: pip install 'embodied-rl[llm]'")
        self.url, self.model, self.revision = url, model, revision
        self.key = os.environ[key_env] if key_env else ""
        self.deadline_s, self.in_flight, self.price = deadline_s, in_flight, price
        self.ledger = Ledger(ledger, budget) if ledger else None
        self.cache = ReplyCache(cache) if cache else None
        self.counts: Counter[str] = Counter()
        """Questions, requests, retries, those found in the cache, and faults by name."""
        self._retries = FIRST_RETRIES
        self._in_a_row, self._rest_until = 0, 0.0
        self._trying = asyncio.Lock()
        self._jitter = random.Random()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None

    def ask(self, prompts: Sequence[Prompt], deadline_s: float | None = None) -> list[Reply]:
        """The replies to `prompts`, in order; equal ones are asked once.

        Raises `UserError` for a prompt whose schema is no JSON.
        """
        for prompt in prompts:
            _check_schema(prompt)
        limit = self.deadline_s if deadline_s is None else deadline_s
        asked = asyncio.run_coroutine_threadsafe(self._ask_all(prompts, limit), self._running())
        try:
            return asked.result()
        finally:
            asked.cancel()  # of no effect but where the caller was interrupted

    def close(self) -> None:
        """Let go of connections and of the ledger."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
        if self.ledger is not None:
            self.ledger.close()
        self._loop = self.ledger = None

    async def _shut(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        self._client = None

    def _running(self) -> asyncio.AbstractEventLoop:
        """A loop in a thread of its own: whatever hangs there, a look-up of names say, stays
        there."""
        if self._loop is None:
            self._loop, self._trying = asyncio.new_event_loop(), asyncio.Lock()
            threading.Thread(target=_turn, args=(self._loop,), daemon=True).start()
        return self._loop

    async def _ask_all(self, prompts: Sequence[Prompt], limit: float) -> list[Reply]:
        import httpx

        until = _now() + limit
        if self._client is None:
            pool = httpx.Limits(max_connections=None, max_keepalive_connections=self.in_flight)
            self._client = httpx.AsyncClient(timeout=None, limits=pool)
        gate = asyncio.Semaphore(self.in_flight)
        keys = [key_of(self._asked(prompt)) for prompt in prompts]
        questions = dict(zip(keys, prompts, strict=True))
        calls = (self._ask(gate, *item, until) for item in questions.items())
        replies = dict(zip(questions, await asyncio.gather(*calls), strict=True))
        return [replies[key] for key in keys]

    async def _ask(self, gate: asyncio.Semaphore, key: str, prompt: Prompt, until: float) -> Reply:
        self.counts["questions"] += 1
        if self.cache is not None and (known := self.cache.get(key)) is not None:
            self.counts["cached"] += 1
            return Reply(known["text"], origin=known["origin"], cached=True)
        self._retries += RETRY_SHARE
        start, tried = _now(), Counter[str]()
        try:
            async with asyncio.timeout_at(until):
                text, cost = await self._attempts(gate, prompt, until, tried)
        except TimeoutError:
            fault = "deadline"
        except Fault as error:
            fault = error.name
        except OSError:  # no account can be kept, so nothing is asked
            fault = "no_account"
        else:
            self._keep(key, prompt, text)
            return Reply(text, attempts=tried["attempts"], seconds=_now() - start, cost=cost)
        self.counts[fault] += 1
        return Reply(None, fault, attempts=tried["attempts"], seconds=_now() - start)

    def _keep(self, key: str, prompt: Prompt, text: str) -> None:
        """Keep a reply, where the disk lets us: it is an answer without that, too."""
        if self.cache is not None:
            try:
                self.cache.put(key, self._asked(prompt), {"text": text, "origin": "model"})
            except OSError:
                self.counts["not_kept"] += 1

    async def _attempts(
        self, gate: asyncio.Semaphore, prompt: Prompt, until: float, tried: Counter[str]
    ) -> tuple[str, float]:
        """The text and what it cost; raises `Fault` where no further attempt is worth it."""
        while True:
            try:
                async with gate:
                    return await self._in_turn(prompt, until, tried)
            except Fault as fault:
                pause = self._pause(fault, tried["attempts"])
                if not fault.passing or _now() + pause >= until or self._retries < 1.0:
                    raise
                self._retries -= 1.0
                self.counts["retries"] += 1
                await asyncio.sleep(pause)

    async def _in_turn(
        self, prompt: Prompt, until: float, tried: Counter[str]
    ) -> tuple[str, float]:
        """An attempt. After a rest one call alone tries whether the server is back; the others wait
        for what comes of that."""
        while self._in_a_row >= TRIPS:
            await self._rested(until)
            async with self._trying:
                await self._rested(until)
                if self._in_a_row >= TRIPS:
                    tried["attempts"] += 1
                    return await self._attempt(prompt)
        tried["attempts"] += 1
        return await self._attempt(prompt)

    async def _rested(self, until: float) -> None:
        """Wait for a server that is left alone, where there is time to."""
        if self._rest_until >= until:
            raise Fault("resting")
        await asyncio.sleep(max(0.0, self._rest_until - _now()))

    async def _attempt(self, prompt: Prompt) -> tuple[str, float]:
        if self.url is None:
            raise Fault("not_recorded")
        reserved = None
        if self.ledger is not None:
            reserved = self.ledger.reserve(self._most(prompt))
            if reserved is None:
                raise Fault("budget")
        self.counts["requests"] += 1
        try:
            answer = await post(self._client, self.url, self.key, self._body(prompt))
        except Fault as fault:
            self._heed(fault)
            if self.ledger is not None and reserved is not None and fault.free:
                self.ledger.settle(reserved, 0.0)
            raise
        self._in_a_row = 0
        cost = self._cost(answer, prompt)
        if self.ledger is not None and reserved is not None:
            self.ledger.settle(reserved, cost)
        return answer.text, cost

    def _heed(self, fault: Fault) -> None:
        """Count faults of the server; after too many in a row it rests, and then after each."""
        if fault.passing:
            self._in_a_row += 1
            if self._in_a_row >= TRIPS:
                self._rest_until = _now() + REST_S

    def _pause(self, fault: Fault, attempts: int) -> float:
        """Full jitter, in seconds, on top of what a server asked for."""
        widest = min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** (attempts - 1))
        return (fault.after_s or 0.0) + self._jitter.uniform(0.0, widest)

    # --- what is sent, and what it may cost

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        """All that an answer follows from."""
        return {"model": self.model, "revision": self.revision, **vars(prompt)}

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": said} for role, said in prompt.messages],
            "temperature": prompt.temperature,
            "max_tokens": prompt.max_tokens,
            "seed": prompt.sample,
            "stream": False,
        }
        if prompt.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": json.loads(prompt.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _most(self, prompt: Prompt) -> float:
        """No less than an answer costs: a token is a byte at least."""
        parts = [
            p for _, said in prompt.messages for p in ([said] if isinstance(said, str) else said)
        ]
        texts = [p if isinstance(p, str) else p.get("text") for p in parts]
        tokens = sum(IMAGE_TOKENS if t is None else len(t.encode()) for t in texts)
        return self._paid(tokens + 64 * len(prompt.messages) + 64, prompt.max_tokens)

    def _cost(self, answer: Answer, prompt: Prompt) -> float:
        return self._most(prompt) if answer.tokens is None else self._paid(*answer.tokens)

    def _paid(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6


def ask_for(
    endpoint: Endpoint, prompts: Sequence[Prompt], parse: Callable[[str], T]
) -> list[tuple[T | None, Reply]]:
    """What `parse` makes of the replies. One that it refuses (`ValueError`) is asked to be put
    right, once; then, or where there is no reply, it is None."""
    replies = endpoint.ask(prompts)
    out = [_parsed(reply, parse) for reply in replies]
    again = [k for k, (_, why) in enumerate(out) if why]
    repairs = [_repair(prompts[k], replies[k], out[k][1]) for k in again]
    for k, reply in zip(again, endpoint.ask(repairs) if repairs else [], strict=True):
        replies[k], out[k] = reply, _parsed(reply, parse)
    return [(value, reply) for (value, _), reply in zip(out, replies, strict=True)]


def _parsed(reply: Reply, parse: Callable[[str], T]) -> tuple[T | None, str]:
    if reply.text is None:
        return None, ""
    try:
        return parse(reply.text), ""
    except ValueError as error:
        return None, " ".join(str(error).split())[:300] or "it is malformed"


def _repair(prompt: Prompt, reply: Reply, why: str) -> Prompt:
    said = f"That cannot be used: {why}. Answer once more, in full, with that put right."
    return replace(prompt, messages=(*prompt.messages, ("assistant", reply.text), ("user", said)))


def _check_schema(prompt: Prompt) -> None:
    try:
        good = prompt.schema is None or isinstance(json.loads(prompt.schema), dict)
    except ValueError:
        good = False
    if not good:
        raise UserError(f"a prompt's schema is to be a JSON object, not {prompt.schema!r:.60}")


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
