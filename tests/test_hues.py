"""What images may be said to show: a colour that was out of sight when done must be."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from embodied.footage import read_footage, write_footage
from embodied.hues import DOUBT, HUES, MARGIN, Hues, hues

TABLE, RED, GREEN = (200, 180, 160), (220, 20, 20), (20, 220, 20)


def image(**patches: int) -> Tensor:
    """A table, and squares of `red` and `green`, so many pixels wide."""
    out = torch.tensor(TABLE, dtype=torch.uint8).repeat(64, 64, 1)
    for name, colour, corner in (("red", RED, 6), ("green", GREEN, 40)):
        width = patches.get(name, 0)
        out[corner : corner + width, 6 : 6 + width] = torch.tensor(colour, dtype=torch.uint8)
    return out


def learned() -> Hues:
    """A green ball of 16 pixels shows in the first four fifths; a red thing of 16 to 36 always."""
    model = Hues()
    reds = (4, 5, 6) * 40
    before = torch.stack([image(red=width, green=4) for width in reds])
    after = torch.stack([image(red=width) for width in reds])
    progress = torch.cat([torch.linspace(0.0, 0.79, len(reds)), torch.ones(len(reds))])
    model.learn(torch.cat([before, after]), progress)
    return model


def cap(model: Hues, *images: Tensor) -> list[float]:
    return model(torch.stack(images)).tolist()


def test_hues_count_coloured_pixels() -> None:
    told = hues(torch.stack([image(), image(red=4), image(green=4)]))
    assert told.shape == (3, HUES)
    assert told[0].tolist() == [0.0] * HUES
    assert told[1].argmax() == 0 and told[1].sum() == pytest.approx(16.0)
    assert told[2].argmax() == HUES // 3 and told[2].sum() == pytest.approx(16.0)
    large = image(red=4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert hues(large[None]).sum() == pytest.approx(16.0)


@pytest.mark.parametrize("marker", [3, 4])
def test_a_video_keeps_the_hues_of_small_things(tmp_path: Path, marker: int) -> None:
    clip = torch.stack([image(red=width, green=marker) for width in (4, 6, 8)]).roll((1, 1), (1, 2))
    write_footage(tmp_path / "clip.mp4", [clip.numpy()], rate_hz=10.0)
    found, _ = read_footage(tmp_path / "clip.mp4", 3)
    assert torch.allclose(hues(torch.from_numpy(found)), hues(clip), atol=1.5)


def test_darker_images_have_the_same_hues() -> None:
    bright = image(red=6, green=4)[None]
    dark = (0.6 * bright.float()).to(torch.uint8)
    assert torch.allclose(hues(bright), hues(dark), atol=4.0)


def test_brighter_or_darker_light_is_no_other_scene() -> None:
    """A table that is all but coloured, and is where the lamp is brighter."""
    wood = torch.tensor((190, 160, 125), dtype=torch.uint8)
    before, after = image(red=5, green=4), image(red=5)
    for one in (before, after):
        one[40:, 30:] = wood
    model = Hues()
    model.learn(torch.stack([before, after] * 50), torch.tensor([0.5, 1.0] * 50))
    assert hues((1.3 * after.float()).clamp(max=255.0)[None]).sum() > 100 + hues(after[None]).sum()
    for light in (0.7, 0.9, 1.2, 1.3):
        lit = [(light * one.float()).clamp(max=255.0).to(torch.uint8) for one in (before, after)]
        assert cap(model, *lit) == pytest.approx([0.6, 1.0], abs=0.02)


def test_what_still_shows_is_not_done() -> None:
    done, ball, hidden = cap(learned(), image(red=5), image(red=5, green=4), image())
    assert done == pytest.approx(1.0) and hidden == pytest.approx(1.0)
    assert ball == pytest.approx(0.8)


def test_beyond_what_was_shown_by_hand() -> None:
    model = Hues()
    model.learn(torch.stack([image(red=2), image(red=4)] * 50), torch.ones(100))
    width = 16.0 - 4.0
    beyond = (64.0 - (16.0 + MARGIN * width)) / width
    assert cap(model, image(red=8)) == [pytest.approx(math.exp(-DOUBT * beyond), rel=1e-3)]


def test_before_it_has_learned_everything_is_allowed() -> None:
    assert cap(Hues(), image(green=20)) == [1.0]
    model = learned()
    model.forget()
    assert cap(model, image(green=20)) == [1.0]
