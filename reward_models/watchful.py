"""An encoder that notices when a camera shows nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from embodied.encoder import Encoder
from embodied.types import ABSTAINED, SCORED

from .sharp import SharpEncoder

LEEWAY = 3.0
"""How many times less or more texture than ever seen in training is still an image."""


class WatchfulEncoder(Encoder):
    """An `Encoder` with one feature more, the last: 1 where all cameras show something, else 0.

    An even image (black, white, grey) has less texture than any it was fitted to, noise has more;
    what it is being fitted to shows something.
    """

    least: Tensor
    most: Tensor

    def __init__(self, vector_size: int, cameras: int = 0, size: int = 64) -> None:
        super().__init__(vector_size, cameras, size)
        self.size = size + 1
        self.register_buffer("least", torch.zeros(cameras))
        self.register_buffer("most", torch.full((cameras,), torch.inf))

    @torch.no_grad()
    def watch(self, images: list[Tensor]) -> None:
        """Take in the texture of the images `(K, H, W, 3)` of each camera to be fitted to."""
        for camera, view in enumerate(images):
            seen = torch.cat([texture(part) for part in view.split(256)])
            self.least[camera], self.most[camera] = seen.min() / LEEWAY, seen.max() * LEEWAY

    def forward(self, vector: Tensor, images: list[Tensor]) -> Tensor:
        shown = torch.ones(len(vector), dtype=torch.bool)
        for camera, view in enumerate(images if not self.training else ()):
            seen = texture(view)
            shown &= (seen >= self.least[camera]) & (seen <= self.most[camera])
        return torch.cat([super().forward(vector, images), shown[:, None].float()], -1)


class WatchfulSharpEncoder(WatchfulEncoder, SharpEncoder):
    """A `SharpEncoder` that notices it too."""


def shown(features: Tensor) -> tuple[Tensor, Tensor]:
    """Whether features `(n, F)` of a `WatchfulEncoder` show something, `(n,)` bool, and the
    statuses `(n,)` that say so."""
    clear = features[:, -1] > 0.0
    return clear, torch.where(clear, SCORED, ABSTAINED).to(torch.int8)


def texture(images: Tensor) -> Tensor:
    """The mean difference of neighbouring pixels, 0 to 255, of images `(B, H, W, 3)` uint8."""
    view = images.float()
    down, across = view[:, 1:] - view[:, :-1], view[:, :, 1:] - view[:, :, :-1]
    return down.abs().mean((1, 2, 3)) + across.abs().mean((1, 2, 3))
