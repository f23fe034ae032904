"""Images out of messages, whoever sent them: what they claim is checked before it is believed.

A JPEG or PNG file of a few hundred bytes may unfold to gigabytes. Its size is read from its header
first, as its decoder will read it.
"""

from __future__ import annotations

import cv2
import numpy as np

from embodied.deploy.messages import CHANNELS, MOST_BYTES, CompressedImage, Image, Malformed

MOST_PX = 4096
"""Of an image's width and of its height; all of it is no larger than a plain image may be."""
MOST_SCANS = 24
"""Of a progressive JPEG, each of which costs as much as a whole image."""
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks of a PNG that make its image."""
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG segments that say how large the image is."""
BARE = frozenset((0x01, *range(0xD0, 0xD8)))
"""JPEG markers without a segment."""


def pixels(message: Image | CompressedImage) -> np.ndarray:
    """The image of a message: `(H, W, 3)` rgb or, of encoding "mono8", `(H, W)` grey, uint8.

    Raises `Malformed` for what is no image, or one larger than `MOST_PX` and `MOST_BYTES` allow.
    """
    if isinstance(message, Image):
        return _plain(message)
    data, height, width = _checked(message.data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise Malformed("an image that cannot be decoded") from error
    if image is None or image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise Malformed("an image that cannot be decoded")
    blue = image[:, :, 0].copy()  # in place: another image would be as large again
    image[:, :, 0] = image[:, :, 2]
    image[:, :, 2] = blue
    return image


def _plain(message: Image) -> np.ndarray:
    _check(message.height, message.width)
    channels = CHANNELS[message.encoding]
    image = np.frombuffer(message.data, np.uint8)
    if channels == 1:
        return image.reshape(message.height, message.width)
    image = image.reshape(message.height, message.width, channels)
    return image[:, :, ::-1] if message.encoding == "bgr8" else image


def _check(height: int, width: int) -> None:
    fits = 0 < height <= MOST_PX and 0 < width <= MOST_PX
    if not fits or 3 * height * width > MOST_BYTES:
        raise Malformed(f"an image of {width} by {height} pixels")


def _checked(data: bytes) -> tuple[bytes, int, int]:
    """A file that is safe to decode, and the height and width that its header declares."""
    if data.startswith(PNG):
        if data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33 or data[24] > 8:
            raise Malformed("a PNG without a header, or of more than 8 bits")
        height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
        _check(height, width)
        return _png_needed(data), height, width
    if data.startswith(JPEG):
        if data.count(b"\xff\xda") > MOST_SCANS:
            raise Malformed(f"a JPEG of more than {MOST_SCANS} scans")
        height, width = _jpeg_size(data)
        _check(height, width)
        return data, height, width
    raise Malformed("an image that is neither JPEG nor PNG")


def _png_needed(data: bytes) -> bytes:
    """A PNG without the chunks that only describe it, or unfold to other things.

    A chunk longer than the file is refused: its decoder would make room for it.
    """
    parts, at = [PNG], len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise Malformed("a PNG that is cut short")
        if data[at + 4 : at + 8] in NEEDED:
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """What the first frame header says; segments before it are skipped by their lengths."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:  # any number of them may come first
            at += 1
        if not 0 <= at < len(data) - 8:
            raise Malformed("a JPEG without a header")
        marker, at = data[at], at + 1
        if marker in SIZES:
            return int.from_bytes(data[at + 3 : at + 5]), int.from_bytes(data[at + 5 : at + 7])
        if marker == 0xDA:
            raise Malformed("a JPEG without a header")
        if marker != 0 and marker not in BARE:
            at += max(2, int.from_bytes(data[at : at + 2]))
