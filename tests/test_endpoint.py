"""Asking a model: every way in which a server goes wrong has a name, and none is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_server import FAULTS, TOKENS, FaultServer
from embodied import endpoint as module
from embodied.endpoint import Endpoint, Prompt, ask_for
from embodied.errors import UserError
from embodied.wire import Fault


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.001)


@pytest.fixture
def ask(server: FaultServer) -> Iterator[Any]:
    made: list[Endpoint] = []

    def make(mode: str = "well", **settings: Any) -> Endpoint:
        made.append(Endpoint(server.url, mode, **{"deadline_s": 20.0, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def said(*texts: str, **how: Any) -> list[Prompt]:
    return [Prompt((("user", text),), **how) for text in texts]


@pytest.mark.parametrize("mode", FAULTS)
def test_what_a_server_does_has_a_name(mode: str, ask: Any) -> None:
    late = "deadline" in FAULTS[mode]
    endpoint = ask(mode, deadline_s=0.4 if late else 20.0)
    (reply,) = endpoint.ask(said("hello"))
    if FAULTS[mode]:
        assert reply.text is None and reply.fault in FAULTS[mode]
        assert endpoint.counts[reply.fault] == 1
    else:
        assert reply.text is not None and reply.text.startswith("echo") and not reply.fault


def test_modes_are_many() -> None:
    assert len(FAULTS) >= 25


def test_what_may_pass_is_tried_again(ask: Any) -> None:
    endpoint = ask("one_in_three")
    (reply,) = endpoint.ask(said("again"))
    assert reply.text == "echo again"
    assert reply.attempts == 1 + endpoint.counts["retries"] <= 3


def test_retries_are_few_against_the_traffic(
    ask: Any, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ask("http_broken", in_flight=1)
    before = server.asked["http_broken"]
    monkeypatch.setattr(module, "TRIPS", 10_000)
    replies = endpoint.ask(said(*(f"q{k}" for k in range(40))))
    assert all(reply.fault == "http_500" for reply in replies)
    sent = server.asked["http_broken"] - before
    assert sent == 40 + endpoint.counts["retries"]
    assert endpoint.counts["retries"] <= module.FIRST_RETRIES + module.RETRY_SHARE * 40


def test_what_will_not_pass_is_not_tried_again(ask: Any, server: FaultServer) -> None:
    before = server.asked["http_key"]
    (reply,) = ask("http_key").ask(said("hello"))
    assert (reply.fault, reply.attempts) == ("http_401", 1)
    assert server.asked["http_key"] == before + 1


def test_a_server_that_keeps_failing_is_left_alone(ask: Any, server: FaultServer) -> None:
    endpoint = ask("closes_at_once", in_flight=1, deadline_s=5.0)
    before = server.asked["closes_at_once"]
    replies = endpoint.ask(said(*(f"q{k}" for k in range(30))))
    assert {reply.fault for reply in replies} == {"reset", "resting"}
    assert server.asked["closes_at_once"] - before <= module.TRIPS


def test_no_more_are_out_than_said() -> None:
    with FaultServer() as server:
        endpoint = Endpoint(server.url, "slowly", in_flight=3)
        replies = endpoint.ask(said(*(f"q{k}" for k in range(12))))
        endpoint.close()
    assert [reply.text for reply in replies] == [f"echo q{k}" for k in range(12)]
    assert server.most == 3


def test_equal_questions_are_asked_once(ask: Any, server: FaultServer) -> None:
    replies = ask().ask([*said("same", "same"), *said("same", sample=1)])
    assert [reply.text for reply in replies] == ["echo same"] * 3
    assert server.said["same"] == 2


def test_what_was_answered_is_not_asked_again(
    ask: Any, server: FaultServer, tmp_path: Path
) -> None:
    cache = str(tmp_path / "replies")
    first = ask(cache=cache).ask(said("kept"))
    again = ask(cache=cache).ask(said("kept"))
    assert (first[0].cached, again[0].cached) == (False, True)
    assert first[0].text == again[0].text and server.said["kept"] == 1
    assert ask(cache=cache, revision="other").ask(said("kept"))[0].cached is False


def test_a_recorded_run_is_played_back_without_a_model(ask: Any, tmp_path: Path) -> None:
    cache = str(tmp_path / "replies")
    ask(cache=cache).ask(said("one", "two"))
    played = Endpoint(None, "well", cache=cache)
    one, other, never = played.ask(said("one", "two", "three"))
    assert (one.text, other.text) == ("echo one", "echo two")
    assert (never.text, never.fault) == (None, "not_recorded")
    played.close()


def test_a_full_disk_costs_no_answer_and_no_account(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    endpoint = ask(cache=str(tmp_path / "replies"))
    monkeypatch.setattr(endpoint.cache, "put", full)
    assert endpoint.ask(said("hello"))[0].text == "echo hello"
    assert endpoint.counts["not_kept"] == 1
    endpoint = ask(price=(1.0, 1.0), budget=1.0, ledger=str(tmp_path / "ledger.jsonl"))
    monkeypatch.setattr(endpoint.ledger, "reserve", full)
    assert endpoint.ask(said("hello"))[0].fault == "no_account"
    assert endpoint.counts["requests"] == 0


def test_a_failure_is_not_kept(ask: Any, server: FaultServer, tmp_path: Path) -> None:
    cache = str(tmp_path / "replies")
    for _ in range(2):
        ask("cut_off", cache=cache).ask(said("long"))
    assert server.said["long"] == 2


def test_cost_is_what_the_server_says(ask: Any, tmp_path: Path) -> None:
    account = str(tmp_path / "ledger.jsonl")
    endpoint = ask(price=(1e6, 2e6), budget=1e6, ledger=account)
    (reply,) = endpoint.ask(said("hello", max_tokens=100))
    assert reply.cost == TOKENS * 1.0 + TOKENS * 2.0
    assert endpoint.ledger is not None and endpoint.ledger.spent == pytest.approx(reply.cost)


def test_an_unknown_outcome_counts_as_spent(ask: Any, tmp_path: Path) -> None:
    account = str(tmp_path / "ledger.jsonl")
    for mode, spent in (("drip", True), ("limited_for_an_hour", False), ("cut", True)):
        endpoint = ask(mode, price=(1e6, 1e6), budget=1e9, ledger=account, deadline_s=0.3)
        before = endpoint.ledger.spent
        endpoint.ask(said(mode))
        assert (endpoint.ledger.spent > before) == spent


def test_a_budget_is_never_passed(ask: Any, server: FaultServer, tmp_path: Path) -> None:
    account = str(tmp_path / "ledger.jsonl")
    endpoint = ask("slowly", price=(0.0, 1e6), budget=210.0, ledger=account, in_flight=8)
    before = server.asked["slowly"]
    replies = endpoint.ask(said(*(f"q{k}" for k in range(40)), max_tokens=50))
    sent = server.asked["slowly"] - before
    assert endpoint.ledger.spent == sent * TOKENS <= 210.0
    assert {reply.fault for reply in replies} == {"", "budget"}


def test_a_reply_that_cannot_be_used_is_put_right_once(ask: Any, server: FaultServer) -> None:
    def number(text: str) -> int:
        if "used" in text:
            return 7
        raise ValueError("give a number\nplease")

    def never(text: str) -> int:
        raise ValueError("no")

    endpoint = ask()
    value, reply = ask_for(endpoint, said("count"), number)[0]
    assert value == 7 and "That cannot be used: give a number please." in (reply.text or "")
    assert ask_for(endpoint, said("count again"), never)[0][0] is None
    value, reply = ask_for(ask("cut_off"), said("count"), number)[0]
    assert value is None and reply.fault == "cut_off"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": None}, "endpoint.url: say where"),
        ({"budget": 1.0}, "endpoint.budget: say in which file"),
        ({"key_env": "NO_SUCH_KEY_HERE"}, "no such environment variable"),
        ({"deadline_s": 0.0}, "endpoint.deadline_s=0.0"),
        ({"in_flight": 0}, "endpoint.in_flight=0"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Endpoint(**{"url": "http://127.0.0.1:1/v1", "model": "m", **settings})


def test_without_httpx_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'embodied-rl\[llm\]'"):
        Endpoint("http://127.0.0.1:9/v1", "m")


def test_no_server_there(tmp_path: Path) -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", deadline_s=5.0)
    assert endpoint.ask(said("hello"))[0].fault == "unreachable"
    endpoint.close()


def test_after_a_rest_one_alone_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIPS", 3)
    monkeypatch.setattr(module, "REST_S", 0.2)
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    monkeypatch.setattr(module, "FIRST_RETRIES", 100.0)
    endpoint = Endpoint("http://127.0.0.1:1/v1", "any", in_flight=16, deadline_s=20.0)
    out, most_after, calls = 0, 0, 0

    async def attempt(prompt: Prompt) -> tuple[str, float]:
        nonlocal out, most_after, calls
        calls, out = calls + 1, out + 1
        tripped = endpoint._in_a_row >= module.TRIPS
        if tripped:
            most_after = max(most_after, out)
        await asyncio.sleep(0.02)
        out -= 1
        if calls <= 20:  # the first ones, sent at once, and some that try alone
            fault = Fault("reset", passing=True)
            endpoint._heed(fault)
            raise fault
        endpoint._in_a_row = 0
        return "back", 0.0

    monkeypatch.setattr(endpoint, "_attempt", attempt)
    replies = endpoint.ask(said(*(f"q{k}" for k in range(16))))
    endpoint.close()
    assert {reply.text for reply in replies} == {"back"}
    assert most_after == 1 and calls == 20 + 16


@pytest.mark.parametrize("schema", ["{", "[]", "3"])
def test_a_schema_that_is_none_is_refused(ask: Any, schema: str) -> None:
    with pytest.raises(UserError, match="schema is to be a JSON object"):
        ask().ask([Prompt((("user", "hello"),), schema=schema)])
