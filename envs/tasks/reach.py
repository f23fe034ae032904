"""Bring the tool to a point in space and keep it there."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Terms
from embodied.types import Carry, Obs

from .arm import ARM, GOAL, ArmTask
from .vectors import near, norm, spread

Array = Any

AT_GOAL_M, NEAR_M = 0.02, 0.1
SLOW_M_S = 0.1


class Reach(ArmTask):
    """Bring the tool within 2 cm of a random point and hold it there, slower than 10 cm/s.

    Terms in [0, 1]: `reach` the tool's nearness to the goal, `hold` there and slow.
    """

    name = "reach"
    max_steps = 100
    slow_pace = 0.2
    instructions = (
        "bring the gripper to the goal and hold it there",
        "move the empty hand to the green ball",
        "touch the green ball with the fingertips and stay",
    )
    stages = ("come near", "arrive", "hold still")
    keypoints = ("tool", "goal")
    quantities = (*ARM, *GOAL)
    weights = {"reach": 2.0, "hold": 1.0, "action_rate": -0.1, "joint_velocity": -0.1}
    flaws = (
        Flaw("slow", "slow"),
        Flaw("hesitates", "slow"),
        Flaw("stops_short", "fails"),
        Flaw("near_miss", "fails"),
        Flaw("undoes", "fails"),
        Flaw("wrong_way", "fails"),
    )

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        x, y, _ = self.spot(unit)
        low, high = self.robot.workspace["z"]
        z = spread(unit[:, 2], low - 0.05, high + 0.15)
        return {}, {"goal": sim.xp.stack([x, y, z], axis=1)}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        last = memory["tool"]
        memory = self.sense(sim, action, memory)
        far = norm(xp, memory["goal"] - memory["tool"])
        speed = self.rate_hz * norm(xp, memory["tool"] - last)
        arrived = far < AT_GOAL_M
        still = arrived & (speed < SLOW_M_S)
        memory = self.hold(xp, memory, still)
        costs, memory = self.costs(sim, action, memory)
        terms = {
            "reach": 0.5 * (near(xp, far, 0.3) + near(xp, far, 0.05)),
            "hold": xp.astype(still, far.dtype),
            **costs,
        }
        return terms, self.advance(xp, memory, [far < NEAR_M, arrived])

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        far = norm(sim.xp, memory["goal"] - memory["tool"])
        come = 1.0 - (far - NEAR_M) / 0.4
        return [come, (NEAR_M - far) / (NEAR_M - AT_GOAL_M), self.held_share(sim.xp, memory)]

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp = sim.xp
        parts = [*self.posture(sim, memory), memory["goal"] - memory["tool"]]
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        return sim.xp.stack([memory["tool"], memory["goal"]], axis=1)

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp = sim.xp
        goal, tool = memory["goal"], memory["tool"]
        side = xp.where(goal[:, 1] > 0.0, -self._one, self._one)
        if flaw == "stops_short":
            goal = goal - 0.06 * self._down
        if flaw == "near_miss":
            goal = xp.stack([goal[:, 0], goal[:, 1] + 0.04 * side, goal[:, 2]], axis=1)
        if flaw == "undoes":  # arrives, and leaves before it counts
            undone = (memory["best"] == len(self.stages) - 1) | (memory["setbacks"] > 0)
            goal = xp.where(undone[:, None], goal - 0.2 * self._down, goal)
        if flaw == "wrong_way":
            goal = xp.stack([goal[:, 0], goal[:, 1] + 0.25 * side, goal[:, 2]], axis=1)
        idle = xp.zeros_like(tool[:, 0])
        return self.act(sim, memory, goal - tool, idle, idle, self.pace(xp, draw, flaw))
