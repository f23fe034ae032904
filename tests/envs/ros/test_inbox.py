"""What came and was not taken: bounded, in order, read only when it is wanted."""

from __future__ import annotations

import threading
import time

import pytest
from embodied.envs.ros.inbox import Inbox

from embodied.deploy.messages import MOST_BYTES, Flag, Image, Malformed, Message, Text
from embodied.deploy.transport import DEPTH
from embodied.errors import UserError


def decode(kind: type[Message], item: str) -> Message:
    if item == "ill":
        raise Malformed(item)
    return Text(item)


def test_messages_of_all_topics_are_taken_once_in_the_order_they_came() -> None:
    inbox = Inbox(decode)
    inbox.open("/a", Text)
    inbox.open("/b", Text)
    before = time.monotonic_ns()
    for n in range(6):
        inbox.put("/ab"[0] + "ab"[n % 2], str(n), 1)
    taken = inbox.take()
    assert [(came.topic, came.message) for came in taken] == [
        ("/" + "ab"[n % 2], Text(str(n))) for n in range(6)
    ]
    assert before <= taken[0].received_ns <= taken[-1].received_ns <= time.monotonic_ns()
    assert inbox.take() == [] and inbox.lost == inbox.rejected == 0


def test_the_newest_of_a_topic_are_kept_and_the_others_counted() -> None:
    inbox = Inbox(decode)
    inbox.open("/fast", Text)
    inbox.open("/slow", Flag)
    inbox.put("/slow", "first", 1)
    for n in range(DEPTH + 7):
        inbox.put("/fast", str(n), 1)
    assert inbox.lost == 7
    messages = [came.message for came in inbox.take()]
    assert messages == [Text("first"), *(Text(str(n)) for n in range(7, DEPTH + 7))]


def test_large_messages_are_kept_up_to_a_size_but_always_the_newest() -> None:
    inbox = Inbox(decode)
    inbox.open("/camera", Image)
    for n in range(5):
        inbox.put("/camera", str(n), MOST_BYTES // 2)
    assert inbox.lost == 3
    assert [came.message for came in inbox.take()] == [Text("3"), Text("4")]
    inbox.put("/camera", "a", MOST_BYTES)
    inbox.put("/camera", "b", MOST_BYTES + 1)
    assert [came.message for came in inbox.take()] == [Text("b")]


def test_what_is_no_message_is_counted_and_left_out() -> None:
    inbox = Inbox(decode)
    inbox.open("/a", Text)
    for item in ("well", "ill", "well"):
        inbox.put("/a", item, 1)
    assert inbox.rejected == 0  # nothing is read before it is taken
    assert [came.message for came in inbox.take()] == [Text("well")] * 2
    inbox.put("/never/subscribed", "well", 1)
    inbox.put("/a", "well", 2 * MOST_BYTES + 1)
    inbox.reject()
    assert inbox.rejected == 4 and inbox.take() == []


def test_nothing_is_lost_between_threads() -> None:
    inbox = Inbox(decode)
    inbox.open("/a", Text)

    def put() -> None:
        for n in range(2000):
            inbox.put("/a", str(n), 1)

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    taken = 0
    while any(thread.is_alive() for thread in threads):
        taken += len(inbox.take())
    taken += len(inbox.take())
    assert taken + inbox.lost == 6000


@pytest.mark.parametrize("topic", ["joint_states", "/", "/a b", "/a//b", "/1", "", "/a\n", "/é"])
def test_a_bad_topic_is_refused(topic: str) -> None:
    with pytest.raises(UserError, match="topic"):
        Inbox(decode).open(topic, Text)
