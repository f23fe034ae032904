"""Which colours demonstrations have shown, and how far along: what still shows is not yet done.

A few dozen demonstrations teach a network from images how the robot stands when a task is done,
not that a thing a few pixels wide must be out of sight by then. How much of each colour an image
shows takes no learning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HUES, BANDS = 12, 5
CHROMA = (70.0, 110.0)
"""From what difference between its brightest and darkest channel on (0 to 255) a pixel has a
colour, and fully."""
LIGHTS = (0.7, 1.0, 1.3)
"""How bright what was shown might have been as well: in other light other pixels have a colour."""
FEW = 0.02
"""The share of frames that may show more of a hue than counts as shown."""
MARGIN = 0.25
"""By what share of its range the most that was shown of a hue is raised."""
DOUBT = 1.5
"""How fast a value may fall off beyond: after two thirds of the range to 1/e."""


class Hues(nn.Module):
    """The most that demonstrations showed of each hue, at every fifth of progress and when done.

    An image that shows more of a hue than was ever shown when done, in any light (see `LIGHTS`), is
    not of a task that is done, and so on for the lower fifths. Less of a hue says nothing: a thing
    may be hidden. For a camera that stands still: what one on a wrist shows depends on where it
    looks.
    """

    most: Tensor
    width: Tensor
    known: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("most", torch.full((BANDS + 1, HUES), torch.inf))
        self.register_buffer("width", torch.ones(BANDS + 1, HUES))
        self.register_buffer("known", torch.ones(BANDS + 1))

    @torch.no_grad()
    def learn(self, images: Tensor, progress: Tensor) -> None:
        """Take what images `(K, H, W, 3)` uint8 show at `progress` `(K,)` in [0, 1], 1: done."""
        band = (progress * BANDS).long().clamp(0, BANDS - 1)
        band = torch.where(progress >= 1.0 - 1e-6, BANDS, band).repeat(len(LIGHTS))
        lit = ((light, part) for light in LIGHTS for part in images.split(256))
        shown = torch.cat([hues((light * part.float()).clamp(max=255.0)) for light, part in lit])
        for k in band.unique().tolist():
            low, high = torch.quantile(shown[band == k], torch.tensor([FEW, 1.0 - FEW]), 0)
            self.width[k] = (high - low).clamp(min=1.0)
            self.most[k] = high + MARGIN * self.width[k]
        self.known.copy_(torch.bincount(band, minlength=BANDS + 1) > 0)

    def forget(self) -> None:
        """Allow everything."""
        self.most.fill_(torch.inf)
        self.known.fill_(1.0)

    def forward(self, images: Tensor) -> Tensor:
        """The most that may be said of what images `(n, H, W, 3)` show, `(n,)`."""
        top = torch.arange(1, BANDS + 2).clamp(max=BANDS) / BANDS * self.known
        beyond = (hues(images)[:, None] - self.most).clamp(min=0.0) / self.width
        return (top * torch.exp(-DOUBT * beyond.sum(-1))).amax(-1)


def hues(images: Tensor) -> Tensor:
    """How many pixels of an image of 64x64 have each hue, `(n, HUES)`, of `(n, H, W, 3)` 0 to 255.

    Of means of 2x2 pixels, which is what a video keeps of colours.
    """
    view = functional.avg_pool2d(images.permute(0, 3, 1, 2).float(), 2)
    below, beside, weight = coloured(view, CHROMA)
    weight = weight * (4096.0 / weight.shape[1])
    out = torch.zeros(len(images), HUES)
    out.scatter_add_(1, below, weight * (1.0 - beside))
    return out.scatter_add_(1, (below + 1) % HUES, weight * beside)


def coloured(view: Tensor, chroma: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the P pixels of each image `(n, 3, H, W)`, `(n, P)` each: the hue below theirs, how far
    theirs is on the way to the next (0 to 1), and how much of a colour they have (0 to 1).

    From the first number of `chroma` on, a difference between a pixel's brightest and darkest
    channel, it has a colour, and fully from the second on.
    """
    red, green, blue = view.flatten(2).unbind(1)
    top = torch.maximum(torch.maximum(red, green), blue)
    spread = top - torch.minimum(torch.minimum(red, green), blue)
    each = spread.clamp(min=1.0)
    sixth = torch.where(top == green, 2.0 + (blue - red) / each, 4.0 + (red - green) / each)
    sixth = torch.where(top == red, (green - blue) / each % 6.0, sixth)
    weight = ((spread - chroma[0]) / (chroma[1] - chroma[0])).clamp(0.0, 1.0)
    place = sixth * (HUES / 6)
    below = place.floor()
    return below.long() % HUES, place - below, weight
