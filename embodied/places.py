"""Where things of a colour are once a task is done, by where others stood when it began.

What is brought to a marker hides it, from a camera that stands still, and so does what is brought
in front of it. Where the marker was at the start tells the two apart, and takes no learning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.hues import BANDS, HUES, coloured

FAINT = (40.0, 80.0)
"""From what difference between its brightest and darkest channel on (0 to 255) a pixel has a
colour, and fully: a see-through marker has little."""
SEEN_PX = 4.0
"""The least pixels of a colour that say where it is, of an image of 64x64."""
OFTEN = 0.5
"""The share of frames, done and before, in which both colours must be seen so well."""
FEW = 0.02
"""The share of done frames that may lie beyond either end of a range."""
NARROW, MOVED_PX = 0.25, 8.0
"""A range says what it takes to be done if it is this share of what it was before, in all
directions, and things moved that far at all."""
MARGIN_PX, DOUBT = 0.75, 2.0
"""By how much ranges are widened, and how fast a value falls off outside (to 1/e in 0.5 pixels)."""

BESIDE, SLOWLY, LEAST = 1.0 - 1.0 / BANDS, 0.05, 0.5
"""What may be said just outside, how fast that falls off (to 1/e in 20 pixels), and what may be
said in any case."""


class Places(nn.Module):
    """How far each colour is from where each other one was at the start, when a task is done.

    In pixels of an image of 64x64, in four directions (an octagon). Most pairs of colours say
    nothing; those whose ranges are narrow when done, and only then, must be inside: else a value is
    no higher than `BESIDE`, and the less the farther. A colour that is out of sight says nothing.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.full((HUES, HUES, 4), -torch.inf))
        self.register_buffer("high", torch.full((HUES, HUES, 4), torch.inf))

    @torch.no_grad()
    def learn(self, start: Tensor, now: Tensor, done: Tensor) -> None:
        """Take the ranges of frames that are `done` `(K,)` bool, from places `(K, HUES, 3)` of
        what they show and of what the first frames of their episodes show (see `places`)."""
        self.forget()
        way, seen = _way(start, now)
        often = torch.minimum(*(seen[part].float().mean(0) for part in (done, ~done)))
        for i, j in (often >= OFTEN).nonzero().tolist():
            (low, high), (first, last) = (
                torch.quantile(way[part & seen[:, i, j], i, j], torch.tensor([FEW, 1.0 - FEW]), 0)
                for part in (done, ~done)
            )
            moved = last - first
            if (moved >= MOVED_PX).all() and (high - low <= NARROW * moved).all():
                self.low[i, j], self.high[i, j] = low - MARGIN_PX, high + MARGIN_PX

    def forget(self) -> None:
        """Allow everything."""
        self.low.fill_(-torch.inf)
        self.high.fill_(torch.inf)

    def forward(self, start: Tensor, now: Tensor) -> Tensor:
        """The most that may be said of images with these places `(n, HUES, 3)`, `(n,)`."""
        way, seen = _way(start, now)
        beyond = torch.maximum(self.low - way, way - self.high).clamp(min=0.0).amax(-1)
        farthest = torch.where(seen, beyond, 0.0).flatten(1).amax(1)
        beside = BESIDE * torch.exp(-SLOWLY * farthest)
        return torch.maximum(torch.exp(-DOUBT * farthest), beside).clamp(min=LEAST)


def places(images: Tensor) -> Tensor:
    """How many pixels of an image of 64x64 have each hue, and their mean row and column.

    `(n, HUES, 3)` of `(n, H, W, 3)` uint8.
    """
    height, width = images.shape[1:3]
    down, across = torch.arange(height) * (64.0 / height), torch.arange(width) * (64.0 / width)
    below, beside, weight = coloured(images.permute(0, 3, 1, 2).float(), FAINT)
    image, pixel = weight.nonzero(as_tuple=True)
    below, beside, weight = (part[image, pixel] for part in (below, beside, weight))
    sized = weight * (4096.0 / (height * width))
    row, column = down[pixel // width], across[pixel % width]
    told = sized[:, None] * torch.stack([torch.ones_like(row), row, column], -1)
    out = torch.zeros(len(images) * HUES, 3)
    out.index_add_(0, image * HUES + below, told * (1.0 - beside)[:, None])
    out.index_add_(0, image * HUES + (below + 1) % HUES, told * beside[:, None])
    out = out.view(len(images), HUES, 3)
    out[..., 1:] /= out[..., :1].clamp(min=1e-6)
    return out


def _way(start: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """From where each hue was to where each one is: down, across, and along both diagonals,
    `(n, HUES, HUES, 4)`, and whether both are seen `(n, HUES, HUES)`."""
    way = now[:, None, :, 1:] - start[:, :, None, 1:]
    down, across = way.unbind(-1)
    seen = (start[:, :, None, 0] >= SEEN_PX) & (now[:, None, :, 0] >= SEEN_PX)
    return torch.stack([down, across, down + across, down - across], -1), seen
