"""Pull a drawer open and keep it open."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Terms
from embodied.types import Carry, Obs

from .cube import in_hand, nearest_turn
from .drawer import AJAR_M, BAR_M, OPEN_M, DrawerTask
from .scene import OBJECTS
from .vectors import clamp, near, norm

Array = Any

REACHED_M = 0.035


class OpenDrawer(DrawerTask):
    """Pull the drawer out by 10 of its 13 cm and keep it there.

    Terms in [0, 1]: `reach` the tool at the handle, `grasp` the fingers around it and closing,
    `open` how far the drawer is out, `hold` it open.
    """

    name = "open_drawer"
    max_steps = 150
    slow_pace = 0.5
    instructions = (
        "open the drawer",
        "grasp the handle of the drawer and pull it out",
        "slide the drawer of the cabinet open and keep it open",
    )
    stages = ("reach the handle", "grasp it", "pull the drawer", "hold it open")
    keypoints = ("tool", "handle", "goal")
    weights = {
        "reach": 0.5,
        "grasp": 1.0,
        "open": 3.0,
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
        Flaw("wrong_object", "fails"),
        Flaw("undoes", "fails"),
    )

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        memory = self.place_drawer(sim, draw, unit, qpos, poses["cabinet"])
        return {}, {**memory, "goal": memory["shut"] + OPEN_M * memory["ahead"]}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        out, away, closed = self._state(sim, memory)
        around = near(xp, xp.maximum(away - 0.012, self._zero), 0.025)
        there = out >= OPEN_M
        memory = self.hold(xp, memory, there)
        costs, memory = self.costs(sim, action, memory)
        terms = {
            "reach": 0.5 * (near(xp, away, 0.3) + near(xp, away, 0.06)),
            "grasp": around * closed,
            "open": clamp(xp, out / OPEN_M, self._zero, self._one),
            "hold": xp.astype(there, out.dtype),
            **costs,
        }
        pulled = out > 2.0 * AJAR_M
        reached = away < REACHED_M
        grasped = reached & (closed > 0.85)
        passed = [reached | pulled, grasped | pulled, there]
        return terms, self.advance(xp, memory, passed)

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        out, away, closed = self._state(sim, memory)
        come = 1.0 - (away - REACHED_M) / 0.5
        return [come, closed, out / OPEN_M, self.held_share(sim.xp, memory)]

    def _state(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array]:
        """How far the drawer is out, the tool from its handle, and how closed the fingers are."""
        away = norm(sim.xp, self.handle(sim, memory) - memory["tool"])
        return self.out(sim), away, self.closed(sim, BAR_M * self._one)

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp, seen = sim.xp, memory["handle_tracked"]
        offset = seen[:, :3] - memory["tool"]
        parts = [
            *self.posture(sim, memory),
            offset,
            in_hand(xp, memory["hand"], offset),
            seen[:, 6:],
            memory["goal"] - seen[:, :3],
        ]
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        places = [memory["tool"], self.handle(sim, memory), memory["goal"]]
        return sim.xp.stack(places, axis=1)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        return {
            **super().readout(sim, memory),
            "drawer_out": self.out(sim),
            "handle": self.handle(sim, memory),
            "opening": self.wide(sim),
        }

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp, widest = sim.xp, memory["widest"]
        pace = self.pace(xp, draw, flaw)
        to = xp.full_like(widest, OPEN_M + 0.015)
        if flaw == "stops_short":
            to = 0.5 * to
        if flaw == "undoes":
            to = xp.where(widest > OPEN_M, self._zero, to)
        if flaw == "wrong_object":
            return self.act(sim, memory, *self._grasp_cube(sim, memory), pace)
        if flaw == "near_miss":
            return self.act(sim, memory, *self._miss(sim, memory), pace)
        again = (memory["setbacks"] == 0) & (widest > 0.6 * OPEN_M)
        if flaw == "retries":
            to = xp.where(again, self._zero, to)
        move, turn, grip = self.slide(sim, memory, to)
        if flaw == "retries":
            leave = again & (self.out(sim) < AJAR_M)
            move = xp.where(leave[:, None], 0.1 * self._up, move)
            grip = xp.where(leave, self._step[-1], grip)
        return self.act(sim, memory, move, turn, grip, pace)

    def _grasp_cube(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array]:
        """Close the fingers on the red cube, and stay."""
        xp, tool = sim.xp, memory["tool"]
        cube = memory["poses"][:, OBJECTS.index("cube"), :]
        offset, turn = cube[:, :3] - tool, nearest_turn(xp, memory["hand"], cube[:, 3:])
        level = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        move = self.travel(xp, tool, cube[:, :3], (level < 0.01) & (xp.abs(turn) < 0.1))
        width = xp.where(norm(xp, offset) < 0.015, self._zero, self._widest)
        return move, turn, self.spread_to(xp, memory, width)

    def _miss(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array]:
        """Close the fingers on air in front of the handle, and pull."""
        xp = sim.xp
        move, turn, grip = self.slide(sim, memory, self._zero, aside=0.085)
        shut = self.wide(sim) < BAR_M
        end = memory["shut"] + (OPEN_M + 0.085) * memory["ahead"]
        move = xp.where(shut[:, None], end - memory["tool"], move)
        return move, turn, xp.where(shut, -self._step[-1], grip)
