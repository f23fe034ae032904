"""What one process of this machine hands another: JSON, and an image's bytes behind it."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from embodied.deploy.messages import MOST_BYTES, CompressedImage, Image, Malformed, Message
from embodied.deploy.ros_fields import build, read

from .json_fields import MOST_LETTERS, as_json, parse

MOST_PACKET = MOST_BYTES + MOST_LETTERS


def file_of(packet: bytes) -> int:
    """A file in memory, which is gone once nobody holds it."""
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        view = memoryview(packet)
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        os.close(fd)
        raise
    return fd


def contents_of(fd: int) -> bytes:
    """All of a file that another process gave. Raises `Malformed` where it is none, or too long."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_PACKET:
        raise Malformed("no file, or one too long")
    return os.pread(fd, found.st_size, 0)


def encode(message: Message) -> bytes:
    """A packet: JSON, then, where there is one, a zero and an image's bytes."""
    fields = build(message, as_json)
    image = isinstance(message, Image | CompressedImage)
    data = b"\0" + fields.pop("data") if image else b""
    head = json.dumps([message.ros, fields], ensure_ascii=False, separators=(",", ":"))
    try:
        packet = head.encode()
    except UnicodeError as error:
        raise Malformed(str(error)) from error
    if len(packet) > MOST_LETTERS:
        raise Malformed(f"{len(packet)} bytes")
    return packet + data


def decode(kind: type[Message], packet: bytes) -> Message:
    """The message of a kind in a packet. Raises `Malformed`, and nothing else."""
    end = packet.find(b"\0")
    parsed: Any = parse(packet if end < 0 else packet[:end])
    if not isinstance(parsed, list) or len(parsed) != 2 or parsed[0] != kind.ros:
        raise Malformed(f"no {kind.ros}")
    if kind in (Image, CompressedImage):
        if end < 0:
            raise Malformed("an image without its bytes")
        try:
            parsed[1].data = memoryview(packet)[end + 1 :]
        except AttributeError as error:
            raise Malformed("an image without fields") from error
    return read(kind, parsed[1])
