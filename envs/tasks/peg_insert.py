"""Pull a peg out of its stand and insert it into a socket whose hole is barely wider."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Quantity, Terms
from embodied.types import Carry, Obs

from .arm import ARM, ArmTask
from .cube import in_hand, nearest_turn, quarter_turn
from .scene import OBJECTS
from .tracker import keep_tracking, no_tracking, start_tracking
from .vectors import clamp, near, norm

Array = Any

TIP_M = 0.075
"""From the middle of the peg's head, where fingers hold it, down to its tip."""
HEAD_M, SOCKET_M, STAND_M = 0.032, 0.045, 0.025
"""How thick the head is, and how high socket and stand."""
DEPTH_M = 0.03
"""How deep the tip must be in the hole."""
REACHED_M, GRASPED, OUT_M, OVER_M, INSIDE_M = 0.04, 0.85, 0.03, 0.01, 0.005
"""What counts as at the peg, as a share of the fingers' way, as a height of the tip that is out
of the stand, and as distances of the tip from the hole's axis: over it, and in it."""
UPRIGHT = 0.97
CARRY_M = 0.065
"""Height at which the expert carries the tip."""
PEG = (
    Quantity("peg.position", "m", "the middle of its head, where fingers hold it"),
    Quantity("peg.tip_position", "m", "its lower end"),
    Quantity("peg.direction", "1", "unit vector from the tip to the head, (0, 0, 1) upright"),
    Quantity("socket.hole_position", "m", "the middle of the mouth of the hole, which goes down"),
)


class PegInsert(ArmTask):
    """Insert the peg 3 cm deep, upright, and leave it there for half a second.

    The hole is 1.5 mm wider than the peg on every side; the peg's tip is round and the fingertips
    give way. Both peg and socket are seen through a tracker.

    Memory: the trackers of the peg and of the socket (`socket_...`), and `deepest` (N,), how deep
    the tip has been in the hole.

    Terms in [0, 1]: `reach` the tool at the peg, `grasp` the fingers around it and closing, `lift`
    the tip's height while grasped, `over` its nearness to the hole's axis while lifted, `insert`
    its depth in the hole, `hold` it there.
    """

    name = "peg_insert"
    max_steps = 250
    slow_pace = 0.4
    instructions = (
        "insert the yellow peg into the hole of the green socket",
        "pull the peg out of its stand and put it into the socket",
        "take the yellow peg and push it into the hole in the green block",
    )
    stages = (
        "reach the peg",
        "grasp it",
        "pull it out",
        "bring it over the socket",
        "insert it",
    )
    keypoints = ("tool", "peg", "goal")
    movable, tracked = ("peg",), ("peg", "socket")
    quantities = (*ARM, *PEG)
    weights = {
        "reach": 0.5,
        "grasp": 1.0,
        "lift": 1.0,
        "over": 2.0,
        "insert": 3.0,
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
    )

    def bind(self, sim: Sim) -> None:
        super().bind(sim)
        self._peg, _ = sim.joint("peg")
        self._up, self._beside = self._const([0.0, 0.0, 1.0]), self._const([0.0, -0.06, 0.0])

    def memory(self, sim: Sim) -> Carry:
        xp = sim.xp
        deepest = xp.zeros(sim.num_worlds, dtype=sim.qpos.dtype, device=sim.device)
        trackers = {**no_tracking(sim), **no_tracking(sim, "socket_")}
        return {**super().memory(sim), **trackers, "deepest": deepest}

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        socket = poses["socket"]
        seen = start_tracking(sim, draw, unit[:, 0:3], poses["peg"])
        seen_too = start_tracking(sim, draw, unit[:, 3:6], socket, "socket_")
        return {}, {**seen, **seen_too, "goal": socket[:, :3] + TIP_M * self._up}

    def sense(self, sim: Sim, action: Array, memory: Carry) -> Carry:
        xp = sim.xp
        memory = super().sense(sim, action, memory)
        pose = xp.asarray(sim.qpos[:, self._peg], copy=True)
        socket = memory["socket_track_last"]
        seen = keep_tracking(xp, memory, pose)
        memory = {**memory, **seen, **keep_tracking(xp, memory, socket, "socket_")}
        _, depth, inside = self._fit(xp, memory)
        deepest = xp.maximum(memory["deepest"], xp.where(inside, depth, self._zero))
        return {**memory, "deepest": deepest}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        away, closed, height = self._grip(sim, memory)
        aside, depth, inside = self._fit(xp, memory)
        there = inside & (depth > DEPTH_M)
        memory = self.hold(xp, memory, there)
        costs, memory = self.costs(sim, action, memory)
        fits = xp.astype(inside, depth.dtype)
        around = near(xp, xp.maximum(away - 0.012, self._zero), 0.025)
        share = clamp(xp, height / SOCKET_M, self._zero, self._one)
        lift = xp.maximum(around * closed * share, fits)
        terms = {
            "reach": 0.5 * (near(xp, away, 0.3) + near(xp, away, 0.06)),
            "grasp": around * closed,
            "lift": lift,
            "over": 0.5 * lift * (near(xp, aside, 0.3) + near(xp, aside, 0.03)),
            "insert": fits * clamp(xp, depth / DEPTH_M, self._zero, self._one),
            "hold": xp.astype(there, depth.dtype),
            **costs,
        }
        reached = (away < REACHED_M) | inside
        grasped = (closed > GRASPED) | inside
        passed = [reached, grasped, (height > OUT_M) | inside, aside < OVER_M]
        return terms, self.advance(xp, memory, passed)

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        away, closed, height = self._grip(sim, memory)
        aside, depth, _ = self._fit(sim.xp, memory)
        lowered = (depth + CARRY_M - SOCKET_M) / (DEPTH_M + CARRY_M - SOCKET_M)
        lowered = clamp(sim.xp, lowered, self._zero, self._one)
        return [
            1.0 - (away - REACHED_M) / 0.5,
            0.5 * (1.0 - away / REACHED_M) + 0.5 * closed / GRASPED,
            height / OUT_M,
            1.0 - (aside - OVER_M) / 0.3,
            0.5 * lowered + 0.5 * self.held_share(sim.xp, memory),
        ]

    def _grip(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array]:
        """The tool's distance from the head, how closed the fingers are, the tip's height."""
        peg = memory["track_last"]
        away = norm(sim.xp, peg[:, :3] - memory["tool"])
        closed = (self._widest - self._wide(sim)) / (self._widest - HEAD_M)
        closed = clamp(sim.xp, closed, self._zero, self._one)
        return away, closed, tip(sim.xp, peg)[:, 2]

    def _fit(self, xp: Any, memory: Carry) -> tuple[Array, Array, Array]:
        """The tip's distance from the hole's axis, its depth, whether it is in the hole."""
        peg, socket = memory["track_last"], memory["socket_track_last"]
        end = tip(xp, peg)
        aside = level(xp, end - socket[:, :3])
        depth = SOCKET_M - end[:, 2]
        return aside, depth, (aside < INSIDE_M) & (depth > 0.0) & (axis(xp, peg)[:, 2] > UPRIGHT)

    def _wide(self, sim: Sim) -> Array:
        """How far apart the fingers are, `(N,)` in metres."""
        fingers = sim.qpos[:, self._fingers]
        return fingers[:, 0] + fingers[:, 1]

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp, peg, hand = sim.xp, memory["tracked"], memory["hand"]
        offset = peg[:, :3] - memory["tool"]
        parts = [
            *self.posture(sim, memory),
            offset,
            in_hand(xp, hand, offset),
            peg[:, 2:3],
            xp.stack(quarter_turn(xp, hand, peg[:, 3:]), axis=1),
            axis(xp, peg),
            memory["socket_tracked"][:, :3] - tip(xp, peg),
        ]
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        peg = sim.qpos[:, self._peg][:, :3]
        return sim.xp.stack([memory["tool"], peg, memory["goal"]], axis=1)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp = sim.xp
        return {
            **super().readout(sim, memory),
            "peg_pose": xp.asarray(sim.qpos[:, self._peg], copy=True),
            "depth": self._fit(xp, memory)[1],
            "opening": self._wide(sim),
        }

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp, peg = sim.xp, memory["track_last"]
        return {
            **super().world(sim, memory),
            "peg.position": xp.asarray(peg[:, :3], copy=True),
            "peg.tip_position": tip(xp, peg),
            "peg.direction": axis(xp, peg),
            "socket.hole_position": memory["socket_track_last"][:, :3] + SOCKET_M * self._up,
        }

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp, tool = sim.xp, memory["tool"]
        peg, start = sim.qpos[:, self._peg], memory["poses"]
        stand, socket = (start[:, OBJECTS.index(name), :][:, :3] for name in ("stand", "socket"))
        back = xp.zeros_like(memory["held"]) > 0
        if flaw == "retries":  # puts it back into the stand as soon as it is out
            back = (memory["setbacks"] == 0) & (memory["best"] > 2)
        if flaw == "undoes":
            back = memory["deepest"] > DEPTH_M
        if flaw == "wrong_object":
            peg = start[:, OBJECTS.index("cube"), :]
        to = xp.where(back[:, None], stand, self._target(stand, socket, flaw))
        top = xp.where(back, STAND_M * self._one, SOCKET_M * self._one)
        move, turn, gripped = self._grasp(sim, memory, peg)
        if flaw != "wrong_object":
            move = xp.where(gripped[:, None], self._carry(xp, peg, to, top, flaw), move)
        close = gripped | (norm(xp, peg[:, :3] - tool) < 0.006)
        leave = back & (tip(xp, peg)[:, 2] < 0.004)
        if flaw == "drops":
            leave = level(xp, peg[:, :3] - stand) > 0.06
        rise = xp.where(self._wide(sim) > HEAD_M + 0.016, 0.15 - tool[:, 2], self._zero)
        move = xp.where(leave[:, None], rise[:, None] * self._up, move)
        turn = xp.where(gripped | leave, self._zero, turn)
        # Steps move the target, so they are reckoned from there: the tool itself lags behind.
        move = move + tool - self._chain.fk(memory["target"])[0]
        grip = self._step[-1] * xp.where(close & ~leave, -self._one, self._one)
        return self.act(sim, memory, move, turn, grip, self.pace(xp, draw, flaw))

    def _grasp(self, sim: Sim, memory: Carry, pose: Array) -> tuple[Array, Array, Array]:
        """The move `(N, 3)` and turn `(N,)` to what is to be grasped, and whether it is held."""
        xp, hand, wide = sim.xp, memory["hand"], self._wide(sim)
        offset, turn = pose[:, :3] - memory["tool"], nearest_turn(xp, hand, pose[:, 3:])
        aligned = (level(xp, offset) < 0.008) & (xp.abs(turn) < 0.08)
        above = 0.06 * xp.where(aligned, self._zero, self._one)
        pressed = (memory["opening"] < wide - 0.01) & (wide < HEAD_M + 0.01)
        held = pressed & (norm(xp, offset) < 0.03)
        return offset + above[:, None] * self._up, turn, held

    def _carry(self, xp: Any, peg: Array, to: Array, top: Array, flaw: str | None) -> Array:
        """How a held peg moves `(N, 3)`: straight up, across, and down where its tip must go.

        The hole at `to` `(N, 3)` begins at the height `top` `(N,)`.
        """
        end = tip(xp, peg)
        aside = level(xp, to - end)
        inside = (aside < INSIDE_M) & (end[:, 2] < top)
        offset = to - xp.where(inside[:, None], peg[:, :3], end)  # upright, once it is in a hole
        high = (end[:, 2] > SOCKET_M + 0.01) | (aside < INSIDE_M)
        begun = end[:, 2] < CARRY_M - 0.01
        over = aside < xp.where(begun, INSIDE_M * self._one, 0.4 * INSIDE_M)
        if flaw == "stops_short":
            over = over & ~over
        across = xp.where(high, self._one, self._zero)
        height = xp.where(over, self._zero, CARRY_M * self._one)
        return xp.stack([across * offset[:, 0], across * offset[:, 1], height - end[:, 2]], axis=1)

    def _target(self, stand: Array, socket: Array, flaw: str | None) -> Array:
        """Where on the table the expert brings the tip, `(N, 3)`."""
        if flaw == "stops_short":
            return 0.5 * (stand + socket)
        if flaw == "near_miss":
            return socket + self._beside
        return socket


def axis(xp: Any, pose: Array) -> Array:
    """The upward axis of a peg at `pose` `(N, 7)`, `(N, 3)`."""
    w, x, y, z = (pose[:, i] for i in range(3, 7))
    up = [2.0 * (x * z + w * y), 2.0 * (y * z - w * x), w * w - x * x - y * y + z * z]
    return xp.stack(up, axis=1)


def tip(xp: Any, pose: Array) -> Array:
    """Where the tip of a peg at `pose` `(N, 7)` is, `(N, 3)`."""
    return pose[:, :3] - TIP_M * axis(xp, pose)


def level(xp: Any, vector: Array) -> Array:
    """Lengths of rows `(N, 3)` in the plane of the table."""
    return xp.sqrt(vector[:, 0] ** 2 + vector[:, 1] ** 2)
