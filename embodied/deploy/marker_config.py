"""A marker tracker's settings, from plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from embodied.deploy.fields import Fields
from embodied.deploy.marker_layout import Lens, Marker, cube_markers

DICTIONARIES = tuple(sorted(name for name in vars(cv2.aruco) if name.startswith("DICT_")))
DISTORTIONS = (0, 4, 5, 8, 12, 14)
"""How many numbers OpenCV describes a lens's distortion with."""
MOST_PX = 4096
SIZE_M = (1e-3, 10.0)
"""Of what carries markers, and of them."""


def read_size(camera: Fields) -> tuple[int, int]:
    """An image's height and width in px."""
    height, width = (camera.number(key, low=16, high=MOST_PX) for key in ("height", "width"))
    return round(height), round(width)


def read_lens(camera: Fields) -> Lens:
    """`fx`, `fy`, `cx`, `cy` in px, and `distortion`, (0,) to (14,), none by default."""
    fx, fy = (camera.number(key, low=1.0, high=1e6) for key in ("fx", "fy"))
    cx, cy = (camera.number(key, low=-1e6, high=1e6) for key in ("cx", "cy"))
    matrix = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    given = camera.node.get("distortion") or []
    count = len(given) if isinstance(given, list | tuple) else -1
    if count in DISTORTIONS:
        return Lens(matrix, np.array(camera.row("distortion", count, [0.0] * count)))
    camera.asked.add("distortion")
    camera.wrong("distortion", f"give 4, 5, 8, 12 or 14 numbers, not {given!r:.60}")
    return Lens(matrix, np.zeros(0))


def read_pose(part: Fields) -> tuple[float, ...]:
    """A `pose`, seven numbers: a position in m, and a unit quaternion (w, x, y, z)."""
    before = len(part.problems)
    pose = part.row("pose", 7)
    length = math.hypot(*pose[3:])
    if len(part.problems) == before and not 0.99 <= length <= 1.01:
        part.wrong("pose", f"its last four are a quaternion of length 1, not {length:g}")
    return tuple(pose)


def read_markers(part: Fields) -> tuple[Marker, ...]:
    """An object's `markers`, by number a `side_m` and a `pose`; or those of a `cube`."""
    if part.has("cube"):
        return _read_cube(part.section("cube"))
    out = []
    for name, marker in part.sections("markers").items():
        if not name.isdecimal() or len(name) > 4:
            part.wrong("markers", f"{name!r:.20}: a marker's key is its number in the dictionary")
            continue
        side_m = marker.number("side_m", low=SIZE_M[0], high=SIZE_M[1])
        out.append(Marker(int(name), side_m, read_pose(marker)))
    if part.has("markers") and not out:
        part.wrong("markers", "give one at least")
    return tuple(out)


def _read_cube(cube: Fields) -> tuple[Marker, ...]:
    ids = [int(number) for number in cube.row("ids", 6)]
    half_m = cube.number("half_m", low=SIZE_M[0], high=SIZE_M[1])
    side_m = cube.number("side_m", low=SIZE_M[0], high=SIZE_M[1])
    if side_m > 2.0 * half_m:
        cube.wrong("side_m", f"{side_m:g}: a face is {2.0 * half_m:g} m wide")
    return cube_markers(ids, half_m, side_m)


def check_ids(top: Fields, dictionary: str, groups: Mapping[str, tuple[Marker, ...]]) -> None:
    """Remember ids that a dictionary lacks, and those that are used twice."""
    known = len(cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary)).bytesList)
    used: set[int] = set()
    for name, markers in groups.items():
        for marker in markers:
            if not 0 <= marker.id < known:
                top.wrong(name, f"marker {marker.id}: {dictionary} has 0 to {known - 1}")
            if marker.id in used:
                top.wrong(name, f"marker {marker.id} is used twice")
            used.add(marker.id)
