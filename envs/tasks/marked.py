"""The arm's scene as a marker tracker sees it: markers on the cubes, and a camera that stays put.

For rehearsals of what runs on a robot. Markers are paint that scales with a cube's size: physics
does not change by a bit.

While the expert picks up cubes (24 episodes, 1018 images) a tracker's error is 0.4 mm and 0.0013
rad (root mean square of each axis), 1.5 mm in all in 95% of images and 4.4 mm in the worst, and it
loses 3. Policies are trained with 1 mm, 0.009 rad and 1% lost (`tracker.py`). JPEG files of quality
80, or noise of 8 grey levels, change little of that (5.5 mm in the worst). An image takes 9.5
ms to render in software and 7 ms to track, each on one core; at 640 by 480 px, 14 and 7.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import cv2
import numpy as np

from embodied.deploy.marker_layout import FACES, to_pose
from embodied.errors import unknown
from embodied.sim import ModelSource

from .robot import Robot
from .scene import CUBES

CAMERA = "tracking"
HEIGHT, WIDTH = 360, 480
"""Of the camera's images, px."""
PLACE, LOOKS_AT, FOVY_DEG = (0.66, 0.0, 0.55), (0.006, 0.0, 0.127), 33.5
"""Where the camera is and looks, from the middle of the workspace on the table (m): it sees all of
the workspace, of a cube the faces that no finger hides, and over the cube that stands before it."""
DICTIONARY = "DICT_4X4_50"
SHARE = 6.0 / 7.0
"""Side of a marker's black square over a cube's edge: half a cell is white around it."""
CELL_PX = 32
FILES = {"right": 1, "left": 3, "up": 2, "down": 0, "front": 0, "back": 2}
"""MuJoCo's names of the faces, in the order of `FACES`, and by how many quarters of a turn a print
is turned against the clock to stand as `cube_markers` says."""


def marked(source: ModelSource, robot: Robot, cubes: tuple[str, ...] = CUBES) -> ModelSource:
    """A scene with markers on its `cubes` and the camera `CAMERA`, without the goal's ball.

    The k-th of `scene.CUBES` carries the markers 6k to 6k + 5 in the order of `FACES`. No real
    table has a ball in the air, and it would hide markers. Raises `UserError` for another cube.
    """
    root = fromstring(source.xml)
    assets = dict(source.assets or {})
    asset = SubElement(root, "asset")
    geoms = {geom.get("name"): geom for geom in root.iter("geom")}
    for name in cubes:
        if name not in CUBES:
            raise unknown("cube", name, CUBES)
        first, files = 6 * CUBES.index(name), {}
        for k, (face, quarters) in enumerate(FILES.items()):
            files[f"file{face}"] = f"{name}_{face}.png"
            assets[f"{name}_{face}.png"] = _print(first + k, quarters)
        paint = f"{name}_markers"
        SubElement(asset, "texture", {"name": paint, "type": "cube", **files})
        SubElement(asset, "material", name=paint, texture=paint, specular="0", shininess="0")
        geoms[name].attrib.pop("rgba", None)
        geoms[name].set("material", paint)
    geoms["goal"].set("group", "4")  # which cameras leave out
    SubElement(root, "worldbody").append(_camera(robot))
    return ModelSource(tostring(root, encoding="unicode"), assets)


def tracker(robot: Robot, half_m: Mapping[str, float]) -> dict[str, Any]:
    """What a `MarkerTracker` must be told of the camera and of cubes with `half_m` their edges."""
    pixels = 0.5 * HEIGHT / math.tan(0.5 * math.radians(FOVY_DEG))
    pose = np.eye(4)
    pose[:3, :3] = _axes() * (1.0, -1.0, -1.0)  # MuJoCo's cameras look along -z, y up
    pose[:3, 3] = _place(robot)
    camera = {
        "width": WIDTH,
        "height": HEIGHT,
        "fx": round(pixels, 3),
        "fy": round(pixels, 3),
        "cx": 0.5 * (WIDTH - 1),
        "cy": 0.5 * (HEIGHT - 1),
        "pose": [round(float(number), 7) for number in to_pose(pose)],
    }
    objects = {name: {"cube": cube(name, half)} for name, half in half_m.items()}
    return {"dictionary": DICTIONARY, "camera": camera, "objects": objects}


def cube(name: str, half_m: float) -> dict[str, Any]:
    """The markers on a cube with half an edge of `half_m`, as `cube_markers` takes them."""
    if name not in CUBES:
        raise unknown("cube", name, CUBES)
    first = 6 * CUBES.index(name)
    ids = [first + k for k in range(len(FACES))]
    return {"ids": ids, "half_m": half_m, "side_m": round(SHARE * 2.0 * half_m, 7)}


def _print(id: int, quarters: int) -> bytes:
    """A face of a cube as a PNG: a marker with white around it."""
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, DICTIONARY))
    side = (dictionary.markerSize + 2) * CELL_PX
    rim = round(0.5 * side * (1.0 / SHARE - 1.0))
    black = cv2.aruco.generateImageMarker(dictionary, id, side)
    face = np.pad(black, rim, constant_values=255)
    colours = np.stack([np.rot90(face, quarters)] * 3, axis=-1)
    return cv2.imencode(".png", colours)[1].tobytes()


def _axes() -> np.ndarray:
    """The camera's axes x (right), y (up) and z (backwards), as columns `(3, 3)`."""
    z = np.subtract(PLACE, LOOKS_AT)
    z /= np.linalg.norm(z)
    x = np.cross((0.0, 0.0, 1.0), z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _place(robot: Robot) -> tuple[float, ...]:
    middle = (*(0.5 * sum(robot.workspace[axis]) for axis in "xy"), 0.0)
    return tuple(m + away for m, away in zip(middle, PLACE, strict=True))


def _camera(robot: Robot) -> Element:
    axes = " ".join(f"{number:.9g}" for number in _axes()[:, :2].T.ravel())
    place = " ".join(f"{number:.9g}" for number in _place(robot))
    return Element("camera", name=CAMERA, pos=place, xyaxes=axes, fovy=f"{FOVY_DEG}")
