"""An object's pose in the camera from the corners of its markers, several of its faces at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from embodied.deploy.alignment import align
from embodied.deploy.marker_layout import SQUARE, Layout, Lens, apart, rigid

MOST_SIGHTINGS = 32
"""Markers of one object that are looked at in one image: a hostile one may show any number."""
INSIDE, NEAR_PX = 0.15, 2.0
"""How far a marker's corners may be from where a pose has them, in its sides, or in px if more."""
DOUBT, DOUBT_PX = 2.0, 0.5
"""A pose stays in doubt beside a better one whose error is less than so many times smaller; errors
below half a pixel say nothing."""
DOUBT_LEFT = 1.2
"""The same of what the pixels leave unexplained."""


@dataclass(frozen=True)
class Solution:
    """An object's pose in the camera (4, 4), the root mean square distance of its markers' corners
    from where it has them, what share of their contrast it leaves unexplained (1 where that was no
    help), and how many markers agree."""

    pose: np.ndarray
    error_px: float
    unexplained: float
    markers: int


Fit = tuple[float, np.ndarray, np.ndarray, np.ndarray]
"""An error in px, a turn (3,), a shift (3,), and which of the markers seen agree `(K,)`."""


def solve(
    layout: Layout,
    seen: Sequence[tuple[int, np.ndarray]],
    lens: Lens,
    grey: np.ndarray,
    last: np.ndarray | None,
) -> Solution | None:
    """The pose on which most of the `seen` markers agree; None where there is none.

    `seen` are ids with corners `(4, 2)` in px, clockwise from the top left of the print; `last`
    (4, 4) is the pose before, which decides between poses that show the same image.
    """
    seen = [(layout.rows[id], corners) for id, corners in seen[:MOST_SIGHTINGS]]
    rows = np.array([row for row, _ in seen])
    pixels = np.stack([corners for _, corners in seen]).astype(np.float64)
    found: list[Fit] = []
    count = 1
    for turn, shift in _candidates(layout, rows, pixels, lens):
        agree = _agree(layout.corners[rows], pixels, turn, shift, lens)
        if agree.sum() < count:
            continue
        if agree.sum() > count:
            count, found = int(agree.sum()), []
        found.append(_fit(layout, rows, pixels, turn, shift, agree, lens))
    rivals = _rivals(found)
    if not rivals:
        return None
    aligned = [_align(layout, rows, pixels, rival, lens, grey) for rival in rivals]
    best = min(aligned, key=lambda solution: solution.unexplained)
    if last is None:
        return best
    most = DOUBT_LEFT * best.unexplained
    close = [solution for solution in aligned if solution.unexplained <= most]
    return min(close, key=lambda solution: apart(solution.pose, last))


def _candidates(
    layout: Layout, rows: np.ndarray, pixels: np.ndarray, lens: Lens
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Poses of the object that each marker alone allows: two each, as a rule."""
    out = []
    for row, corners in zip(rows, pixels, strict=True):
        _, turns, shifts, _ = cv2.solvePnPGeneric(
            layout.half_m[row] * SQUARE,
            corners,
            lens.matrix,
            lens.distortion,
            flags=cv2.SOLVEPNP_IPPE_SQUARE,
        )
        for turn, shift in zip(turns, shifts, strict=True):
            pose = rigid(turn, shift) @ np.linalg.inv(layout.poses[row])
            if np.isfinite(pose).all() and pose[2, 3] > 0.0:
                out.append((cv2.Rodrigues(pose[:3, :3])[0].ravel(), pose[:3, 3]))
    return out


def _fit(
    layout: Layout,
    rows: np.ndarray,
    pixels: np.ndarray,
    turn: np.ndarray,
    shift: np.ndarray,
    agree: np.ndarray,
    lens: Lens,
) -> Fit:
    """The pose near a candidate's that fits all corners of the markers that `agree`.

    Of one marker it is the candidate: refining might make one pose of the two.
    """
    if agree.sum() > 1:
        points, flat = layout.corners[rows[agree]].reshape(-1, 3), pixels[agree].reshape(-1, 2)
        to, by = turn.reshape(3, 1).copy(), shift.reshape(3, 1).copy()
        to, by = cv2.solvePnPRefineLM(points, flat, lens.matrix, lens.distortion, to, by)
        turn, shift = to.ravel(), by.ravel()
    off = _distances(layout.corners[rows[agree]], pixels[agree], turn, shift, lens)
    return float(np.sqrt(np.mean(off * off))), turn, shift, agree


def _rivals(found: list[Fit]) -> list[Fit]:
    """Different poses that fit about as well as the best."""
    rivals: list[Fit] = []
    for fit in sorted(found, key=lambda fit: fit[0]):
        best = rivals[0][0] if rivals else fit[0]
        new = all(
            apart(rigid(fit[1], fit[2]), rigid(other[1], other[2])) > 0.05 for other in rivals
        )
        if new and fit[0] <= DOUBT * max(best, DOUBT_PX) and fit[2][2] > 0.0:
            rivals.append(fit)
    return rivals[:4]


def _align(
    layout: Layout, rows: np.ndarray, pixels: np.ndarray, fit: Fit, lens: Lens, grey: np.ndarray
) -> Solution:
    """A pose refined on the pixels, where they bear it out."""
    error, turn, shift, agree = fit
    which = rows[agree]
    points, shades = layout.points[which], layout.shades[which]
    to, by, left = align(grey, turn, shift, lens.matrix, lens.distortion, points, shades)
    if np.isfinite(by).all() and by[2] > 0.0:
        where = layout.corners[which], pixels[agree]
        if _agree(*where, to, by, lens).all():
            off = _distances(*where, to, by, lens)
            error = float(np.sqrt(np.mean(off * off)))
            return Solution(rigid(to, by), error, left, int(agree.sum()))
    return Solution(rigid(turn, shift), error, 1.0, int(agree.sum()))


def _agree(
    corners: np.ndarray, pixels: np.ndarray, turn: np.ndarray, shift: np.ndarray, lens: Lens
) -> np.ndarray:
    """Which markers are about where a pose has them, `(K,)` bool."""
    sides = np.linalg.norm(pixels - np.roll(pixels, 1, axis=1), axis=2).max(axis=1)
    return _distances(corners, pixels, turn, shift, lens) < np.maximum(INSIDE * sides, NEAR_PX)


def _distances(
    corners: np.ndarray, pixels: np.ndarray, turn: np.ndarray, shift: np.ndarray, lens: Lens
) -> np.ndarray:
    """Of every marker, the root mean square distance of its corners from where a pose has them, px,
    `(K,)`."""
    at, _ = cv2.projectPoints(corners.reshape(-1, 3), turn, shift, lens.matrix, lens.distortion)
    off = at.reshape(pixels.shape) - pixels
    return np.sqrt(np.mean(np.sum(off * off, axis=2), axis=1))
