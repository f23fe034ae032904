"""The images of many episodes, one after another in one MP4, and back.

H.264 with a key frame every second frame and no frames that look ahead, so that a reader finds
any frame at once and frame k stands at exactly k / rate_hz seconds. Colours keep their resolution
(yuv444p, which not every player shows). Small images lose nothing to compression, but for a
rounding of colours by 2 of 255 at most: a goal marker is 3 pixels wide there, and one that looks
paler in a video than in the simulator misleads what is learned from the video.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from embodied.errors import UserError

PIXELS = "yuv444p"
OPTIONS = {"preset": "veryfast", "g": "2", "bf": "0"}
SMALL, LOSSLESS, NEARLY = 128 * 128, "0", "6"
"""Pixels of an image that is kept without loss, at a quarter more bytes; and x264's `crf`."""


def write_footage(path: Path, clips: Iterable[np.ndarray], rate_hz: float) -> dict[str, Any]:
    """Write clips `(T, H, W, 3)` uint8 of one size; what LeRobot says of a video in info.json.

    Raises `UserError` for a size that H.264 cannot hold.
    """
    rate = Fraction(rate_hz).limit_denominator(1000)
    stream: Any = None
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        for clip in clips:
            if stream is None:
                height, width = clip.shape[1:3]
                if height % 2 or width % 2:
                    raise UserError(f"images of {height}x{width}: a video needs even sizes")
                crf = LOSSLESS if height * width <= SMALL else NEARLY
                stream = file.add_stream("libx264", rate=rate, options={**OPTIONS, "crf": crf})
                stream.height, stream.width, stream.pix_fmt = height, width, PIXELS
            for image in clip:
                image = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                file.mux(stream.encode(image))
        file.mux(stream.encode(None))
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": PIXELS,
        "video.is_depth_map": False,
        "video.fps": int(rate) if rate.denominator == 1 else float(rate),
        "video.channels": 3,
        "has_audio": False,
    }


def read_footage(path: Path, count: int) -> tuple[np.ndarray, str | None]:
    """At most `count + 1` images `(K, H, W, 3)` uint8, and what went wrong where some are missing.

    What follows damage is left out: a decoder would make it up.
    """
    images: np.ndarray | None = None
    found, problem = 0, None
    convert = av.video.reformatter.VideoReformatter()  # one for all: setting it up takes long
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in file.decode(stream):
                if frame.is_corrupt:
                    problem = "damaged"
                    break
                if images is None:
                    images = np.empty((count + 1, frame.height, frame.width, 3), np.uint8)
                images[found] = convert.reformat(frame, format="rgb24").to_ndarray()
                found += 1
                if found > count:
                    break
    except (OSError, IndexError, ValueError, av.error.FFmpegError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if images is None:
        images = np.empty((0, 2, 2, 3), np.uint8)
    return images[:found], problem
