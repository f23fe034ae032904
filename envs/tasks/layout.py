"""Where the objects of an arm's scene stand: the same in every task, drawn for every episode."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from embodied.sim import Sim

from .robot import Robot
from .scene import CUBES, HALF_M, OBJECTS, peg_height_m
from .vectors import spread

Array = Any

APART_M = 0.09
"""How far the middles of the two cubes are apart, at least."""
CANDIDATES = 8
COLUMNS = 15 + 2 * CANDIDATES
"""Random numbers of a layout."""


@dataclass(frozen=True)
class Place:
    """Where an object stands, from the middle of the workspace: its mean, how far it strays."""

    x: float
    y: float
    stray_x: float
    stray_y: float
    turn_rad: float


PLACES = {
    "cabinet": Place(-0.10, -0.445, 0.02, 0.01, 0.06),
    "stand": Place(-0.08, 0.34, 0.015, 0.015, 0.2),
    "socket": Place(0.08, 0.33, 0.015, 0.015, 0.2),
}


def layout(xp: Any, robot: Robot, unit: Array) -> dict[str, Array]:
    """Where each of `OBJECTS` stands at the start: poses `(n, 7)` by name.

    `unit` `(n, COLUMNS)` are random numbers in (0, 1). A cube's height tells its size.
    """
    (x0, x1), (y0, y1) = (robot.workspace[axis] for axis in "xy")
    x, y = spread(unit[:, 0], x0, x1), spread(unit[:, 1], y0, y1)
    xs = spread(unit[:, 15 : 15 + CANDIDATES], x0, x1)
    ys = spread(unit[:, 15 + CANDIDATES :], y0, y1)
    away = xp.sqrt((xs - x[:, None]) ** 2 + (ys - y[:, None]) ** 2)
    chosen = first(xp, away, APART_M)
    blue_x = xp.sum(xp.where(chosen, xs, 0.0), axis=1)
    blue_y = xp.sum(xp.where(chosen, ys, 0.0), axis=1)
    poses = {
        "cube": upright(xp, x, y, spread(unit[:, 3], *HALF_M), _turn(unit[:, 2], math.pi)),
        "blue_cube": upright(
            xp, blue_x, blue_y, spread(unit[:, 5], *HALF_M), _turn(unit[:, 4], math.pi)
        ),
    }
    middle = 0.5 * (x0 + x1), 0.5 * (y0 + y1)
    for k, (name, place) in enumerate(PLACES.items()):
        column = 6 + 3 * k
        px = middle[0] + place.x + _turn(unit[:, column], place.stray_x)
        py = middle[1] + place.y + _turn(unit[:, column + 1], place.stray_y)
        yaw = _turn(unit[:, column + 2], place.turn_rad)
        poses[name] = upright(xp, px, py, xp.zeros_like(px), yaw)
    stand = poses["stand"]
    height = xp.full_like(stand[:, :1], peg_height_m())
    poses["peg"] = xp.concat([stand[:, :2], height, stand[:, 3:]], axis=1)
    return poses


def first(xp: Any, distance: Array, enough: float) -> Array:
    """Which of the candidates `(n, K)` is the first that is far enough, else the farthest."""
    best = xp.argmax(xp.minimum(distance, xp.full_like(distance, enough)), axis=1)
    return xp.arange(distance.shape[1], device=device(distance))[None, :] == best[:, None]


def upright(xp: Any, x: Array, y: Array, z: Array, yaw: Array) -> Array:
    """Poses `(n, 7)` of things that stand upright."""
    flat = xp.zeros_like(z)
    return xp.stack([x, y, z, xp.cos(0.5 * yaw), flat, flat, xp.sin(0.5 * yaw)], axis=1)


def _turn(unit: Array, most: float) -> Array:
    return spread(unit, -most, most)


class Placement:
    """Where the poses of a layout go in one model: into `qpos`, or to mocap bodies."""

    def __init__(
        self,
        sim: Sim,
        const: Callable[[Any], Array],
        movable: tuple[str, ...],
        sliding: tuple[str, ...],
    ) -> None:
        mocap, fixed = sim.parameter("body_mocapid"), {}
        self.free: dict[str, slice] = {}
        for name in (*OBJECTS, "goal"):
            if name == "peg" and name not in movable:
                continue  # it is a part of its stand
            body = sim.body(f"{name}_base" if name in sliding else name)
            if mocap[body] < 0:
                self.free[name] = sim.joint(name)[0]
            else:
                fixed[int(mocap[body])] = name
        self._fixed = [fixed[i] for i in range(len(fixed))]
        size = sim.parameter("geom_size")
        cubes = np.zeros((2, *size.shape))
        for mask, name in zip(cubes, CUBES, strict=True):
            mask[sim.geom(name)] = 1.0
        self._other_sizes = const((size * (1.0 - cubes.sum(axis=0)))[None])
        self._cube_sizes = [const(mask[None]) for mask in cubes]
        self._upright = const([[1.0, 0.0, 0.0, 0.0]])

    def mocap(self, xp: Any, poses: dict[str, Array], goal: Array) -> dict[str, Array]:
        """State rows of all that has no joint; `goal` `(n, 3)` is where the ball is."""
        upright = xp.zeros_like(poses["cube"][:, 3:]) + self._upright
        poses = {**poses, "goal": xp.concat([goal, upright], axis=1)}
        fixed = xp.stack([poses[name] for name in self._fixed], axis=1)
        return {"mocap_pos": fixed[:, :, :3], "mocap_quat": fixed[:, :, 3:]}

    def sizes(self, poses: dict[str, Array]) -> Array:
        """The sizes of all shapes, `(n, G, 3)`: cubes are as large as they are high."""
        sizes = self._other_sizes
        for mask, name in zip(self._cube_sizes, CUBES, strict=True):
            sizes = sizes + mask * poses[name][:, 2][:, None, None]
        return sizes
