"""Pick up a cube and hold it at a goal in the air."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Terms
from embodied.types import Carry

from .arm import ARM, GOAL
from .cube import CUBE, CubeTask
from .vectors import clamp, near, norm

Array = Any

AT_GOAL_M = 0.03
REACHED_M, GRASPED, LIFTED_M = 0.04, 0.85, 0.03
"""What counts as at the cube, as a share of the fingers' way, and as off the table."""


class PickCube(CubeTask):
    """Lift the cube to a goal 10 to 25 cm above the table and hold it within 3 cm.

    Terms in [0, 1]: `reach` the tool at the cube, `grasp` the fingers around it and closing,
    `lift` its height while grasped, `goal` its nearness to the goal while lifted, `hold` there.
    """

    name = "pick_cube"
    max_steps = 150
    instructions = (
        "pick up the red cube and hold it at the goal",
        "grasp the red cube, lift it and bring it to the green ball",
        "take the red block off the table and keep it at the marked point in the air",
    )
    stages = ("reach the cube", "grasp it", "lift it", "bring it to the goal", "hold it there")
    movable, sliding = ("cube",), ("blue_cube",)
    quantities = (*ARM, *CUBE, *GOAL)
    weights = {
        "reach": 0.5,
        "grasp": 1.0,
        "lift": 1.0,
        "goal": 3.0,
        "hold": 2.0,
        "action_rate": -0.1,
        "joint_velocity": -0.1,
    }
    flaws = (
        Flaw("slow", "slow"),
        Flaw("hesitates", "slow"),
        Flaw("retries", "slow"),
        Flaw("stops_short", "fails"),
        Flaw("near_miss", "fails"),
        Flaw("drops", "fails"),
        Flaw("wrong_object", "fails"),
        Flaw("undoes", "fails"),
        Flaw("wrong_way", "fails"),
    )

    def bind(self, sim: Sim) -> None:
        super().bind(sim)
        self._blue = [sim.joint(f"blue_cube_{axis}")[0].start for axis in "xyz"]

    def goal(self, xp: Any, unit: Array, poses: dict[str, Array]) -> Array:
        return xp.stack(self.spot(unit), axis=1)

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        away, height, far, closed = self._state(sim, memory)
        around = near(xp, xp.maximum(away - 0.012, self._zero), 0.025)
        grasp = around * closed
        lift = grasp * clamp(xp, height / 0.05, self._zero, self._one)
        there = (far < AT_GOAL_M) & (height > LIFTED_M)
        memory = self.hold(xp, memory, there)
        costs, memory = self.costs(sim, action, memory)
        terms = {
            "reach": 0.5 * (near(xp, away, 0.3) + near(xp, away, 0.06)),
            "grasp": grasp,
            "lift": lift,
            "goal": 0.5 * lift * (near(xp, far, 0.3) + near(xp, far, 0.06)),
            "hold": xp.astype(there, far.dtype),
            **costs,
        }
        grasped = (away < REACHED_M) & (closed > GRASPED)
        passed = [away < REACHED_M, grasped, height > LIFTED_M, there]
        return terms, self.advance(xp, memory, passed)

    def _state(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array, Array]:
        """The tool's distance from the cube, its height and distance from the goal, the grip."""
        xp, cube = sim.xp, memory["track_last"][:, :3]
        away, far = norm(xp, cube - memory["tool"]), norm(xp, memory["goal"] - cube)
        return away, cube[:, 2] - memory["half"], far, self.closed(sim, 2.0 * memory["half"])

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        away, height, far, closed = self._state(sim, memory)
        return [
            1.0 - (away - REACHED_M) / 0.5,
            0.5 * (1.0 - away / REACHED_M) + 0.5 * closed / GRASPED,
            height / LIFTED_M,
            1.0 - (far - AT_GOAL_M) / 0.5,
            self.held_share(sim.xp, memory),
        ]

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp = sim.xp
        pose, half, best = sim.qpos[:, self._cube], memory["half"], memory["best"]
        aim = self._aim(xp, memory["goal"], half, flaw)
        if flaw == "wrong_object":
            pose = self._decoy(sim, memory)
            half = memory["poses"][:, 1, 2]
        height = pose[:, 2] - half
        undone = (best == len(self.stages) - 1) | (memory["setbacks"] > 0)
        if flaw == "undoes":
            down = xp.concat([pose[:, :2], half[:, None]], axis=1)
            aim = xp.where(undone[:, None], down, aim)
        move, turn, grip, gripped = self.fetch(sim, memory, pose, half, aim)
        if flaw in ("drops", "retries"):
            falls = (height > 0.01) & ~self.pressed(sim, memory, half)
            falls = falls | (gripped & (height > (0.05 if flaw == "drops" else 0.08)))
            if flaw == "retries":
                falls = falls & (memory["setbacks"] == 0)
            grip = xp.where(falls, self._step[-1], grip)
        if flaw == "undoes":
            down = undone & (height < 0.003)
            free = self.wide(sim) > 2.0 * half + 0.015
            move = xp.where(down[:, None], self._rise(xp, memory, free), move)
            grip = xp.where(down, self._step[-1], grip)
        return self.act(sim, memory, move, turn, grip, self.pace(xp, draw, flaw))

    def _decoy(self, sim: Sim, memory: Carry) -> Array:
        """The pose of the blue cube, `(N, 7)`: it slides along its own axes."""
        xp, start = sim.xp, memory["poses"][:, 1, :]
        x, y, z = (sim.qpos[:, i] for i in self._blue)
        w, v = start[:, 3], start[:, 6]
        cos, sin = w * w - v * v, 2.0 * w * v
        moved = xp.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)
        return xp.concat([start[:, :3] + moved, start[:, 3:]], axis=1)

    def _rise(self, xp: Any, memory: Carry, free: Array) -> Array:
        """A move `(N, 3)` straight up to 15 cm once the fingers are `free` `(N,)` bool."""
        up = xp.where(free, 0.15 - memory["tool"][:, 2], self._zero)
        return xp.stack([0.0 * up, 0.0 * up, up], axis=1)

    def _aim(self, xp: Any, goal: Array, half: Array, flaw: str | None) -> Array:
        """Where the expert carries the cube."""
        x, y, z = (goal[:, i] for i in range(3))
        side = xp.where(y > 0.0, -self._one, self._one)
        if flaw == "stops_short":
            z = 0.3 * z + 0.7 * half
        if flaw == "near_miss":
            y = y + 0.05 * side
        if flaw == "wrong_way":
            y = y + 0.2 * side
        return xp.stack([x, y, z], axis=1)
