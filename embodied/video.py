"""Videos: an H.264 file that appears whole or not at all, and what is drawn on its frames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from embodied.errors import UserError

INK, PAPER, DIM = (240, 242, 244), (22, 25, 30), (150, 156, 164)
GOOD, BAD, BAR, COST = (88, 200, 130), (235, 96, 88), (96, 178, 240), (240, 160, 92)
FONT = cv2.FONT_HERSHEY_SIMPLEX
HEADER_PX = 40


class Video:
    """Writes RGB frames `(H, W, 3)` uint8 of one size to an MP4, `rate_hz` a second.

    A context manager: the file is written beside `path` and renamed when all went well. Raises
    `UserError` where it cannot be written.
    """

    def __init__(self, path: str | Path, rate_hz: float) -> None:
        self.path, self.rate_hz, self.frames = Path(path), rate_hz, 0
        self._draft = self.path.with_name(f".{self.path.name}.part")
        self._file: Any = None
        self._stream: Any = None

    def __enter__(self) -> Video:
        return self

    def write(self, frame: np.ndarray) -> None:
        import av

        try:
            if self._file is None:
                self._open(frame)
            self._mux(av.VideoFrame.from_ndarray(frame, format="rgb24"))
        except (OSError, av.error.FFmpegError) as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            if kind is None:
                self._mux(None)
        finally:
            self._file.close()
            if kind is None:
                os.replace(self._draft, self.path)
            else:
                self._draft.unlink(missing_ok=True)

    def _open(self, frame: np.ndarray) -> None:
        import av

        if not self.path.parent.is_dir():
            raise UserError(f"cannot write {self.path}: no folder {self.path.parent}")
        rate = Fraction(self.rate_hz).limit_denominator(1000)
        options = {"movflags": "+faststart"}
        self._file = av.open(str(self._draft), "w", format="mp4", options=options)
        self._stream = self._file.add_stream("libx264", rate=rate)
        self._stream.height, self._stream.width = frame.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._file.mux(packet)


def grid(cells: np.ndarray) -> np.ndarray:
    """Pictures `(n, H, W, 3)` side by side, as square as may be; `(R * H, C * W, 3)`."""
    count, height, width, _ = cells.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.empty((rows * columns, height, width, 3), np.uint8)
    sheet[:count], sheet[count:] = cells, PAPER
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, 3)


def with_header(picture: np.ndarray, title: str, note: str) -> np.ndarray:
    """A picture under a bar that says what is to be done, and who does it where it fits."""
    width = picture.shape[1]
    bar = np.empty((HEADER_PX, width, 3), np.uint8)
    bar[:] = PAPER
    room = width - 28
    taken = _text(bar, title, (14, 26), 0.5, INK, room)
    if taken + 20 + _width(note, 0.42) < room:
        _text(bar, note, (width - 14 - _width(note, 0.42), 26), 0.42, DIM, room)
    return np.concatenate([bar, picture])


def draw_cell(
    picture: np.ndarray, lines: Sequence[str], terms: Mapping[str, float], verdict: str | None
) -> None:
    """Draw on a picture `(H, W, 3)`, in place.

    `lines` stand at the foot; each of `terms` in [-1, 1] is a thin bar; `verdict` is "success",
    None while an episode goes on, or how it ended.
    """
    height, width = picture.shape[:2]
    scale = max(0.6, min(height / 480, width / 640)) * 0.42
    line = int(46 * scale)
    if terms:
        _draw_bars(picture, terms, scale, line)
    foot = int(line * 1.5)
    _shade(picture, height - foot, height, 0, width)
    pad = int(33 * scale)
    _text(picture, "   ".join(lines), (pad, height - foot // 3), scale, INK, width - 2 * pad)
    if verdict is not None:
        _draw_verdict(picture, verdict, scale * 1.25, line)


def _draw_bars(picture: np.ndarray, terms: Mapping[str, float], scale: float, line: int) -> None:
    """Names and bars in the top left corner, on a shade; costs grow in another colour."""
    names = max(_width(name, scale) for name in terms)
    full, pad = int(190 * scale), int(33 * scale)
    left = pad + names + int(24 * scale)
    _shade(picture, 0, line * len(terms) + pad, 0, left + full + pad)
    for row, (name, share) in enumerate(terms.items()):
        y = pad + line * row + line // 2 - 2
        _text(picture, name, (pad, y + line // 5), scale, INK, names + 4)
        cv2.rectangle(picture, (left, y - 1), (left + full, y + 1), (104, 110, 118), -1)
        length = round(min(1.0, abs(share)) * full)
        if length > 0:
            colour = BAR if share >= 0 else COST
            cv2.rectangle(picture, (left, y - 2), (left + length, y + 2), colour, -1)


def _draw_verdict(picture: np.ndarray, verdict: str, scale: float, line: int) -> None:
    """A word in the top right corner, a tick before success, and a frame in its colour."""
    height, width = picture.shape[:2]
    colour = {"success": GOOD, "ended": DIM}.get(verdict, BAD)
    size = _width(verdict, scale)
    mark = line if verdict == "success" else 0
    _shade(picture, 0, line * 2, width - size - mark - 34, width)
    _text(picture, verdict, (width - size - 14, int(line * 1.3)), scale, colour, size + 4)
    if mark:
        tick = np.array([[-0.33, 0.0], [-0.11, 0.25], [0.33, -0.33]]) * mark
        tick += [width - size - 22 - mark / 2, line * 1.02]
        cv2.polylines(picture, [tick.astype(np.int32)], False, colour, 2, cv2.LINE_AA)
    cv2.rectangle(picture, (1, 1), (width - 2, height - 2), colour, 2)


def _shade(picture: np.ndarray, top: int, bottom: int, left: int, right: int) -> None:
    """Darken a region so that text reads on any scene."""
    part = picture[top:bottom, max(0, left) : right]
    part[:] = (0.3 * part + 0.7 * np.array(PAPER)).astype(np.uint8)


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, FONT, scale, 1)[0][0])


def _text(
    picture: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: Any, room: int
) -> int:
    """Write `text`, shortened to `room` pixels; its width in pixels."""
    text = text.encode("ascii", "replace").decode()  # the font knows no more
    if _width(text, scale) > room:
        while text and _width(text + "...", scale) > room:
            text = text[:-1]
        text += "..."
    cv2.putText(picture, text, at, FONT, scale, colour, 1, cv2.LINE_AA)
    return _width(text, scale)
