"""A client outlives whatever its server does: every wait ends, and every fault has a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embodied import remote
from embodied.errors import UserError
from embodied.remote import LOST, PROTOCOL, Link, Overdue, RemoteFault, differences
from tests.servers import Fake, Talk

HELLO = {"protocol": PROTOCOL, "kind": "policy", "name": "fake"}
SOON_S, LATER_S = 0.3, 30.0
"""A deadline that is missed, and one that is not."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    monkeypatch.setattr(remote, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(remote, "OPEN_S", 2.0)


def link(fake: Fake, deadline_s: float = LATER_S) -> Link:
    return Link(fake.url, "policy", deadline_s)


def echo(talk: Talk, number: int = 0) -> None:
    while True:
        asked = talk.hear()
        talk.say({"id": asked["id"], "told": asked["text"]})


def ask(made: Link, text: str, seconds: float) -> Any:
    return made.ask({"text": text}, time.monotonic() + seconds)["told"]


def test_a_server_that_drips_meets_the_deadline_and_its_answer_is_thrown_away() -> None:
    def drip(talk: Talk, number: int) -> None:
        talk.say({"id": talk.hear()["id"], "told": "x" * 100}, pause_s=0.02)
        echo(talk)

    with Fake(HELLO, drip) as fake:
        made = link(fake)
        with pytest.raises(Overdue):
            ask(made, "first", SOON_S)
        assert ask(made, "second", LATER_S) == "second"
        assert made.counts == {"connections": 1, "overdue": 1, "late answers": 1, "answers": 1}


def test_answers_out_of_turn_are_told_apart() -> None:
    def swap(talk: Talk, number: int) -> None:
        first, second = talk.hear(), talk.hear()
        for asked in (first, first, second):
            talk.say({"id": asked["id"], "told": asked["text"]})
        echo(talk)

    with Fake(HELLO, swap) as fake:
        made = link(fake)
        with pytest.raises(Overdue):
            ask(made, "first", SOON_S)
        assert ask(made, "second", LATER_S) == "second"
        assert ask(made, "third", LATER_S) == "third"
        assert made.counts["late answers"] == 2


def test_a_server_that_stalls_is_left_and_met_again() -> None:
    def stall(talk: Talk, number: int) -> None:
        if number == 1:
            for _ in range(LOST + 1):
                talk.hear()
        echo(talk)

    with Fake(HELLO, stall) as fake:
        made = link(fake)
        for _ in range(LOST):
            with pytest.raises(Overdue):
                ask(made, "no", 0.05)
        assert ask(made, "yes", LATER_S) == "yes"
        assert fake.connections == 2


def test_a_server_that_takes_nothing_meets_the_deadline() -> None:
    def sleep(talk: Talk, number: int) -> None:
        time.sleep(5.0)
        echo(talk)

    with Fake(HELLO, sleep) as fake:
        with pytest.raises(Overdue):
            link(fake).ask({"text": np.zeros(2**20)}, time.monotonic() + SOON_S)


@pytest.mark.parametrize("how", ["silent", "dripping"])
def test_a_server_that_does_not_shake_hands_is_given_up(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(talk: Talk, number: int) -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * (how == "dripping"):
            talk.sock.sendall(bytes([byte]))
            time.sleep(0.02)
        time.sleep(5.0)

    monkeypatch.setattr(remote, "OPEN_S", SOON_S)
    with Fake(HELLO, wait, hands=False) as fake:
        with pytest.raises(RemoteFault):
            link(fake, SOON_S)


def test_a_slow_connection_is_there_for_a_later_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(talk: Talk, number: int) -> None:
        if number == 1:
            return
        time.sleep(4 * SOON_S)
        talk.shake_hands()
        talk.say(HELLO)
        echo(talk)

    with Fake(HELLO, echo) as fake:
        made = link(fake)
        made.close()
        fake.behave, fake.hands, fake.connections = late, False, 1
        with pytest.raises(Overdue, match="no connection"):
            ask(made, "first", SOON_S)
        assert ask(made, "second", LATER_S) == "second"
        assert fake.connections == 2


def test_what_breaks_is_tried_again_in_time() -> None:
    def hang_up(talk: Talk, number: int) -> None:
        if number < 4:
            talk.hear()
        else:
            echo(talk)

    with Fake(HELLO, hang_up) as fake:
        made = link(fake)
        assert ask(made, "text", LATER_S) == "text"
        assert made.counts == {"connections": 4, "closed": 3, "answers": 1}


def test_nobody_there_is_the_users_to_fix() -> None:
    with Fake(HELLO, echo) as fake:
        made = link(fake)
    with pytest.raises(UserError, match="nobody serves at 127.0.0.1"):
        link(fake, SOON_S)
    made.close()
    with pytest.raises(RemoteFault):  # and again and again, until there is no more time
        ask(made, "text", SOON_S)
    assert made.counts["unreachable"] > 1


MALFORMED: dict[str, Callable[[Talk], None]] = {
    "garbage": lambda talk: talk.say(b"\x81\xa1a\xc1"),
    "pickle": lambda talk: talk.say(b"\x80\x04\x95cposix\nsystem\n"),
    "text": lambda talk: talk.write("hello"),
    "crumbs": lambda talk: [
        talk.protocol.send_binary(b"", fin=False),
        [talk.protocol.send_continuation(b"", fin=False) for _ in range(5000)],
        talk._flush(),
    ][0],
    "no websocket": lambda talk: talk.sock.sendall(b"\xff" * 100),
    "much too long": lambda talk: talk.sock.sendall(b"\x82\x7f" + (2**40).to_bytes(8, "big")),
}


@pytest.mark.parametrize("how", MALFORMED)
def test_a_malformed_answer_is_refused_and_the_next_is_heard(how: str) -> None:
    def answer(talk: Talk, number: int) -> None:
        if number == 1:
            talk.hear()
            MALFORMED[how](talk)
        echo(talk)

    with Fake(HELLO, answer) as fake:
        made = link(fake)
        try:
            told = ask(made, "text", LATER_S)
        except RemoteFault as fault:
            assert fault.name in ("malformed", "too_large")
            told = ask(made, "text", LATER_S)
        assert told == "text"
        assert fake.connections == 2


@pytest.mark.parametrize("number", [np.arange(3), "1", 1.0, True, [1]])
def test_an_answer_with_an_odd_number_is_none_of_ours(number: Any) -> None:
    def answer(talk: Talk, _: int) -> None:
        talk.say({"id": number, "told": "wrong"})
        echo(talk)

    with Fake(HELLO, answer) as fake:
        assert ask(link(fake), "text", LATER_S) == "text"


def test_what_the_server_says_is_fit_to_print() -> None:
    def refuse(talk: Talk, number: int) -> None:
        talk.say({"id": talk.hear()["id"], "error": "no\x1b[2J\n", "why": "\x07be\x00cause" * 99})

    with Fake(HELLO, refuse) as fake:
        with pytest.raises(RemoteFault) as caught:
            ask(link(fake), "text", LATER_S)
    assert caught.value.name == "no[2J" and str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("error", ["busy", "too_fast"])
def test_what_may_pass_is_asked_again(error: str) -> None:
    def hesitate(talk: Talk, number: int) -> None:
        for _ in range(3):
            talk.hear()
            talk.say({"id": None, "error": error})
        echo(talk)

    with Fake(HELLO, hesitate) as fake:
        made = link(fake)
        assert ask(made, "text", LATER_S) == "text"
        assert made.counts[error] == 3 and made.counts["connections"] == 1


def test_a_server_that_says_late_is_overdue() -> None:
    def late(talk: Talk, number: int) -> None:
        talk.say({"id": talk.hear()["id"], "error": "late"})

    with Fake(HELLO, late) as fake:
        with pytest.raises(Overdue):
            ask(link(fake), "text", LATER_S)


@pytest.mark.parametrize(
    ("hello", "match"),
    [
        ({**HELLO, "protocol": 2}, "version 2"),
        ({**HELLO, "protocol": "1"}, "version 1, not 1"),
        ({**HELLO, "kind": "reward"}, "serves a reward"),
        ({**HELLO, "name": np.arange(3)}, "arrays"),
        ({"error": "busy"}, "busy"),
        ({}, "version"),
    ],
    ids=["newer", "text", "reward", "array", "busy", "empty"],
)
def test_a_greeting_that_does_not_fit_is_the_users_to_fix(hello: Any, match: str) -> None:
    with Fake(hello, echo) as fake:
        with pytest.raises(UserError, match=match):
            link(fake)


def test_another_server_at_the_same_place_is_not_taken_for_the_first() -> None:
    with Fake(HELLO, echo) as fake:
        made = link(fake)
        made.close()
        fake.hello = {**HELLO, "name": "another"}
        with pytest.raises(RemoteFault, match="something else by now") as caught:
            ask(made, "text", LATER_S)
        assert caught.value.name == "another"


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "http://127.0.0.1", "ws://", "ws://me:secret@127.0.0.1:1"]
)
def test_a_wrong_url_says_how_it_is_written(url: str) -> None:
    with pytest.raises(UserError, match="give ws://HOST:PORT"):
        Link(url, "policy", 1.0)


def test_a_token_does_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_A_TEST", "0123456789abcdef")
    with pytest.raises(UserError, match="use wss://"):
        Link("ws://192.0.2.1:1", "policy", 1.0, "TOKEN_OF_A_TEST")
    for token in ("clé de la maison", "two\nlines of a token"):
        monkeypatch.setenv("TOKEN_OF_A_TEST", token)
        with pytest.raises(UserError, match="plain characters"):
            Link("wss://127.0.0.1:1", "policy", 1.0, "TOKEN_OF_A_TEST")


def test_a_file_without_certificates_is_the_users_to_fix(tmp_path: Any) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(UserError, match="certificates"):
            Link("wss://127.0.0.1:1", "policy", 1.0, ca=str(tmp_path / name))


def test_what_cannot_be_sent_is_a_fault_and_the_link_lives_on() -> None:
    with Fake(HELLO, echo) as fake:
        made = link(fake)
        with pytest.raises(RemoteFault, match="bad_packet"):
            made.ask({"text": b"bytes"})
        assert ask(made, "text", LATER_S) == "text"
        assert fake.connections == 1


def test_differences_are_listed_by_key() -> None:
    here = {"a": {"shape": [2], "dtype": "float32"}, "b": 1}
    there = {"a": {"shape": [3], "dtype": "float32"}, "c": 2}
    assert differences("observation", here, there) == [
        "observation a: [2] float32 here, [3] float32 there",
        "observation b: 1 here, none there",
        "observation c: none here, 2 there",
    ]
    assert differences("observation", here, here) == []
