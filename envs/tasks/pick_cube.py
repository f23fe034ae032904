"""Pick up a cube and hold it at a goal in the air."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Terms
from embodied.types import Carry

from .arm import OPENING_STEP_M
from .cube import CubeTask, in_hand, nearest_turn
from .vectors import clamp, near, norm

Array = Any

AT_GOAL_M = 0.03


class PickCube(CubeTask):
    """Lift the cube to a goal 10 to 25 cm above the table and hold it within 3 cm.

    Terms in [0, 1]: `reach` the tool at the cube, `grasp` the fingers around it and closing,
    `lift` its height while grasped, `goal` its nearness to the goal while lifted, `hold` there.
    """

    name = "pick_cube"
    max_steps = 150
    instructions = (
        "pick up the cube and hold it at the goal",
        "grasp the red cube, lift it and bring it to the target",
        "take the block off the table and keep it at the marked point in the air",
    )
    stages = ("reach the cube", "grasp it", "lift it", "bring it to the goal", "hold it there")
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
        Flaw("stops_short", "fails"),
        Flaw("near_miss", "fails"),
        Flaw("drops", "fails"),
        Flaw("wrong_way", "fails"),
    )

    def goal(self, xp: Any, unit: Array, pose: Array) -> Array:
        return xp.stack(self.spot(unit), axis=1)

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        cube = memory["track_last"][:, :3]
        away = norm(xp, cube - memory["tool"])
        height = cube[:, 2] - memory["half"]
        far = norm(xp, memory["goal"] - cube)
        closed = self._closed(sim, memory)
        around = near(xp, xp.maximum(away - 0.012, self._zero), 0.025)
        grasp = around * closed
        lift = grasp * clamp(xp, height / 0.05, self._zero, self._one)
        there = (far < AT_GOAL_M) & (height > 0.03)
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
        reached = away < 0.04
        grasped = reached & (closed > 0.85)
        lifted = grasped & (height > 0.03)
        passed = [reached, grasped, lifted, lifted & there]
        stage = xp.sum(xp.astype(xp.stack(passed), xp.int64), axis=0)
        return terms, {**memory, "stage": stage}

    def _closed(self, sim: Sim, memory: Carry) -> Array:
        """How far the fingers have closed on the cube, in [0, 1]."""
        fingers = sim.qpos[:, self._fingers]
        gap = self._widest - fingers[:, 0] - fingers[:, 1]
        share = gap / (self._widest - 2.0 * memory["half"])
        return clamp(sim.xp, share, self._zero, self._one)

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp = sim.xp
        pose, tool, hand = sim.qpos[:, self._cube], memory["tool"], memory["hand"]
        cube, goal, fingers = pose[:, :3], memory["goal"], sim.qpos[:, self._fingers]
        wide = fingers[:, 0] + fingers[:, 1]
        offset = cube - tool
        turn = nearest_turn(xp, hand, pose[:, 3:])
        aside = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        aligned = (aside < 0.01) & (xp.abs(turn) < 0.08)
        inside = (aside < 0.012) & (xp.abs(offset[:, 2]) < 0.01)
        pressed = (memory["opening"] < wide - 0.01) & (wide < 2.0 * memory["half"] + 0.01)
        gripped = pressed & (norm(xp, in_hand(xp, hand, offset)) < 0.03)
        height = cube[:, 2] - memory["half"]
        lifted = gripped & (height > 0.05)
        aim = self._aim(xp, goal, memory["half"], flaw)
        above = 0.08 * xp.where(aligned, self._zero, self._one)
        approach = offset + xp.stack([0.0 * above, 0.0 * above, above], axis=1)
        move = xp.where(gripped[:, None], aim - cube, approach)
        turn = xp.where(gripped, self._zero, turn)
        grip = OPENING_STEP_M * xp.where(inside | gripped, -self._one, self._one)
        if flaw == "drops":
            grip = xp.where(lifted | ((height > 0.01) & ~pressed), self._step[-1], grip)
        return self.act(sim, memory, move, turn, grip, self.pace(xp, draw, flaw))

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
