"""Packets between processes of this machine: back unchanged, or `Malformed`."""

from __future__ import annotations

import os

import pytest
from embodied.envs.ros.local_packet import MOST_PACKET, contents_of, decode, encode, file_of

from embodied.deploy.messages import Malformed, Message, Text
from tests.envs.ros.kinds import ALL, numbered, told
from tests.envs.ros.noise import mangled


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.ros)
def test_noise_is_read_or_malformed_and_nothing_else(kind: type[Message]) -> None:
    packet = encode(numbered(kind, 3))
    assert told(decode(kind, packet)) == told(numbered(kind, 3))
    refused = 0
    for noise in mangled(packet, 700):
        try:
            assert isinstance(decode(kind, noise), kind)
        except Malformed:
            refused += 1
    assert refused > 300


def test_another_kind_is_malformed() -> None:
    with pytest.raises(Malformed, match="no std_msgs/String"):
        decode(Text, encode(numbered(ALL[0], 1)))


def test_a_file_in_memory_holds_a_packet_unless_it_is_too_long() -> None:
    fd = file_of(b"packet")
    assert contents_of(fd) == b"packet"
    os.truncate(fd, MOST_PACKET + 1)
    with pytest.raises(Malformed, match="too long"):
        contents_of(fd)
    os.close(fd)
