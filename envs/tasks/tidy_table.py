"""Put the cube away: open the drawer, put it in, close the drawer."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Quantity, Terms
from embodied.types import Carry, Obs

from .arm import ARM
from .cube import CUBE, CubeTask, in_hand, nearest_turn
from .drawer import AJAR_M, CRUISE_M, DRAWER, HANDLE_Y_M, HANDLE_Z_M, OPEN_M, DrawerTask, turn_to
from .scene import CUBES
from .vectors import clamp, near, norm

Array = Any
Act = tuple[Array, Array, Array]
"""A move, a turn and the fingers' step, for `ArmTask.act`."""

FLOOR_M, ROOM_X_M, ROOM_Y_M = 0.012, 0.065, 0.056
"""Height of the drawer's floor over the table, and half its width and length inside."""
CLEAR_M = 0.05
"""How far from the handle the tool must be at the end."""
REACHED_M = 0.035
RELEASE_M, MISS_M = 0.075, 0.15
"""How high over the table the expert's tool lets go; how far beside the drawer in a near miss."""
INSIDE = (
    Quantity("goal.position", "m", "where the cube's middle is when it lies in the shut drawer"),
)


class TidyTable(DrawerTask, CubeTask):
    """Open the drawer, lay the red cube in it, close it, and take the hand away.

    What is done is remembered, for a tidied drawer is shut at the start and at the end: the cube
    counts as put in only after the drawer has been open. Terms in [0, 1], all of them 1 at the
    end: `handle` the tool at the handle while the drawer has to move, `open`, `reach` the cube,
    `grasp` it, `carry` it over the drawer, `inside`, `close`, `hold` it so.

    Memory: `lifted` whether the cube has been carried since it last lay on the table, and `drops`
    how often it fell.
    """

    name = "tidy_table"
    max_steps = 400
    slow_pace = 0.5
    instructions = (
        "open the drawer, put the red cube in and close the drawer",
        "tidy the table: the red cube belongs in the drawer, and the drawer shut",
        "put the red block away in the drawer of the cabinet and close it",
    )
    stages = (
        "open the drawer",
        "grasp the cube",
        "bring it over the drawer",
        "put it in",
        "close the drawer",
        "let go",
    )
    keypoints = ("tool", "cube", "handle", "goal")
    movable, tracked = ("cube", "blue_cube", "cabinet"), ("cube", "drawer")
    quantities = (*ARM, *CUBE, *DRAWER, *INSIDE)
    weights = {
        "handle": 0.5,
        "open": 1.0,
        "reach": 0.5,
        "grasp": 1.0,
        "carry": 2.0,
        "inside": 2.0,
        "close": 2.0,
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

    def memory(self, sim: Sim) -> Carry:
        xp = sim.xp
        drops = xp.zeros(sim.num_worlds, dtype=xp.int64, device=sim.device)
        return {**super().memory(sim), "lifted": drops > 0, "drops": drops}

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        xp = sim.xp
        low, high = self.robot.workspace["y"]
        # Both cubes shift out of the way of the open drawer, the red one by up to 0.3 of the room.
        shift = 0.3 * (high - poses["cube"][:, 1])
        for name in CUBES:
            pose, where = poses[name], self._layout.free[name]
            y = clamp(xp, pose[:, 1] + shift, self._const(low), self._const(high + 0.02))
            poses[name] = xp.concat([pose[:, :1], y[:, None], pose[:, 2:]], axis=1)
            qpos[:, where] = poses[name]
        drawer = self.place_drawer(sim, draw, unit[:, 8:12], qpos, poses["cabinet"])
        parameters, memory = super().place(sim, draw, unit, qpos, poses)
        goal = drawer["shut"] - HANDLE_Y_M * drawer["ahead"]
        goal = goal + (FLOOR_M - HANDLE_Z_M + memory["half"])[:, None] * self._up
        return parameters, {**memory, **drawer, "goal": goal}

    def goal(self, xp: Any, unit: Array, poses: dict[str, Array]) -> Array:
        return poses["cabinet"][:, :3]  # see `place`

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        cube, out = memory["track_last"][:, :3], self.out(sim)
        over, inside = self._in_drawer(sim, memory, cube)
        opened, shut = out >= OPEN_M, out < AJAR_M
        away = norm(xp, cube - memory["tool"])
        aside = norm(xp, self.handle(sim, memory) - memory["tool"])
        closed = self.closed(sim, 2.0 * memory["half"])
        memory = self.hold(xp, memory, inside & shut & (aside > CLEAR_M))
        costs, memory = self.costs(sim, action, memory)
        ready = xp.astype(opened & ~inside, out.dtype)
        put = xp.astype(inside, out.dtype)
        grasp = ready * near(xp, xp.maximum(away - 0.012, self._zero), 0.025) * closed
        high = clamp(xp, (cube[:, 2] - memory["half"]) / 0.05, self._zero, self._one)
        still = (opened & ~inside) | (inside & shut)
        terms = {
            "handle": xp.where(still, self._one, near(xp, aside, 0.2)),
            "open": xp.maximum(put, clamp(xp, out / OPEN_M, self._zero, self._one)),
            "reach": put + ready * near(xp, away, 0.2),
            "grasp": put + grasp,
            "carry": put + grasp * high * near(xp, self._to_go(sim, memory, cube), 0.2),
            "inside": put,
            "close": put * clamp(xp, 1.0 - out / OPEN_M, self._zero, self._one),
            "hold": xp.astype(memory["held"] > 0, out.dtype),
            **costs,
        }
        grasped = (away < REACHED_M) & (closed > 0.85)
        passed = [opened | inside, grasped | over | inside, over | inside, inside, inside & shut]
        return terms, self._count(xp, self.advance(xp, memory, passed), cube, inside)

    def _count(self, xp: Any, memory: Carry, cube: Array, inside: Array) -> Carry:
        """Memory with the falls of the cube counted."""
        height = cube[:, 2] - memory["half"]
        fell = memory["lifted"] & (height < 0.01) & ~inside
        return {
            **memory,
            "lifted": (memory["lifted"] | (height > 0.04)) & ~fell & ~inside,
            "drops": memory["drops"] + xp.astype(fell, xp.int64),
        }

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        xp = sim.xp
        cube, out = memory["track_last"][:, :3], self.out(sim)
        away = norm(xp, cube - memory["tool"])
        aside = norm(xp, self.handle(sim, memory) - memory["tool"])
        height = cube[:, 2] - memory["half"] - FLOOR_M
        return [
            0.4 * clamp(xp, 1.0 - aside / 0.5, self._zero, self._one) + 0.6 * out / OPEN_M,
            1.0 - (away - REACHED_M) / 0.5,
            1.0 - self._to_go(sim, memory, cube) / 0.5,
            1.0 - height / 0.15,
            1.0 - (out - AJAR_M) / OPEN_M,
            self.held_share(xp, memory),
        ]

    def _middle(self, sim: Sim, memory: Carry) -> Array:
        """The middle of the drawer's floor, wherever the drawer is, `(N, 3)`."""
        floor = (FLOOR_M - HANDLE_Z_M) * self._up
        return self.handle(sim, memory) - HANDLE_Y_M * memory["ahead"] + floor

    def _to_go(self, sim: Sim, memory: Array, cube: Array) -> Array:
        """How far a cube is from the middle of the drawer, seen from above, `(N,)`."""
        offset = cube - self._middle(sim, memory)
        return sim.xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)

    def _in_drawer(self, sim: Sim, memory: Carry, cube: Array) -> tuple[Array, Array]:
        """Whether a cube is above or in the drawer, and whether it has been put in and let go."""
        xp, ahead = sim.xp, memory["ahead"]
        offset = cube - self._middle(sim, memory)
        along = offset[:, 0] * ahead[:, 0] + offset[:, 1] * ahead[:, 1]
        across = offset[:, 0] * ahead[:, 1] - offset[:, 1] * ahead[:, 0]
        over = (xp.abs(along) < ROOM_Y_M) & (xp.abs(across) < ROOM_X_M)
        free = self.wide(sim) > 2.0 * memory["half"] + 0.008
        free = free | (norm(xp, cube - memory["tool"]) > REACHED_M)
        low = offset[:, 2] < memory["half"] + 0.02
        return over, over & low & free & (memory["widest"] >= OPEN_M)

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp, seen = sim.xp, memory["handle_tracked"]
        offset = seen[:, :3] - memory["tool"]
        parts = [
            super().observe(sim, memory)["state"],
            xp.astype(offset, xp.float32),
            xp.astype(in_hand(xp, memory["hand"], offset), xp.float32),
            xp.astype(seen[:, 6:], xp.float32),
            xp.astype(seen[:, :3] - memory["goal"], xp.float32),
        ]
        return {"state": xp.concat(parts, axis=1)}

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        cube = sim.qpos[:, self._cube][:, :3]
        places = [memory["tool"], cube, self.handle(sim, memory), memory["goal"]]
        return sim.xp.stack(places, axis=1)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        drawer = {"drawer_out": self.out(sim), "handle": self.handle(sim, memory)}
        return {**super().readout(sim, memory), **drawer}

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp, out = sim.xp, self.out(sim)
        wanted = "blue_cube" if flaw == "wrong_object" else "cube"
        pose = sim.qpos[:, self._layout.free[wanted]]
        cube, spot = pose[:, :3], self._middle(sim, memory)
        over, inside = self._in_drawer(sim, memory, cube)
        if flaw == "near_miss":
            spot = spot + (1.2 * OPEN_M - out)[:, None] * memory["ahead"]
            spot = spot + MISS_M * self._across(xp, memory)
            low = cube[:, 2] < memory["half"] + 0.01
            inside = low & (norm(xp, (spot - cube) * (1.0 - self._up)) < 0.07)
        fetch, carried = self._fetch(sim, memory, pose, spot, flaw)
        to = xp.where(inside, self._zero, 1.2 * OPEN_M)
        finished = inside & (out < AJAR_M)
        if flaw == "stops_short":
            finished = inside
        if flaw == "undoes":
            undone = inside & (memory["best"] == len(self.stages) - 1)
            to, finished = xp.where(undone, 1.2 * OPEN_M, to), finished & ~undone
        slide = self.slide(sim, memory, to)
        rise = (CRUISE_M - memory["tool"][:, 2])[:, None] * self._up
        leave = rise, 0.0 * out, self._step[-1] + 0.0 * out
        fetching = ~inside & ((out >= OPEN_M) | carried)
        act = _choose(xp, finished, leave, _choose(xp, fetching, fetch, slide))
        return self.act(sim, memory, *act, self.pace(xp, draw, flaw))

    def _fetch(
        self, sim: Sim, memory: Carry, pose: Array, spot: Array, flaw: str | None
    ) -> tuple[Act, Array]:
        """Grasp the cube at `pose` `(N, 7)`, carry it over `spot` `(N, 3)` and let go.

        Returns the tool's move, its turn and the fingers' step, and whether the cube is in the
        hand.
        """
        xp, tool = sim.xp, memory["tool"]
        cube, wide = pose[:, :3], self.wide(sim)
        offset, turn = cube - tool, self._turn(xp, memory, pose[:, 3:])
        level = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        there = (level < 0.012) & (xp.abs(offset[:, 2]) < 0.01)
        pressed = (memory["opening"] < wide - 0.01) & (norm(xp, offset) < 0.03)
        to_go = spot - cube
        far = xp.sqrt(to_go[:, 0] ** 2 + to_go[:, 1] ** 2)
        low = tool[:, 2] < RELEASE_M + 0.01
        release = (far < 0.025) & low
        over = tool + to_go * (1.0 - self._up)
        over = xp.concat([over[:, :2], 0.0 * far[:, None] + RELEASE_M], axis=1)
        carry = self.travel(xp, tool, over, far < 0.015)
        grasp = self.travel(xp, tool, cube, (level < 0.01) & (xp.abs(turn) < 0.08))
        if flaw == "retries":
            release = release | ((memory["drops"] < 2) & (tool[:, 2] > 0.11))
        width = xp.where((there | pressed) & ~(pressed & release), self._zero, self._widest)
        move = xp.where(pressed[:, None], carry, grasp)
        turn = xp.where(pressed, self._zero, turn)
        return (move, turn, self.spread_to(xp, memory, width)), pressed

    def _turn(self, xp: Any, memory: Carry, quat: Array) -> Array:
        """The hand's turn to a cube's sides that keeps it clear of the handle: across it."""
        across = self._across(xp, memory)
        crosswise = xp.stack([memory["ahead"], across, across], axis=2)
        turn = turn_to(xp, memory["hand"], across) + nearest_turn(xp, crosswise, quat)
        return xp.atan2(xp.sin(turn), xp.cos(turn))

    def _across(self, xp: Any, memory: Carry) -> Array:
        """The level direction across the drawer, `(N, 3)`."""
        x, y, flat = (memory["ahead"][:, i] for i in range(3))
        return xp.stack([y, -x, flat], axis=1)


def _choose(xp: Any, chosen: Array, first: Act, second: Act) -> Act:
    """The first where `chosen` `(N,)`, else the second."""
    move = xp.where(chosen[:, None], first[0], second[0])
    turn, grip = (xp.where(chosen, first[i], second[i]) for i in (1, 2))
    return move, turn, grip
