"""What a small reward model sees with: camera images, the robot's own state, an instruction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.language import TEXT_SIZE
from embodied.nets import RunningNorm

VISION_SIZE = 64


class Vision(nn.Module):
    """Images `(B, H, W, 3)` uint8 of one camera to features `(B, VISION_SIZE)`.

    Three convolutions, read out as where each channel is strongest (spatial soft-argmax, Levine
    et al. 2016, arXiv 1504.00702) and how strong it is there: few weights, since there are few
    demonstrations.
    """

    grid: Tensor

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(16, channels, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )  # fmt: skip
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("grid", torch.linspace(-1.0, 1.0, 16), persistent=False)
        self.out = nn.Linear(4 * channels, VISION_SIZE)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float().div_(127.5).sub_(1.0).permute(0, 3, 1, 2)
        x = self.convolutions(x)
        batch, channels, height, width = x.shape
        weight = torch.softmax(self.sharpness * x.flatten(2), -1).view_as(x)
        across = torch.linspace(-1.0, 1.0, width) if width != len(self.grid) else self.grid
        down = torch.linspace(-1.0, 1.0, height) if height != len(self.grid) else self.grid
        column = (weight.sum(2) * across).sum(-1)
        row = (weight.sum(3) * down).sum(-1)
        strongest = x.flatten(2).amax(-1)
        mean = x.flatten(2).mean(-1)
        return torch.relu(self.out(torch.cat([column, row, strongest, mean], -1)))


class Encoder(nn.Module):
    """One moment as features `(B, size)`: the vector it is given, and each camera's image.

    The vector is normalised by the statistics of the data it is fitted to (`norm.update`).
    """

    def __init__(self, vector_size: int, cameras: int = 0, size: int = 64) -> None:
        super().__init__()
        self.norm = RunningNorm(vector_size, limit=5.0)
        self.eyes = nn.ModuleList(Vision() for _ in range(cameras))
        self.size = size
        self.mix = nn.Sequential(
            nn.Linear(vector_size + VISION_SIZE * cameras, 2 * size), nn.ReLU(),
            nn.Linear(2 * size, size),
        )  # fmt: skip

    def forward(self, vector: Tensor, images: list[Tensor]) -> Tensor:
        """`vector` `(B, V)`, one `(B, H, W, 3)` uint8 a camera."""
        seen = [eye(image) for eye, image in zip(self.eyes, images, strict=True)]
        return self.mix(torch.cat([self.norm(vector), *seen], -1))


class Instruction(nn.Module):
    """An embedded text `(B, TEXT_SIZE)` (see `embodied.language`) as features `(B, size)`."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(TEXT_SIZE, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, text: Tensor) -> Tensor:
        return self.net(text)


def augment(images: Tensor, noise: torch.Generator, shift_px: int = 3) -> Tensor:
    """Images `(B, H, W, 3)` uint8 shifted, brightened or darkened, and partly covered, each anew.

    What a camera does to a picture without changing what is happening in it.
    """
    count, height, width, _ = images.shape
    move = torch.randint(-shift_px, shift_px + 1, (2, count), generator=noise)
    light = 0.65 + 0.7 * torch.rand((count, 1, 1, 3), generator=noise).mean(-1, keepdim=True)
    tint = 0.95 + 0.1 * torch.rand((count, 1, 1, 3), generator=noise)
    size = torch.rand((count, 2), generator=noise) * 0.5
    corner = torch.rand((count, 2), generator=noise) * (1.0 - size)
    chosen = torch.rand(count, generator=noise) < 0.3
    shade = (255.0 * torch.rand((count, 3), generator=noise)).to(torch.uint8)
    out = _shift(images, *move).float().mul_(light * tint).clamp_(max=255.0).to(torch.uint8)
    sides = torch.tensor([height, width])
    first, last = ((part * sides).ceil().long().tolist() for part in (corner, corner + size))
    for k in chosen.nonzero().flatten().tolist():
        (top, left), (bottom, right) = first[k], last[k]
        out[k, top:bottom, left:right] = shade[k]
    return out


def _shift(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images moved by so many pixels `(B,)` each; what comes in is the edge, repeated."""
    count, height, width, _ = images.shape
    rows = (torch.arange(height) + down[:, None]).clamp(0, height - 1)
    rows += height * torch.arange(count)[:, None]
    out = images.reshape(count * height, -1).index_select(0, rows.flatten()).view(images.shape)
    for step in across.unique().tolist():
        if step:
            mine = (across == step).nonzero().flatten()
            before, after = out[mine], out[mine]
            if step > 0:
                after[:, :, :-step], after[:, :, -step:] = before[:, :, step:], before[:, :, -1:]
            else:
                after[:, :, -step:], after[:, :, :-step] = before[:, :, :step], before[:, :, :1]
            out[mine] = after
    return out
