"""What small reward models see with."""

from __future__ import annotations

import torch

from embodied.encoder import VISION_SIZE, Encoder, Vision, augment


def picture(column: int) -> torch.Tensor:
    image = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    image[:, 30:34, column : column + 4] = 255
    return image


def test_vision_tells_where_something_is() -> None:
    torch.manual_seed(0)
    eye = Vision()
    left, right = eye(picture(8)), eye(picture(52))
    assert left.shape == (1, VISION_SIZE) and not torch.allclose(left, right, atol=1e-3)


def test_an_encoder_normalises_by_what_it_was_fitted_to() -> None:
    torch.manual_seed(0)
    encoder = Encoder(2)
    encoder.norm.update(torch.randn(1000, 2) * torch.tensor([1.0, 100.0]) + 7.0)
    base = encoder(torch.tensor([[7.0, 7.0]]), [])
    moved = [encoder(torch.tensor([[7.0 + a, 7.0 + b]]), []) for a, b in ((1.0, 0.0), (0.0, 1.0))]
    assert (moved[0] - base).norm() > 10.0 * (moved[1] - base).norm()


def test_augmentation_keeps_the_picture_and_repeats_itself() -> None:
    images = picture(30).expand(50, -1, -1, -1)
    one = augment(images, torch.Generator().manual_seed(0))
    assert one.shape == images.shape and one.dtype == torch.uint8
    assert torch.equal(one, augment(images, torch.Generator().manual_seed(0)))
    assert not torch.equal(one[0], one[1])
    bright = (one.float().mean(-1) > 120).float()
    inside = bright[:, 26:38, 26:38].sum((1, 2))
    assert (inside >= 16).float().mean() > 0.7  # moved by 3 px at most, sometimes covered
