"""Images come out of messages as they went in, and hostile ones come to nothing."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from embodied.deploy.messages import MOST_BYTES, CompressedImage, Image, Malformed
from embodied.deploy.pixels import MOST_PX, MOST_SCANS, pixels

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
SMOOTH = np.stack([np.linspace(0, 255, 32 * 24).reshape(24, 32)] * 3, -1).astype(np.uint8)
SMOOTH[:, :, 0] //= 3


def encoded(ending: str, image: np.ndarray, *options: int) -> bytes:
    """A file of an rgb image."""
    return cv2.imencode(ending, image[..., ::-1], options)[1].tobytes()


def compressed(data: bytes) -> np.ndarray:
    return pixels(CompressedImage(0, "jpeg", data))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_plain_images() -> None:
    np.testing.assert_array_equal(pixels(Image(0, 24, 32, "rgb8", NOISE.tobytes())), NOISE)
    np.testing.assert_array_equal(
        pixels(Image(0, 24, 32, "bgr8", NOISE[..., ::-1].tobytes())), NOISE
    )
    grey = NOISE[..., 0]
    np.testing.assert_array_equal(pixels(Image(0, 24, 32, "mono8", grey.tobytes())), grey)


def test_compressed_images() -> None:
    np.testing.assert_array_equal(compressed(encoded(".png", NOISE)), NOISE)
    for options in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)):
        found = compressed(encoded(".jpg", SMOOTH, *options))
        assert found.shape == SMOOTH.shape and found.dtype == np.uint8
        assert np.abs(found.astype(int) - SMOOTH).max() < 24
    grey = cv2.imencode(".jpg", SMOOTH[..., 1])[1].tobytes()
    assert compressed(grey).shape == SMOOTH.shape
    clear = cv2.imencode(".png", np.dstack([NOISE[..., ::-1], NOISE[..., 0]]))[1].tobytes()
    np.testing.assert_array_equal(compressed(clear), NOISE)
    assert compressed(clear).flags.c_contiguous


def test_a_file_may_have_things_before_its_header() -> None:
    plain = encoded(".jpg", SMOOTH)
    comment = b"\xff\xff\xff\xfe" + struct.pack(">H", 9) + b"\xff\xc0abcde"
    np.testing.assert_array_equal(compressed(plain[:2] + comment + plain[2:]), compressed(plain))


def test_a_png_is_no_more_than_its_image() -> None:
    plain = encoded(".png", SMOOTH)
    frames = png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))  # it says it moves
    first = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 32, 24, 0, 0, 1, 1, 0, 0))
    large = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 60_000, 60_000, 0, 0, 1, 1, 0, 0))
    large += png_chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(100)))
    moving = plain[:33] + frames + first + plain[33:-12] + large + plain[-12:]
    np.testing.assert_array_equal(compressed(moving), SMOOTH)


def png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    plain = encoded(".jpg", SMOOTH)
    at = plain.index(b"\xff\xc0") + 5
    return plain[:at] + struct.pack(">HH", height, width) + plain[at + 4 :]


@pytest.mark.parametrize("make", [png_of, jpeg_of])
@pytest.mark.parametrize("size", [(0, 10), (10, MOST_PX + 1), (MOST_PX, MOST_PX), (65500, 65500)])
def test_what_is_declared_too_large_is_refused(
    make: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    with pytest.raises(Malformed, match="pixels"):
        compressed(make(*size))


def hostile() -> dict[str, bytes]:
    """Files that a decoder might make much room for."""
    png = encoded(".png", SMOOTH)
    bomb = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200_000_000), 9))
    clear = np.zeros((MOST_BYTES // (3 * MOST_PX), MOST_PX, 4), np.uint8)
    full = clear[..., :3]
    return {
        "too large": png_of(60_000, 60_000),
        "too large jpeg": jpeg_of(60_000, 60_000),
        "cut short": png_of(MOST_PX, 2000),
        "a chunk of 2 GB": png[:33] + b"\x7f\xff\xff\xf0" + png[37:],
        "a profile of 200 MB": png[:33] + bomb + png[33:],
        "16 bits": cv2.imencode(".png", full.astype(np.uint16))[1].tobytes(),
        "the largest": encoded(".png", full),
        "the largest, clear": cv2.imencode(".png", clear)[1].tobytes(),
        "the largest jpeg": encoded(".jpg", full, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    }


def test_no_file_takes_more_memory_than_twice_the_cap(tmp_path: Path) -> None:
    for name, data in hostile().items():
        (tmp_path / name).write_bytes(data)
    names = sorted(path.name for path in tmp_path.iterdir())
    run = subprocess.run(
        [sys.executable, "-c", GROWTH, *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    grown = {name: int(text) for name, text in zip(names, run.stdout.split(), strict=True)}
    assert max(grown.values()) < 2 * 3 * MOST_PX**2, grown
    assert grown["the largest"] > MOST_BYTES // 2  # or nothing was measured


GROWTH = """
import os, resource, sys
from pathlib import Path
from embodied.deploy.messages import CompressedImage, Malformed
from embodied.deploy.pixels import pixels
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    child = os.fork()
    if child == 0:
        now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        try:
            pixels(CompressedImage(0, "", data))
        except Malformed:
            pass
        most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(max(0, most - now), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    progressive = encoded(".jpg", SMOOTH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = progressive.rindex(b"\xff\xda")
    again = progressive[scan:-2] * MOST_SCANS
    with pytest.raises(Malformed, match="scans"):
        compressed(progressive[:-2] + again + progressive[-2:])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(60), b"\xff\xd8" + b"\xff" * 99],
)
def test_what_is_no_image_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        compressed(data)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_broken_files_are_malformed_at_worst(ending: str) -> None:
    rng = np.random.default_rng(1)
    whole = encoded(ending, SMOOTH)
    failed = 0
    for _ in range(400):
        data = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.integers(1, 8)):
            data[rng.integers(0, len(data))] = rng.integers(0, 256)
        try:
            image = compressed(bytes(data))
        except Malformed:
            failed += 1
            continue
        assert image.ndim == 3 and image.dtype == np.uint8 and max(image.shape) <= MOST_PX
    assert 50 < failed <= 400
