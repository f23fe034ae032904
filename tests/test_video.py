"""Video files: whole or not there, of the right rate and size; and what is drawn on frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from embodied.errors import UserError
from embodied.video import HEADER_PX, Video, draw_cell, grid, with_header


def frames(path: Path) -> tuple[av.VideoStream, list[np.ndarray]]:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return stream, [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]


def test_a_video_has_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    shades = [40, 120, 200]
    with Video(path, 12.5) as video:
        for shade in shades:
            video.write(np.full((64, 96, 3), shade, np.uint8))
            assert not path.exists()
    stream, found = frames(path)
    assert (stream.codec_context.name, stream.average_rate) == ("h264", Fraction(25, 2))
    assert stream.codec_context.pix_fmt == "yuv420p"  # what every player shows
    assert [frame.shape for frame in found] == [(64, 96, 3)] * 3
    assert [float(frame.mean()) for frame in found] == pytest.approx(shades, abs=3)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_a_failure_leaves_the_older_video_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError), Video(path, 20.0) as video:
        video.write(np.zeros((64, 64, 3), np.uint8))
        raise RuntimeError
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_nothing_written_is_no_file(tmp_path: Path) -> None:
    with Video(tmp_path / "a.mp4", 20.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_the_users_to_make(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"), Video(tmp_path / "no/a.mp4", 20.0) as video:
        video.write(np.zeros((64, 64, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (6, 2, 3)]
)
def test_grid(count: int, rows: int, columns: int) -> None:
    cells = np.stack([np.full((4, 6, 3), i + 100, np.uint8) for i in range(count)])
    sheet = grid(cells)
    assert sheet.shape == (rows * 4, columns * 6, 3)
    for i in range(count):
        y, x = divmod(i, columns)
        assert (sheet[y * 4 : y * 4 + 4, x * 6 : x * 6 + 6] == i + 100).all()


def test_the_header_stands_above_an_untouched_picture() -> None:
    picture = np.full((64, 320, 3), 77, np.uint8)
    out = with_header(picture, "pick up the cube, \u2603", "a note")
    assert out.shape == (64 + HEADER_PX, 320, 3)
    assert (out[HEADER_PX:] == 77).all()
    assert out[:HEADER_PX, :160].max() > 200  # the title is legible
    assert out[:HEADER_PX, 200:].max() > 120  # and so is the note


@pytest.mark.parametrize("width", [64, 96, 640])
def test_a_title_of_any_length_fits(width: int) -> None:
    out = with_header(np.zeros((64, width, 3), np.uint8), "all work and no play " * 20, "a note")
    assert (out[:HEADER_PX, -8:] < 60).all()


def lit(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 12).sum())


def cell(terms: dict[str, float], verdict: str | None = None) -> np.ndarray:
    picture = np.full((240, 320, 3), 128, np.uint8)
    draw_cell(picture, ["step 3", "return 1.0"], terms, verdict)
    return picture


def test_a_bar_is_as_long_as_its_term() -> None:
    blue, orange = (96, 178, 240), (240, 160, 92)
    full, half = lit(cell({"reach": 1.0}), blue), lit(cell({"reach": 0.5}), blue)
    assert full > 100
    assert half == pytest.approx(full / 2, rel=0.05)
    assert lit(cell({"reach": 7.0}), blue) == full  # never beyond its track
    assert lit(cell({"reach": 0.0}), blue) == lit(cell({"reach": -1.0}), blue) == 0
    assert lit(cell({"reach": -1.0}), orange) == full


def test_a_verdict_shows_in_its_colour() -> None:
    green, red = (88, 200, 130), (235, 96, 88)
    assert lit(cell({}), green) == lit(cell({}), red) == 0
    assert lit(cell({}, "success"), green) > 500
    assert lit(cell({}, "failed"), red) > 500
    assert lit(cell({}, "action is not finite"), red) > 500


@pytest.mark.parametrize("size", [(64, 64), (64, 640), (720, 96)])
def test_any_size_can_be_drawn_on(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 128, np.uint8)
    terms = dict.fromkeys(("one", "another_with_a_long_name"), 0.5)
    draw_cell(picture, ["step 3"] * 9, terms, "success")
    assert (picture != 128).any()
