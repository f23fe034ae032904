"""Where coloured things are when done, by where others stood at the start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from embodied.hues import HUES
from embodied.places import (
    BESIDE,
    DOUBT,
    LEAST,
    MARGIN_PX,
    NARROW,
    SEEN_PX,
    SLOWLY,
    Places,
    places,
)

TABLE, RED, GREEN = (200, 180, 170), (220, 20, 20), (20, 220, 20)
GOAL, THING = HUES // 3, 0  # the hues of the marker and of what is brought to it


def image(red: tuple[int, int] | None = None, green: tuple[int, int] | None = None) -> Tensor:
    """A table with squares of 4x4 pixels, each at a row and a column; red hides green."""
    out = torch.tensor(TABLE, dtype=torch.uint8).repeat(64, 64, 1)
    for corner, colour in ((green, GREEN), (red, RED)):
        if corner is not None:
            row, column = corner
            out[row : row + 4, column : column + 4] = torch.tensor(colour, dtype=torch.uint8)
    return out


def episode(goal: tuple[int, int], *way: tuple[int, int]) -> list[Tensor]:
    """A red square goes its way through images, over a marker that it hides once it is there."""
    return [image(red=step, green=goal) for step in way]


def learned() -> Places:
    """From 40 episodes in which red is brought, over 20 pixels or more, to where green was."""
    start, now, done = [], [], []
    for k in range(40):
        goal = (10 + k % 7, 12 + k % 5)
        away = [(goal[0] + 20 + k, goal[1] + 30 - k), (goal[0] + 10, goal[1] - 12)]
        clip = places(torch.stack(episode(goal, *away, goal)))
        start.append(clip[:1].expand(3, -1, -1))
        now.append(clip)
        done += [False, False, True]
    model = Places()
    model.learn(torch.cat(start), torch.cat(now), torch.tensor(done))
    return model


def allowed(model: Places, first: Tensor, last: Tensor) -> float:
    seen = places(torch.stack([first, last]))
    return model(seen[:1], seen[1:]).item()


def test_places_are_counts_and_means_of_pixels() -> None:
    told = places(torch.stack([image(red=(8, 20)), image(green=(30, 4)), image()]))
    assert told.shape == (3, HUES, 3)
    assert told[0, THING].tolist() == pytest.approx([16.0, 9.5, 21.5])
    assert told[1, GOAL].tolist() == pytest.approx([16.0, 31.5, 5.5])
    assert (told[2, :, 0] < 1.0).all()


def test_a_larger_image_has_the_same_places() -> None:
    small = image(red=(8, 20))
    large = small.repeat_interleave(2, 0).repeat_interleave(2, 1)
    wanted = places(small[None])[0, THING]
    told = places(large[None])[0, THING]
    assert told[0] == pytest.approx(wanted[0].item())
    assert told[1:].tolist() == pytest.approx((wanted[1:] + 0.25).tolist())


def test_what_is_brought_in_front_of_the_marker_is_not_done() -> None:
    model, goal = learned(), (40, 40)
    first = image(red=(10, 10), green=goal)
    assert allowed(model, first, image(red=goal, green=goal)) == 1.0
    told = [allowed(model, first, image(red=(40, 40 + k), green=None)) for k in (1, 2, 4, 8, 20)]
    assert told[0] < BESIDE and (torch.tensor(told).diff() < -1e-3).all()
    assert told[2] == pytest.approx(BESIDE * math.exp(-SLOWLY * (4.0 - MARGIN_PX)), abs=1e-3)
    assert allowed(model, first, image(red=(10, 10), green=goal)) == pytest.approx(LEAST)


def test_beyond_the_range_by_hand() -> None:
    model, goal = learned(), (40, 40)
    assert model.low[GOAL, THING].tolist() == pytest.approx([-MARGIN_PX] * 4)
    assert model.high[GOAL, THING].tolist() == pytest.approx([MARGIN_PX] * 4)
    first = places(image(red=(10, 10), green=goal)[None])
    last = places(image(red=goal)[None])
    last[0, THING, 1] += MARGIN_PX + 0.1
    assert model(first, last).item() == pytest.approx(math.exp(-DOUBT * 0.1), abs=1e-5)


def test_what_is_hidden_says_nothing() -> None:
    model, goal = learned(), (40, 40)
    assert allowed(model, image(red=(10, 10), green=goal), image()) == 1.0
    assert allowed(model, image(red=(10, 10)), image(red=(20, 20))) == 1.0
    few = places(image(red=(20, 20))[None])
    few[0, THING, 0] = SEEN_PX - 0.1
    assert model(places(image(red=(10, 10), green=goal)[None]), few).item() == 1.0


def test_colours_that_end_anywhere_or_never_move_say_nothing() -> None:
    noise = torch.Generator().manual_seed(0)
    images, done = [], []
    for _ in range(60):
        row, column = torch.randint(0, 60, (2,), generator=noise).tolist()
        images += [image(red=(8, 8), green=(50, 8)), image(red=(row, column), green=(50, 8))]
        done += [False, True]
    shown = places(torch.stack(images))
    model = Places()
    model.learn(shown[::2].repeat_interleave(2, 0), shown, torch.tensor(done))
    assert torch.isinf(model.low).all()
    wide = learned()
    assert (torch.isfinite(wide.low[..., 0]).nonzero() == torch.tensor([[GOAL, THING]])).all()
    assert NARROW < 1.0


def test_before_it_has_learned_everything_is_allowed() -> None:
    goal, model = (40, 40), learned()
    assert allowed(Places(), image(green=goal), image(red=(1, 1))) == 1.0
    model.forget()
    assert allowed(model, image(green=goal), image(red=(1, 1))) == 1.0
    model.learn(*[places(image(red=(8, 8))[None])] * 2, torch.tensor([True]))
    assert torch.isinf(model.low).all()
