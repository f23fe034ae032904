"""Where objects are, by the ArUco markers printed on them, as one camera that stands still sees it.

On a robot this supplies the tracked poses that a task's observations use. In simulated images of
the arm's scene it is closer to the truth than the tracker that policies are trained with: see
`embodied.envs.tasks.marked`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from embodied.deploy.fields import Fields
from embodied.deploy.marker_config import (
    DICTIONARIES,
    check_ids,
    read_lens,
    read_markers,
    read_pose,
    read_size,
)
from embodied.deploy.marker_layout import Layout, Lens, Marker, cube_markers, to_matrix, to_pose
from embodied.deploy.marker_pose import Solution, solve

__all__ = ["Marker", "MarkerTracker", "Sighting", "cube_markers"]

BOARD_IMAGES = 10
"""From how many images of the board the camera's pose is taken."""
SLACK_M, SLACK_RAD = 0.02, 0.2
"""What a sighting may be off, besides what the object may have moved."""


@dataclass(frozen=True)
class Sighting:
    """Where an object was last seen.

    `pose` (7,): position in the robot's base frame (m) and a unit quaternion (w, x, y, z) whose
    sign never jumps; `error_px`, the root mean square distance of the corners of its markers from
    where the pose has them; `markers`, how many were seen; `age_s`, how long ago, 0 for now.
    """

    pose: np.ndarray
    error_px: float
    markers: int
    age_s: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What is taken for a sighting: one of at most `error_px` that leaves no more than a share of
    `unexplained` of the markers' contrast, and no faster since the last one than `speed_m_s` and
    `spin_rad_s`."""

    error_px: float = 3.0
    unexplained: float = 0.27
    speed_m_s: float = 2.0
    spin_rad_s: float = 10.0


class MarkerTracker:
    """Poses of objects from images `(height, width)` of a camera with a `lens`.

    `camera_pose` (7,) is the camera's in the base frame: x to the right of its image, y down, z
    out of the lens. Without it, `board` is markers fixed to the table, with their poses in the
    base frame: the first images that show them tell the camera's pose, and nothing is tracked
    before.

    `counts` says how many images could not be read ("unreadable"), and how many sightings were
    left out because they do not fit what is seen ("unfit") or nothing moves so fast ("jumps").
    """

    def __init__(
        self,
        size: tuple[int, int],
        lens: Lens,
        objects: Mapping[str, Sequence[Marker]],
        dictionary: str = "DICT_4X4_50",
        camera_pose: Sequence[float] | None = None,
        board: Sequence[Marker] = (),
        limits: Limits | None = None,
    ) -> None:
        known = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary))
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        parameters.minMarkerDistanceRate = 0.05  # faces of a cube are near one another
        parameters.perspectiveRemovePixelPerCell = 8
        parameters.perspectiveRemoveIgnoredMarginPerCell = 0.2
        self.size, self.lens, self.limits = size, lens, limits or Limits()
        self.counts: Counter[str] = Counter(unreadable=0, unfit=0, jumps=0)
        self._dictionary, self._detector = known, cv2.aruco.ArucoDetector(known, parameters)
        self._camera = None if camera_pose is None else to_matrix(camera_pose)
        self._board = Layout(board, known) if camera_pose is None else None
        self._views: list[np.ndarray] = []
        self._layouts = {name: Layout(markers, known) for name, markers in objects.items()}
        self._last: dict[str, tuple[Sighting, int]] = {}

    @property
    def camera_pose(self) -> np.ndarray | None:
        """The camera's pose (7,) in the base frame; None while it is not known."""
        return None if self._camera is None else to_pose(self._camera)

    def define(self, name: str, markers: Sequence[Marker]) -> None:
        """Say anew where an object's markers are, and forget where it was: it is another one."""
        self._layouts[name] = Layout(markers, self._dictionary)
        self._last.pop(name, None)

    def forget(self) -> None:
        """Forget where objects were: they may have been carried anywhere."""
        self._last.clear()

    def track(self, image: np.ndarray, stamp_ns: int | None = None) -> dict[str, Sighting]:
        """Where the objects are that an image, or one before it, shows.

        `image` `(H, W, 3)` rgb or `(H, W)` grey uint8, taken at `stamp_ns` (by default now). What
        is no such image shows nothing.
        """
        now = time.monotonic_ns() if stamp_ns is None else stamp_ns
        grey = self._grey(image)
        found = [] if grey is None else self._detect(grey)
        if self._camera is None and grey is not None:
            self._place_camera(grey, found)
        if self._camera is not None and grey is not None:
            for name, layout in self._layouts.items():
                self._see(name, layout, grey, found, now)
        return {
            name: replace(sighting, age_s=max(0, now - then) * 1e-9)
            for name, (sighting, then) in self._last.items()
        }

    def _grey(self, image: Any) -> np.ndarray | None:
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = np.ascontiguousarray(image)
            if image.shape == (*self.size, 3):
                return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            if image.shape == self.size:
                return image
        self.counts["unreadable"] += 1
        return None

    def _detect(self, grey: np.ndarray) -> list[tuple[int, np.ndarray]]:
        try:
            corners, ids, _ = self._detector.detectMarkers(grey)
        except cv2.error:
            self.counts["unreadable"] += 1
            return []
        if ids is None:
            return []
        return [(int(id), square[0]) for id, square in zip(ids.ravel(), corners, strict=True)]

    def _solve(
        self,
        layout: Layout,
        grey: np.ndarray,
        found: list[tuple[int, np.ndarray]],
        last: np.ndarray | None,
    ) -> Solution | None:
        seen = [(id, corners) for id, corners in found if id in layout.rows]
        if not seen:
            return None
        try:
            with np.errstate(all="ignore"):
                solution = solve(layout, seen, self.lens, grey, last)
        except (cv2.error, np.linalg.LinAlgError):  # of corners in a row, say
            solution = None
        if solution is not None and self._fits(solution):
            return solution
        self.counts["unfit"] += 1
        return None

    def _fits(self, solution: Solution) -> bool:
        return (
            solution.error_px <= self.limits.error_px
            and solution.unexplained <= self.limits.unexplained
        )

    def _place_camera(self, grey: np.ndarray, found: list[tuple[int, np.ndarray]]) -> None:
        assert self._board is not None
        solution = self._solve(self._board, grey, found, None)
        if solution is None:
            return
        view = to_pose(np.linalg.inv(solution.pose))
        if self._views and np.dot(view[3:], self._views[0][3:]) < 0.0:
            view[3:] *= -1.0
        self._views.append(view)
        if len(self._views) == BOARD_IMAGES:
            self._camera = to_matrix(np.median(self._views, axis=0))

    def _see(
        self,
        name: str,
        layout: Layout,
        grey: np.ndarray,
        found: list[tuple[int, np.ndarray]],
        now: int,
    ) -> None:
        assert self._camera is not None
        last, then = self._last.get(name, (None, 0))
        before = None if last is None else np.linalg.inv(self._camera) @ to_matrix(last.pose)
        solution = self._solve(layout, grey, found, before)
        if solution is None:
            return
        pose = to_pose(self._camera @ solution.pose)
        if last is not None:
            age_s = max(0, now - then) * 1e-9
            moved = float(np.linalg.norm(pose[:3] - last.pose[:3]))
            turned = 2.0 * float(np.arccos(min(1.0, abs(np.dot(pose[3:], last.pose[3:])))))
            if (
                moved > self.limits.speed_m_s * age_s + SLACK_M
                or turned > self.limits.spin_rad_s * age_s + SLACK_RAD
            ):
                self.counts["jumps"] += 1
                return
            if np.dot(pose[3:], last.pose[3:]) < 0.0:
                pose[3:] *= -1.0
        self._last[name] = Sighting(pose, solution.error_px, solution.markers), now

    @classmethod
    def from_config(cls, plain: Any, where: str = "tracker") -> MarkerTracker:
        """A tracker from plain data. Raises `UserError` that lists everything that is wrong.

        Keys: `camera` (`width`, `height`, `fx`, `fy`, `cx`, `cy`, `distortion`, and its `pose` or
        a `board` with `markers`), `objects` by name, `dictionary`, and `limits`. An object
        has `markers`, by number a `side_m` and a `pose`; or it is a `cube`, with six `ids`,
        `half_m` and `side_m`: see `cube_markers`.
        """
        top = Fields(plain)
        camera = top.section("camera")
        dictionary = top.choice("dictionary", DICTIONARIES, "DICT_4X4_50")
        size, lens = read_size(camera), read_lens(camera)
        by_board = camera.has("board") and not camera.has("pose")
        pose = None if by_board else read_pose(camera)
        board = read_markers(camera.section("board")) if by_board else ()
        objects = {name: read_markers(part) for name, part in top.sections("objects").items()}
        if top.has("objects") and not objects:
            top.wrong("objects", "give one at least")
        limits = Limits(**top.section("limits", {}).numbers(Limits))
        check_ids(top, dictionary, {**objects, "camera.board": board})
        top.done(where)
        return cls(size, lens, objects, dictionary, pose, board, limits)
