"""An object's pose from all pixels of its markers, not from their corners alone.

Corners of a marker 30 pixels wide are found to half a pixel; the edges of all its cells together
say far more. So the pose is moved until what the camera shows at points of the markers is what is
printed there: Gauss-Newton on intensities (Lucas and Kanade, IJCAI 1981; Baker and Matthews, IJCV
2004, whose treatment of unknown light this follows). Each marker has a brightness, a contrast and a
sharpness of its own, which are solved for and never seen.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

PER_CELL = 5
"""Points across a cell of a marker."""
MARGIN_CELLS = 0.25
"""How much of the white around a marker is looked at."""
SHARP, SOFT = 0.1, 0.25
"""How much blurred prints are that a picture is made of, in cells (standard deviations): what is
seen aslant is more blurred one way than the other."""
DOUBT = 0.25
"""By how much of a marker's contrast a pixel may differ and still count fully."""
PIXEL = 0.4
"""How much blurred a sharp image is, in px."""
FAINT = 3.0
"""A contrast (standard deviation of intensities, 0 to 255) that shows no print."""
STEPS, STILL = 8, 5e-5
"""Iterations at most, and the change (rad, m) after which there is no other."""


def print_points(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a marker and what is printed there, from its cells `(C, C)`, 0 black and 1 white.

    Points `(P, 3)` are in sides of the marker from its middle, x right and y up; its shades
    `(P, 4)` are one, and the print when sharp, when soft across, and when soft up and down.
    """
    cells, px = len(bits), 24
    card = np.kron(np.pad(bits.astype(np.float32), 2, constant_values=1.0), np.ones((px, px)))
    count = round((cells + 2 * MARGIN_CELLS) * PER_CELL)
    at = (np.arange(count) + 0.5) / count * (cells + 2 * MARGIN_CELLS) - MARGIN_CELLS
    x, y = np.meshgrid(at, at)
    where = [((axis + 2) * px - 0.5).astype(np.float32) for axis in (x, y)]
    shades = [np.ones(count * count)]
    for across, down in ((SHARP, SHARP), (SOFT, SHARP), (SHARP, SOFT)):
        soft = cv2.GaussianBlur(card, (0, 0), sigmaX=across * px, sigmaY=down * px)
        shades.append(cv2.remap(soft, *where, cv2.INTER_LINEAR).ravel())  # type: ignore[call-overload]
    points = np.stack([x / cells - 0.5, 0.5 - y / cells, np.zeros_like(x)], axis=-1)
    return points.reshape(-1, 3), np.stack(shades, axis=1)


def align(
    grey: np.ndarray,
    turn: np.ndarray,
    shift: np.ndarray,
    matrix: np.ndarray,
    distortion: np.ndarray,
    points: np.ndarray,
    shades: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Refine an object's pose in the camera: `turn` (3,) (rad, axis times angle), `shift` (3,) (m).

    `grey` `(H, W)` uint8, the camera's `matrix` (3, 3), `points` `(M, P, 3)` of its markers in the
    object's frame (m) and their `shades` `(M, P, 4)`. Also returns what share of the markers'
    contrast is left unexplained, in [0, 1] or so.
    """
    markers, count, _ = points.shape
    edge = math.isqrt(count)
    outer = points[:, [0, edge - 1, count - 1, count - edge]].reshape(-1, 3)
    corners = cv2.projectPoints(outer, turn, shift, matrix, distortion)[0].reshape(-1, 4, 2)
    if not np.isfinite(corners).all():
        return turn, shift, 1.0
    area = np.array([cv2.contourArea(square.astype(np.float32)) for square in corners])
    layers, matrix = _crop(grey, corners, math.sqrt(area.mean()) * PER_CELL / edge, matrix)
    pull = (area / max(area.mean(), 1e-9))[:, None, None]  # what shows large says more
    weight = np.ones((markers, count, 1))
    left = 1.0
    for _ in range(STEPS):
        pixels, slope = cv2.projectPoints(points.reshape(-1, 3), turn, shift, matrix, distortion)
        rows = _sample(layers, pixels, slope[:, :6], count).reshape(markers, count, 7)
        contrast = rows[:, :, 6:].std(axis=1, keepdims=True)
        rows = _unexplained(rows / np.maximum(contrast, 1.0), shades, weight)
        change, off = rows[:, :, :6].reshape(-1, 6), rows[:, :, 6:]
        left = math.sqrt(np.mean(pull * np.where(contrast < FAINT, 1.0, off * off)))
        weight = np.minimum(1.0, DOUBT / np.maximum(np.abs(off), 1e-9)) ** 2
        by_weight = (change * (weight * pull).reshape(-1, 1)).T
        step = np.linalg.solve(by_weight @ change + 1e-9 * np.eye(6), by_weight @ off.reshape(-1))
        turn, shift = turn - step[:3], shift - step[3:]
        if np.abs(step).max() < STILL:
            break
    return turn, shift, left


def _sample(layers: list[Any], pixels: np.ndarray, slope: np.ndarray, wide: int) -> np.ndarray:
    """How what is seen at `pixels` `(K, 1, 2)` changes with a pose on which they depend by `slope`
    `(2 K, 6)`, and what is seen, `(K, 7)`: `layers` are an image and its slopes. They are looked up
    in rows so many `wide`: OpenCV takes no long ones."""
    x, y = pixels.astype(np.float32).reshape(len(pixels) // wide, wide, 2).transpose(2, 0, 1)
    seen, across, down = (
        cv2.remap(layer, x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE).reshape(-1, 1)
        for layer in layers
    )
    change = across * slope[0::2] + down * slope[1::2]
    return np.concatenate([change, seen], axis=1).astype(np.float64)


def _unexplained(rows: np.ndarray, shades: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What no mixture of a marker's shades explains of `rows` `(M, P, 7)`, by weighted squares."""
    by_weight = (shades * weight).transpose(0, 2, 1)
    normal = by_weight @ shades + 1e-9 * np.eye(shades.shape[2])
    return rows - shades @ np.linalg.solve(normal, by_weight @ rows)


def _crop(
    grey: np.ndarray, corners: np.ndarray, cell_px: float, matrix: np.ndarray
) -> tuple[list[Any], np.ndarray]:
    """The part of an image around markers' `corners` `(M, 4, 2)`, as sharp as prints are whose
    cells are `cell_px` wide, with its slopes across and down, and its camera matrix."""
    height, width = grey.shape
    low = np.clip(np.floor(corners.min(axis=(0, 1))) - 8, 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=(0, 1))) + 8, low + 1, (width, height)).astype(int)
    part: Any = grey[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    blur = (SHARP * cell_px) ** 2 - PIXEL**2
    if blur > 0.05:
        part = cv2.GaussianBlur(part, (0, 0), math.sqrt(blur))
    slopes = (cv2.Sobel(part, cv2.CV_32F, *way, ksize=3, scale=1 / 8) for way in ((1, 0), (0, 1)))
    matrix = matrix.copy()
    matrix[:2, 2] -= low
    return [part, *slopes], matrix
