"""Push a cube across the table to a goal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Terms
from embodied.types import Carry

from .arm import ARM, GOAL
from .cube import CUBE, CubeTask
from .layout import first
from .vectors import clamp, near, norm, spread

Array = Any

AT_GOAL_M = 0.03
LIFTED_M = 0.015
BEHIND_M = 0.09
CLEAR_M = 0.1
"""How far a push keeps from the blue cube, where it can."""


class PushCube(CubeTask):
    """Push the cube 8 to 18 cm, to within 3 cm of a goal on the table, without lifting it.

    Terms in [0, 1]: `reach` the tool at the cube, `behind` it as seen from the goal, `push` the
    cube's nearness to the goal, `hold` there on the table.
    """

    name = "push_cube"
    max_steps = 150
    instructions = (
        "push the red cube to the goal",
        "slide the red cube across the table to the green ball without lifting it",
        "shove the red block to the marked place on the table",
    )
    stages = ("get behind the cube", "push it", "keep it at the goal")
    quantities = (*ARM, *CUBE, *GOAL)
    weights = {
        "reach": 0.5,
        "behind": 0.5,
        "push": 3.0,
        "hold": 2.0,
        "action_rate": -0.1,
        "joint_velocity": -0.1,
    }
    flaws = (
        Flaw("slow", "slow"),
        Flaw("hesitates", "slow"),
        Flaw("stops_short", "fails"),
        Flaw("near_miss", "fails"),
        Flaw("undoes", "fails"),
        Flaw("wrong_way", "fails"),
    )

    def bind(self, sim: Sim) -> None:
        super().bind(sim)
        self._eighths = self._const(np.arange(8)[None] / 8.0)

    def goal(self, xp: Any, unit: Array, poses: dict[str, Array]) -> Array:
        pose, blue = poses["cube"], poses["blue_cube"]
        turns = xp.asarray(unit[:, :1], copy=True) + self._eighths
        angle = 2.0 * math.pi * turns - math.pi  # of each candidate, (n, 8)
        far = spread(unit[:, 1:2], 0.08, 0.18)
        parts = []
        for i, (key, step) in enumerate((("x", xp.cos(angle)), ("y", xp.sin(angle)))):
            low, high = self.robot.workspace[key]
            start = pose[:, i : i + 1]
            there = start + far * step
            outside = (there < low) | (there > high)  # then to the side with more room
            inward = xp.where(start > 0.5 * (low + high), -self._one, self._one)
            there = xp.where(outside, start + inward * xp.abs(far * step), there)
            parts.append(clamp(xp, there, low * self._one, high * self._one))
        clear = _clearance(xp, pose, parts, blue)
        chosen = first(xp, clear, CLEAR_M)
        x, y = (xp.sum(xp.where(chosen, part, self._zero), axis=1) for part in parts)
        return xp.stack([x, y, pose[:, 2]], axis=1)

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        cube = memory["track_last"][:, :3]
        far, away, along = self._state(sim, memory)
        on_table = cube[:, 2] - memory["half"] < LIFTED_M
        there = (far < AT_GOAL_M) & on_table
        memory = self.hold(xp, memory, there)
        costs, memory = self.costs(sim, action, memory)
        close = near(xp, xp.maximum(away - 0.04, self._zero), 0.2)
        terms = {
            "reach": close,
            "behind": close * xp.where(there, self._one, 0.5 + 0.5 * along),
            "push": 0.5 * (near(xp, far, 0.2) + near(xp, far, 0.05)),
            "hold": xp.astype(there, far.dtype),
            **costs,
        }
        ready = there | ((away < BEHIND_M) & (along > 0.7))
        begun = far < 0.7 * norm(xp, memory["goal"] - memory["poses"][:, 0, :3])
        return terms, self.advance(xp, memory, [ready | begun, there])

    def _state(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array]:
        """How far the cube has to go, how far the tool is from it, the cosine of its bearing."""
        xp, cube = sim.xp, memory["track_last"][:, :3]
        ahead, offset = memory["goal"] - cube, cube - memory["tool"]
        far, away = norm(xp, ahead), norm(xp, offset)
        flat = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2) + 1e-3
        along = (offset[:, 0] * ahead[:, 0] + offset[:, 1] * ahead[:, 1]) / (flat * (far + 1e-3))
        return far, away, along

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        far, away, along = self._state(sim, memory)
        come = 1.0 - (away - BEHIND_M) / 0.5
        go = 1.0 - (far - AT_GOAL_M) / 0.2
        return [0.7 * come + 0.15 * (1.0 + along), go, self.held_share(sim.xp, memory)]

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp = sim.xp
        cube, tool, hand = sim.qpos[:, self._cube][:, :3], memory["tool"], memory["hand"]
        half = memory["half"]
        ahead = self._aim(xp, memory, cube, flaw) - cube
        far = xp.sqrt(ahead[:, 0] ** 2 + ahead[:, 1] ** 2) + 1e-6
        cx, cy = ahead[:, 0] / far, ahead[:, 1] / far
        ox, oy = tool[:, 0] - cube[:, 0], tool[:, 1] - cube[:, 1]
        along, aside = ox * cx + oy * cy, oy * cx - ox * cy
        # The hand's x axis along the push, either way round: then both fingertips push.
        angle = xp.atan2(cy, cx) - xp.atan2(hand[:, 1, 0], hand[:, 0, 0])
        turn = 0.5 * xp.atan2(xp.sin(2.0 * angle), xp.cos(2.0 * angle))
        start = -(1.45 * half + 0.025)
        squared = xp.abs(turn) < 0.3
        low = tool[:, 2] < half + 0.02
        behind = low & (along < -half) & (xp.abs(aside) < 0.02) & squared
        over = squared & (xp.abs(along - start) < 0.015) & (xp.abs(aside) < 0.01)
        done = far < 0.008
        # Pushing, slower as the goal nears, for the cube slides on; before, over to the start.
        pushing = xp.minimum(0.4 * far + 0.004, 0.024 * self._one)
        forward = xp.where(behind, pushing, start - along)
        forward = xp.where(done, -0.02 * self._one, forward)
        free = behind | (tool[:, 2] > 0.085) | over | (along < start + 0.01)
        forward = xp.where(free | done, forward, self._zero)
        across = xp.where(free, -aside, self._zero)
        height = xp.where(behind | over | done, xp.maximum(half, 0.018 * self._one), 0.12)
        move = xp.stack(
            [forward * cx - across * cy, forward * cy + across * cx, height - tool[:, 2]], axis=1
        )
        turn = xp.where(done, self._zero, turn)
        grip = clamp(xp, 0.02 - memory["opening"], -self._step[-1], self._step[-1])
        return self.act(sim, memory, move, turn, grip, self.pace(xp, draw, flaw))

    def _aim(self, xp: Any, memory: Carry, cube: Array, flaw: str | None) -> Array:
        """Where the expert pushes the cube."""
        goal = memory["goal"]
        if flaw == "undoes":  # pushes it in, and out on the other side
            way = goal - memory["poses"][:, 0, :3]
            past = 0.12 * way / norm(xp, way)[:, None]
            return goal + past
        ahead = goal - cube
        away = ahead / (norm(xp, ahead) + 1e-6)[:, None]
        if flaw == "stops_short":
            return goal - 0.07 * away
        if flaw == "near_miss":
            aside = 0.065 * xp.where(goal[:, 1] > 0.0, -self._one, self._one)
            return xp.stack([goal[:, 0], goal[:, 1] + aside, goal[:, 2]], axis=1)
        if flaw == "wrong_way":
            return cube - 0.1 * away
        return goal


def _clearance(xp: Any, pose: Array, goal: list[Array], other: Array) -> Array:
    """How near a push from `pose` `(n, 7)` comes to another cube, for goals x and y `(n, K)`.

    The way is that of the cube and of the hand, which starts 7 cm behind it.
    """
    x, y = goal[0] - pose[:, :1], goal[1] - pose[:, 1:2]
    far = xp.sqrt(x * x + y * y) + 1e-6
    x, y = x / far, y / far
    ox, oy = other[:, :1] - pose[:, :1], other[:, 1:2] - pose[:, 1:2]
    along = xp.minimum(xp.maximum(ox * x + oy * y, xp.full_like(far, -0.07)), far)
    return xp.sqrt((ox - along * x) ** 2 + (oy - along * y) ** 2)
