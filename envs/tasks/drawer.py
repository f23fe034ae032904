"""What the tasks with a drawer share: how far out it is, how it is seen, how it is pulled."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Quantity
from embodied.types import Carry

from .arm import ARM, ArmTask
from .tracker import keep_tracking, no_tracking, start_tracking
from .vectors import clamp, norm

Array = Any

OPEN_M = 0.10
"""How far out counts as open, of 0.13 m."""
AJAR_M = 0.01
"""How far out it may be at the start of an episode, and still counts as shut."""
HANDLE_Y_M, HANDLE_Z_M, BAR_M = 0.11, 0.085, 0.02
"""Where the handle is from the cabinet's origin, and how thick."""
DRAWER = (
    Quantity("drawer.opening", "m", "how far it is out, 0 when shut, 0.13 at most"),
    Quantity("drawer.widest_opening", "m", "how far out it has been in this episode"),
    Quantity("drawer.handle_position", "m", "the middle of its handle"),
    Quantity("drawer.direction", "1", "unit vector: the way it opens"),
)
"""What reward code may read of it."""
CRUISE_M = 0.16
"""Height at which the expert's tool moves across handle and drawer."""


class DrawerTask(ArmTask):
    """A cabinet with a drawer that slides out along the cabinet's y axis.

    Memory: `shut` (N, 3) where the handle is when the drawer is shut, `ahead` (N, 3) the way it
    opens, `widest` (N,) how far out it has been, and of the tracked pose of the handle
    `handle_tracked` (N, 7): observations see only that.
    """

    movable: tuple[str, ...] = ("cabinet",)
    tracked: tuple[str, ...] = ("drawer",)
    quantities: tuple[Quantity, ...] = (*ARM, *DRAWER)

    def bind(self, sim: Sim) -> None:
        super().bind(sim)
        self._drawer, _ = sim.joint("drawer")
        self._up = self._const([0.0, 0.0, 1.0])

    def memory(self, sim: Sim) -> Carry:
        xp, n, dev, dtype = sim.xp, sim.num_worlds, sim.device, sim.qpos.dtype
        return {
            **super().memory(sim),
            "shut": xp.zeros((n, 3), dtype=dtype, device=dev),
            "ahead": xp.zeros((n, 3), dtype=dtype, device=dev),
            "widest": xp.zeros(n, dtype=dtype, device=dev),
            **no_tracking(sim, "handle_"),
        }

    def place_drawer(self, sim: Sim, draw: Draw, unit: Array, qpos: Array, cabinet: Array) -> Carry:
        """Put the drawer ajar in `qpos`: memory rows, from four columns of `unit`."""
        xp = sim.xp
        w, z = cabinet[:, 3], cabinet[:, 6]
        ahead = xp.stack([-2.0 * w * z, w * w - z * z, xp.zeros_like(w)], axis=1)
        shut = cabinet[:, :3] + HANDLE_Y_M * ahead + HANDLE_Z_M * self._up
        opening = AJAR_M * unit[:, 0]
        qpos[:, self._drawer] = opening[:, None]
        handle = shut + opening[:, None] * ahead
        pose = xp.concat([handle, cabinet[:, 3:]], axis=1)
        seen = start_tracking(sim, draw, unit[:, 1:4], pose, "handle_")
        return {"shut": shut, "ahead": ahead, "widest": opening, **seen}

    def sense(self, sim: Sim, action: Array, memory: Carry) -> Carry:
        xp = sim.xp
        memory = super().sense(sim, action, memory)
        turned = memory["handle_track_last"][:, 3:]
        pose = xp.concat([self.handle(sim, memory), turned], axis=1)
        widest = xp.maximum(memory["widest"], self.out(sim))
        return {**memory, "widest": widest, **keep_tracking(xp, memory, pose, "handle_")}

    def out(self, sim: Sim) -> Array:
        """How far the drawer is out, `(N,)` in metres."""
        return sim.xp.asarray(sim.qpos[:, self._drawer][:, 0], copy=True)

    def handle(self, sim: Sim, memory: Carry) -> Array:
        """The middle of the handle, `(N, 3)`."""
        return memory["shut"] + sim.qpos[:, self._drawer] * memory["ahead"]

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp = sim.xp
        return {
            **super().world(sim, memory),
            "drawer.opening": self.out(sim),
            "drawer.widest_opening": xp.asarray(memory["widest"], copy=True),
            "drawer.handle_position": self.handle(sim, memory),
            "drawer.direction": xp.asarray(memory["ahead"], copy=True),
        }

    def wide(self, sim: Sim) -> Array:
        """How far apart the fingers are, `(N,)` in metres."""
        fingers = sim.qpos[:, self._fingers]
        return fingers[:, 0] + fingers[:, 1]

    def closed(self, sim: Sim, thickness: Array) -> Array:
        """How far the fingers have closed on something of `thickness` `(N,)`, in [0, 1]."""
        share = (self._widest - self.wide(sim)) / (self._widest - thickness)
        return clamp(sim.xp, share, self._zero, self._one)

    def travel(self, xp: Any, tool: Array, target: Array, aligned: Array) -> Array:
        """A move `(N, 3)` toward `target` by way of the air, clear of the handle.

        The tool rises, goes across, and comes down once it is `aligned` `(N,)`.
        """
        offset = target - tool
        over = offset[:, 0] ** 2 + offset[:, 1] ** 2 < 0.03**2
        free = xp.where(over | (tool[:, 2] > CRUISE_M - 0.03), self._one, self._zero)
        up = xp.where(over & aligned, offset[:, 2], CRUISE_M - tool[:, 2])
        return xp.stack([free * offset[:, 0], free * offset[:, 1], up], axis=1)

    def slide(
        self, sim: Sim, memory: Carry, to: Array, aside: float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Grasp the handle and slide the drawer until it is out by `to` `(N,)`.

        Returns the tool's move `(N, 3)`, its turn and the fingers' step `(N,)`, for `act`. The
        handle is looked for `aside` metres off.
        """
        xp, tool, ahead = sim.xp, memory["tool"], memory["ahead"]
        wide = self.wide(sim)
        offset = self.handle(sim, memory) + aside * ahead - tool
        turn = turn_to(xp, memory["hand"], -ahead)
        level = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        around = (level < 0.02) & (xp.abs(offset[:, 2]) < 0.01) & (xp.abs(turn) < 0.2)
        gripped = (norm(xp, offset) < 0.03) & (wide < BAR_M + 0.01)
        gripped = gripped & (memory["opening"] < wide - 0.005)
        move = self.travel(xp, tool, tool + offset, (level < 0.015) & (xp.abs(turn) < 0.15))
        step = to - self.out(sim) - xp.sum(offset * ahead, axis=1)
        move = xp.where(gripped[:, None], offset + step[:, None] * ahead, move)
        width = xp.where(around | gripped, self._zero, 0.06 * self._one)
        return move, turn, self.spread_to(xp, memory, width)

    def spread_to(self, xp: Any, memory: Carry, width: Array) -> Array:
        """The fingers' step `(N,)` that brings their opening to `width` `(N,)`."""
        return clamp(xp, width - memory["opening"], -self._step[-1], self._step[-1])


def turn_to(xp: Any, hand: Array, axis: Array) -> Array:
    """The turn of the hand that lays its y axis along a level `axis` `(N, 3)`, `(N,)` in rad."""
    turn = xp.atan2(axis[:, 1], axis[:, 0]) - xp.atan2(hand[:, 1, 1], hand[:, 0, 1])
    return xp.atan2(xp.sin(turn), xp.cos(turn))
