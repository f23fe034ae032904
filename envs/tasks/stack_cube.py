"""Put one cube on another and let go."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import Sim
from embodied.task import Flaw, Quantity, Terms
from embodied.types import Carry, Obs

from .arm import ARM
from .cube import CUBE, CubeTask
from .tracker import keep_tracking, no_tracking, start_tracking
from .vectors import clamp, near, norm

Array = Any

REACHED_M, GRASPED, LIFTED_M = 0.04, 0.85, 0.03
"""What counts as at the cube, as a share of the fingers' way, and as off the table."""
ASIDE_M, LEVEL_M = 0.018, 0.005
"""How far the red cube may lie off the blue one's middle, and off the height it rests at."""
AWAY_M = 0.05
"""How far the tool must be from the red cube at the end."""
OPEN_M = 0.012
"""How much wider than the cube the fingers must be to have let go."""
CRUISE_M = 0.035
DROP_M = 0.055
"""How high over the blue cube the expert carries the red one; from where it drops it."""
BLUE = (
    Quantity("blue_cube.position", "m", "the blue cube's middle"),
    Quantity("blue_cube.half_size", "m", "half of an edge of the blue cube"),
)


class StackCube(CubeTask):
    """Put the red cube on the blue one, let go, and take the hand 5 cm away.

    Terms in [0, 1], all of them 1 at the end: `reach` the tool at the red cube, `grasp` the
    fingers around it and closing, `lift` its height while grasped, `above` its nearness to the
    blue cube's axis while lifted, `place` its nearness to its place, `release` the fingers open and
    the hand away while it rests there, `hold` it so.

    Memory: `blue_tracked` (N, 7), the tracked pose of the blue cube. The goal's ball means nothing.
    """

    name = "stack_cube"
    max_steps = 200
    instructions = (
        "stack the red cube on the blue cube",
        "put the red cube on top of the blue one and let go",
        "pick up the red block and place it on the blue block",
    )
    stages = (
        "reach the red cube",
        "grasp it",
        "lift it",
        "bring it above the blue cube",
        "put it down",
        "let go",
    )
    keypoints = ("tool", "cube", "blue_cube")
    movable = tracked = ("cube", "blue_cube")
    quantities = (*ARM, *CUBE, *BLUE)
    weights = {
        "reach": 0.5,
        "grasp": 1.0,
        "lift": 1.0,
        "above": 2.0,
        "place": 2.0,
        "release": 2.0,
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
        self._blue = sim.joint("blue_cube")[0]

    def memory(self, sim: Sim) -> Carry:
        return {**super().memory(sim), **no_tracking(sim, "blue_")}

    def place(
        self, sim: Sim, draw: Draw, unit: Array, qpos: Array, poses: dict[str, Array]
    ) -> tuple[dict[str, Array], Carry]:
        parameters, memory = super().place(sim, draw, unit, qpos, poses)
        blue = start_tracking(sim, draw, unit[:, 8:11], poses["blue_cube"], "blue_")
        return parameters, {**memory, **blue}

    def goal(self, xp: Any, unit: Array, poses: dict[str, Array]) -> Array:
        return xp.stack(self.spot(unit), axis=1)

    def sense(self, sim: Sim, action: Array, memory: Carry) -> Carry:
        xp = sim.xp
        memory = super().sense(sim, action, memory)
        pose = xp.asarray(sim.qpos[:, self._blue], copy=True)
        return {**memory, **keep_tracking(xp, memory, pose, "blue_")}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        memory = self.sense(sim, action, memory)
        away, height, aside, rise, closed = self._state(sim, memory)
        rests = self._rests(sim, memory)
        free = rests * self._freed(sim, memory, away)
        memory = self.hold(xp, memory, free == self._one)
        costs, memory = self.costs(sim, action, memory)
        grasp = near(xp, xp.maximum(away - 0.012, self._zero), 0.025) * closed
        lift = grasp * clamp(xp, height / 0.05, self._zero, self._one)
        above = lift * near(xp, aside, 0.1)
        place = lift * near(xp, aside, 0.02) * near(xp, xp.abs(rise), 0.04)
        parts = {"reach": 0.5 * (near(xp, away, 0.3) + near(xp, away, 0.06))}
        parts |= {"grasp": grasp, "lift": lift, "above": above, "place": place}
        terms = {name: xp.maximum(rests, part) for name, part in parts.items()}
        terms |= {"release": free, "hold": xp.astype(free == self._one, free.dtype), **costs}
        put, reached = rests > 0.0, away < REACHED_M
        grasped = reached & (closed > GRASPED)
        over = (aside < ASIDE_M) & (rise > -LEVEL_M)
        passed = [put | fact for fact in (reached, grasped, height > LIFTED_M, over)]
        return terms, self.advance(xp, memory, [*passed, put])

    def _state(self, sim: Sim, memory: Carry) -> tuple[Array, Array, Array, Array, Array]:
        """Where things are, `(N,)` each.

        The tool's distance from the red cube; that cube's height over the table, its distance from
        the blue cube's axis and its height over its place there; how closed the fingers are.
        """
        xp, red = sim.xp, memory["track_last"][:, :3]
        offset = red - memory["blue_track_last"][:, :3]
        aside = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        rise = offset[:, 2] - memory["half"] - memory["poses"][:, 1, 2]
        closed = self.closed(sim, 2.0 * memory["half"])
        return norm(xp, red - memory["tool"]), red[:, 2] - memory["half"], aside, rise, closed

    def _rests(self, sim: Sim, memory: Carry) -> Array:
        """1 where the red cube lies on the blue one and that on the table, else 0."""
        xp = sim.xp
        _, _, aside, rise, _ = self._state(sim, memory)
        low = memory["blue_track_last"][:, 2] < memory["poses"][:, 1, 2] + LEVEL_M
        there = low & (aside < ASIDE_M) & (xp.abs(rise) < LEVEL_M)
        return xp.astype(there, rise.dtype)

    def _freed(self, sim: Sim, memory: Carry, away: Array) -> Array:
        """How far the fingers are open and the hand away, in [0, 1]."""
        wider = self.wide(sim) - 2.0 * memory["half"]
        wider = clamp(sim.xp, wider / OPEN_M, self._zero, self._one)
        return 0.5 * wider + 0.5 * clamp(sim.xp, away / AWAY_M, self._zero, self._one)

    def nearness(self, sim: Sim, memory: Carry) -> list[Array]:
        away, height, aside, rise, closed = self._state(sim, memory)
        freed = self._freed(sim, memory, away)
        return [
            1.0 - (away - REACHED_M) / 0.5,
            0.5 * (1.0 - away / REACHED_M) + 0.5 * closed / GRASPED,
            height / LIFTED_M,
            1.0 - (aside - ASIDE_M) / 0.4,
            1.0 - rise / 0.05,
            0.5 * freed + 0.5 * self.held_share(sim.xp, memory),
        ]

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp, red, blue = sim.xp, memory["tracked"], memory["blue_tracked"]
        parts = [*self.posture(sim, memory), *self.seen(xp, memory, red)]
        parts += [*self.seen(xp, memory, blue), blue[:, :3] - red[:, :3]]
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        cubes = [sim.qpos[:, where][:, :3] for where in (self._cube, self._blue)]
        return sim.xp.stack([memory["tool"], *cubes], axis=1)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        blue = sim.xp.asarray(sim.qpos[:, self._blue], copy=True)
        return {**super().readout(sim, memory), "blue_cube_pose": blue}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        copied = {
            "blue_cube.position": memory["blue_track_last"][:, :3],
            "blue_cube.half_size": memory["poses"][:, 1, 2],
        }
        values = {name: sim.xp.asarray(value, copy=True) for name, value in copied.items()}
        return {**super().world(sim, memory), **values}

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp = sim.xp
        pose, base = sim.qpos[:, self._cube], sim.qpos[:, self._blue]
        half, other = memory["half"], memory["poses"][:, 1, 2]
        if flaw == "wrong_object":
            pose, base, half, other = base, pose, other, half
        spot = self._spot(xp, memory, base, half, half + other, flaw)
        offset = spot - pose[:, :3]
        aside = xp.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        # Up first, then across, then down: never through the other cube.
        cruise = base[:, 2] + half + other + CRUISE_M
        over, high = aside < 0.006, pose[:, 2] > cruise - 0.012
        z = xp.where(over & (flaw != "stops_short"), spot[:, 2], cruise)
        across = xp.where((over | high)[:, None], spot, pose[:, :3])
        aim = xp.concat([across[:, :2], z[:, None]], axis=1)
        move, turn, grip, gripped = self.fetch(sim, memory, pose, half, aim)
        height = pose[:, 2] - half
        if flaw in ("drops", "retries"):
            falls = (height > 0.01) & ~self.pressed(sim, memory, half)
            falls = falls | (gripped & (height > DROP_M))
            if flaw == "retries":
                falls = falls & (memory["setbacks"] == 0)
            grip = xp.where(falls, self._step[-1], grip)
        put = (aside < 0.012) & (offset[:, 2] > -0.004)
        free = self.wide(sim) > 2.0 * half + OPEN_M
        up = xp.where(free, 0.03 * self._one, self._zero)
        up = xp.where(memory["tool"][:, 2] > pose[:, 2] + 0.08, self._zero, up)
        leave = xp.stack([0.0 * up, 0.0 * up, up], axis=1)
        move = xp.where(put[:, None], leave, move)
        turn = xp.where(put, self._zero, turn)
        grip = xp.where(put, self._step[-1], grip)
        pace = self.pace(xp, draw, flaw)
        if flaw == "retries":  # with more care
            pace = pace * xp.where(memory["setbacks"] > 0, 0.8 * self._one, self._one)
        return self.act(sim, memory, move, turn, grip, pace)

    def _spot(
        self, xp: Any, memory: Carry, base: Array, half: Array, above: Array, flaw: str | None
    ) -> Array:
        """Where the expert puts its cube, `(N, 3)`: on the other, or on the table beside it."""
        on = xp.concat([base[:, :2], (base[:, 2] + above)[:, None]], axis=1)
        if flaw not in ("near_miss", "undoes"):
            return on
        side = 0.08 * xp.where(base[:, 1] > 0.0, -self._one, self._one)
        beside = xp.stack([base[:, 0], base[:, 1] + side, half], axis=1)
        if flaw == "near_miss":
            return beside
        undone = (memory["best"] == len(self.stages) - 1) | (memory["setbacks"] > 0)
        return xp.where(undone[:, None], beside, on)
