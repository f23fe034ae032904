"""Episodes altered so that an honest judge of progress must say something else, or the same.

Each function takes an episode of T frames and returns another; none changes its input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from embodied.dataset import ROWS, Episode

SENSOR_NOISE = 0.002
"""Standard deviation of `noisy_state`: metres and radians, twice what our tracker has."""


def frozen(episode: Episode, frame: int = 0) -> Episode:
    """From `frame` on the world stands still, as long as the episode lasts."""
    return episode.at(np.minimum(np.arange(len(episode)), frame))


def reversed_(episode: Episode) -> Episode:
    """The last frame first."""
    return episode.at(slice(None, None, -1))


def shuffled(episode: Episode, rng: np.random.Generator) -> tuple[Episode, np.ndarray]:
    """Its frames in a random order, and which frame comes when `(T,)`."""
    order = rng.permutation(len(episode))
    return episode.at(order), order


def repeated(episode: Episode, times: int = 3) -> Episode:
    """Its first half, whose second half is played `times` times: on, back, on, back, on.

    Ends at the same frame as the first half does.
    """
    half = max(2, len(episode) // 2)
    quarter = half // 2
    there = np.arange(quarter, half)
    back = there[-2::-1]
    again = np.concatenate([back, there[1:]])
    return episode.at(np.concatenate([np.arange(half), *[again] * (times - 1)]))


def first_half(episode: Episode) -> Episode:
    return episode.at(slice(0, max(2, len(episode) // 2)))


def spliced(failure: Episode, success: Episode) -> Episode:
    """`failure` with the last frame of `success` as one more."""
    end = success.at(slice(len(success) - 1, None))
    rows: dict[str, Any] = {
        name: np.concatenate([getattr(failure, name), getattr(end, name)]) for name in ROWS
    }
    cameras = failure.images.keys() & end.images.keys()
    images = {c: np.concatenate([failure.images[c], end.images[c]]) for c in sorted(cameras)}
    return replace(failure, **rows, images=images, scores={})


def told(episode: Episode, instruction: str) -> Episode:
    """The same frames under another instruction, of which they are no success."""
    unknown = np.full_like(episode.progress, np.nan)
    failed = np.zeros_like(episode.success)
    return replace(episode, instruction=instruction, success=failed, progress=unknown)


def noisy_state(episode: Episode, rng: np.random.Generator) -> Episode:
    """Gaussian noise of `SENSOR_NOISE` on every number of the state."""
    noise = rng.normal(0.0, SENSOR_NOISE, episode.state.shape).astype(np.float32)
    return replace(episode, state=episode.state + noise)


# --- what cameras see: every camera of an episode alike


def repainted(episode: Episode, paint: Callable[[np.ndarray], np.ndarray]) -> Episode:
    """Every camera's frames `(T, H, W, 3)` uint8 through `paint`, which returns as many."""
    return replace(episode, images={c: paint(image) for c, image in episode.images.items()})


def blank(episode: Episode, level: int) -> Episode:
    """Frames of one grey level, 0 black, 255 white: nobody could see a success in them."""
    return _unseen(repainted(episode, lambda image: np.full_like(image, level)))


def noise(episode: Episode, rng: np.random.Generator) -> Episode:
    """Frames of uniform noise."""
    return _unseen(repainted(episode, lambda image: rng.integers(0, 256, image.shape, np.uint8)))


def _unseen(episode: Episode) -> Episode:
    return replace(episode, success=np.zeros_like(episode.success))


def occluded(episode: Episode, share: float, rng: np.random.Generator) -> Episode:
    """A grey square over `share` of the area, at one random place for the whole episode."""

    def paint(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[1:3]
        tall, wide = round(height * share**0.5), round(width * share**0.5)
        top = int(rng.integers(0, height - tall + 1))
        left = int(rng.integers(0, width - wide + 1))
        image = image.copy()
        image[:, top : top + tall, left : left + wide] = 128
        return image

    return repainted(episode, paint)


def brighter(episode: Episode, factor: float) -> Episode:
    """Every pixel times `factor`."""
    return repainted(episode, lambda image: np.clip(image * factor, 0, 255).astype(np.uint8))


def cropped(episode: Episode, share: float = 0.05) -> Episode:
    """`share` of the height and width cut off at the edges, the rest stretched to the old size."""

    def paint(image: np.ndarray) -> np.ndarray:
        def kept(size: int) -> np.ndarray:
            return np.round(np.linspace(size * share / 2, size * (1 - share / 2) - 1, size))

        rows, columns = (kept(size).astype(np.int64) for size in image.shape[1:3])
        return image[:, rows[:, None], columns]

    return repainted(episode, paint)


def compressed(episode: Episode, quality: int = 50) -> Episode:
    """Every frame through JPEG."""
    import cv2

    def squeeze(frame: np.ndarray) -> np.ndarray:
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

    return repainted(episode, lambda image: np.stack([squeeze(frame) for frame in image]))
