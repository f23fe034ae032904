"""Images written as video and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied.errors import UserError
from embodied.footage import read_footage, write_footage


def clip(size: int, count: int = 6) -> np.ndarray:
    """A soft background with small things in strong colours, as cameras of a simulator see it."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, size)[None, :, None].astype(np.uint8)
    images = np.broadcast_to(ramp, (count, size, size, 3)).copy()
    for k in range(count):
        for colour in ((255, 40, 40), (40, 220, 60), (250, 230, 30)):
            x, y = rng.integers(0, size - 3, 2)
            images[k, y : y + 3, x : x + 3] = colour
    return images


@pytest.mark.parametrize(("size", "most"), [(64, 2), (128, 2), (256, 90)])
def test_small_images_lose_nothing_but_rounding(size: int, most: int, tmp_path: Path) -> None:
    clips = [clip(size), clip(size, 3)[::-1]]
    info = write_footage(tmp_path / "a.mp4", clips, 20.0)
    assert (info["video.height"], info["video.fps"]) == (size, 20)
    found, problem = read_footage(tmp_path / "a.mp4", 9)
    error = np.abs(found.astype(int) - np.concatenate(clips))
    assert problem is None and error.max() <= most and error.mean() < 1.5


def test_what_is_cut_off_is_told(tmp_path: Path) -> None:
    write_footage(tmp_path / "a.mp4", [clip(64, 40)], 20.0)
    found, problem = read_footage(tmp_path / "none.mp4", 40)
    assert problem and len(found) == 0
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:-3000])
    found, problem = read_footage(tmp_path / "cut.mp4", 40)
    assert problem and len(found) < 40


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="even sizes"):
        write_footage(tmp_path / "a.mp4", [clip(64)[:, :63]], 20.0)
