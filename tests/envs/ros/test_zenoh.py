"""Zenoh: keys and attachments as `rmw_zenoh` has them, payloads that are noise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from embodied.deploy.cdr import decode, encode
from embodied.deploy.messages import JointState, Message, Text
from embodied.errors import UserError
from tests.envs.ros.kinds import numbered, told
from tests.envs.ros.links import free_port, wait_until
from tests.envs.ros.noise import mangled

zenoh = pytest.importorskip("zenoh")
from embodied.envs.ros.zenoh import Zenoh  # noqa: E402

TEXTS = (
    "3/a/b/std_msgs::msg::dds_::String_/"
    "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
)
"""The key of the topic /a/b of texts in domain 3; the hash is that of ROS 2 Jazzy's String."""


@pytest.fixture
def ends() -> Iterator[tuple[Zenoh, Any]]:
    """One of ours, and a stranger who speaks Zenoh itself."""
    where = f"tcp/127.0.0.1:{free_port()}"
    end = Zenoh(3, connect=[], listen=[where])
    config = zenoh.Config()
    config.insert_json5("connect/endpoints", json.dumps([where]))
    config.insert_json5("scouting/multicast/enabled", "false")
    stranger = zenoh.open(config)
    yield end, stranger
    stranger.close()
    end.close()


def test_what_goes_out_is_what_rmw_zenoh_says(ends: tuple[Zenoh, Any]) -> None:
    end, stranger = ends
    end.advertise("/a/b", Text)
    samples: list[Any] = []
    subscriber = stranger.declare_subscriber(TEXTS, samples.append)
    before = time.time_ns()

    def heard() -> list[Any]:
        end.publish("/a/b", Text("hello"))
        return samples[2:]

    wait_until(heard)
    first, second = samples[:2]
    assert decode(Text, first.payload.to_bytes()) == Text("hello")
    assert str(first.key_expr) == TEXTS
    numbers, gids = [], set()
    for sample in (first, second):
        rest = sample.attachment.to_bytes()
        numbers.append(int.from_bytes(rest[16:24], "little", signed=True))
        assert rest[:16] == b"\x0fsequence_number"  # a length, then the letters
        assert rest[24:41] == b"\x10source_timestamp"
        assert before <= int.from_bytes(rest[41:49], "little") <= time.time_ns()
        assert rest[49:61] == b"\x0asource_gid\x10"
        gids.add(rest[61:])
    assert numbers[1] == numbers[0] + 1
    assert len(gids) == 1 and len(gids.pop()) == 16
    subscriber.undeclare()


def test_payloads_of_noise_are_counted(ends: tuple[Zenoh, Any]) -> None:
    end, stranger = ends
    end.subscribe("/a", JointState)
    publisher = stranger.declare_publisher(end._key("/a", JointState))
    wait_until(lambda: publisher.matching_status.matching)
    read: list[Message] = []
    sent = 0

    def taken() -> bool:
        read.extend(came.message for came in end.take())
        return end.rejected + len(read) == sent

    for noise in mangled(encode(numbered(JointState, 3)), 600):
        publisher.put(noise)
        sent += 1
        if sent % 20 == 0:
            wait_until(taken)
    publisher.put(encode(numbered(JointState, 3)))
    sent += 1
    wait_until(taken)
    assert told(read[-1]) == told(numbered(JointState, 3))
    assert end.rejected > 300
    publisher.undeclare()


def test_without_a_router_or_a_peer_it_is_not_connected(ends: tuple[Zenoh, Any]) -> None:
    end, stranger = ends
    wait_until(lambda: end.connected)
    end.advertise("/a/b", Text)
    wait_until(lambda: not end.connected)  # nobody reads it
    subscriber = stranger.declare_subscriber(TEXTS, print)
    wait_until(lambda: end.connected)
    subscriber.undeclare()
    stranger.close()
    wait_until(lambda: not end.connected)
    assert end.publish("/a/b", Text("to nobody"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"domain": -1}, "from 0 to 232"),
        ({"connect": ["moon"]}, "connect=.*moon"),
        ({"connect": [], "listen": ["tcp/198.51.100.7:1"]}, "listen="),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Zenoh(**options)
