"""A puck on a table that must follow a course in order: cheap enough to train in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.task import Flaw, Quantity, Task, Terms
from embodied.types import ActionSpec, Carry, Obs

from .robot import asset
from .vectors import clamp, near, norm, spread

Array = Any

SPEED_M_S = 0.9
LINE_M = 0.35
"""From the centre of the red pad to that of the blue one."""
AT_PAD_M = 0.05
LANE_M = 0.1
"""How far from the line the puck may be before its lamp goes out."""
LAMP_M = 0.018
"""How far the lamp rises out of the puck."""
COURSE = (
    Quantity("puck.position", "m", "x and y of the puck's middle"),
    Quantity("puck.velocity", "m/s", "along x and y"),
    Quantity("lamp.lit", "1", "1 while the puck's lamp is lit, else 0"),
    Quantity("red_pad.position", "m", "x and y of its middle"),
    Quantity("blue_pad.position", "m", "x and y of its middle"),
    Quantity("yellow_pad.position", "m", "x and y of its middle"),
)
HOLD_STEPS = 8
FAR_M = 0.5


class LineReach(Task):
    """Slide a puck onto the red pad, along the line to the blue pad, and stay there.

    On the red pad the puck's lamp lights up, and it goes out 10 cm off the line: the blue pad
    counts only while it is lit. A yellow pad is there to be ignored. Everything is observed: the
    place (m) and speed (m/s) of the puck, the next pad and all pads relative to it, and the lamp.

    Memory: `red`, `blue` and `decoy` (N, 2), the pads' centres; `lit`; `held` steps on the blue
    pad in a row and the most of them, `peak`; `visits` times that the lamp went on; `stage`.

    Terms in [0, 1]: `reach` nearness to the red pad (1 once lit), `follow` to the blue one while
    lit, `stay` there, `success`.
    """

    name = "line_reach"
    rate_hz = 20.0
    max_steps = 60
    instructions = (
        "slide the puck to the red pad, then along the line to the blue pad, and stay there",
        "visit red first, follow the line to blue and stop on it",
        "light the puck's lamp on the red pad and park it on the blue pad",
    )
    stages = ("reach the red pad", "go to the blue pad", "stay there")
    keypoints = ("puck", "red", "blue")
    cameras = ("top", "side")
    proprio_size = 4
    quantities = COURSE
    frame = "All of it lies in one plane."
    weights = {"reach": 1.0, "follow": 2.0, "stay": 1.0, "success": 1.0}
    flaws = (
        Flaw("slow", "slow"),
        Flaw("hesitates", "slow"),
        Flaw("retries", "slow"),
        Flaw("stops_short", "fails"),
        Flaw("near_miss", "fails"),
        Flaw("wrong_object", "fails"),
        Flaw("undoes", "fails"),
    )

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        wrong = sorted(set(weights or {}) - set(self.weights))
        if wrong:
            raise UserError(
                f"env.task.weights.{wrong[0]}: {self.name} has no such reward term "
                f"(it has {', '.join(self.weights)})"
            )
        self.weights = {**self.weights, **{k: float(v) for k, v in (weights or {}).items()}}
        low = sum(min(w, 0.0) for w in self.weights.values())
        self.reward_range = (low, sum(max(w, 0.0) for w in self.weights.values()))

    def model(self) -> ModelSource:
        return ModelSource(asset("line_reach.xml"))

    def bind(self, sim: Sim) -> None:
        dtype = sim.qpos.dtype

        def const(value: float) -> Array:
            return sim.xp.asarray(value, dtype=dtype, device=sim.device)

        self._zero, self._one, self._speed = const(0.0), const(1.0), const(SPEED_M_S)

    def action_spec(self, sim: Sim) -> ActionSpec:
        high = np.full(2, SPEED_M_S, np.float32)
        return ActionSpec(("x", "y"), ("m/s",) * 2, -high, high, "velocity", self.rate_hz)

    def memory(self, sim: Sim) -> Carry:
        xp, n, dev = sim.xp, sim.num_worlds, sim.device
        place = xp.zeros((n, 2), dtype=sim.qpos.dtype, device=dev)
        count = xp.zeros(n, dtype=xp.int64, device=dev)
        pads = {name: xp.asarray(place, copy=True) for name in ("red", "blue", "decoy")}
        names = ("held", "peak", "visits", "stage")
        counts = {name: xp.asarray(count, copy=True) for name in names}
        return {**pads, **counts, "lit": xp.zeros(n, dtype=xp.bool, device=dev)}

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        """The course anywhere near the middle, puck and yellow pad on either side of it."""
        xp = sim.xp
        unit = xp.astype(draw.uniform("episode", (8,)), sim.qpos.dtype)
        half = spread(unit[:, 0], -0.5 * math.pi, 0.5 * math.pi)  # half the line's angle
        turn = 2.0 * half
        along = xp.stack([xp.cos(turn), xp.sin(turn)], axis=1)
        across = xp.stack([-along[:, 1], along[:, 0]], axis=1)
        across = xp.where(unit[:, 1:2] < 0.5, across, -across)
        middle = spread(unit[:, 2:4], -0.08, 0.08)

        def beside(far: Array, ahead: Array) -> Array:
            return middle + far[:, None] * across + spread(ahead, -0.2, 0.2)[:, None] * along

        red, blue = middle - 0.5 * LINE_M * along, middle + 0.5 * LINE_M * along
        puck = beside(spread(unit[:, 4], 0.15, 0.3), unit[:, 5])
        decoy = beside(-spread(unit[:, 6], 0.15, 0.28), unit[:, 7])
        flat = xp.zeros_like(half)
        upright = xp.stack([xp.ones_like(half), flat, flat, flat], axis=1)
        heading = xp.stack([xp.cos(half), flat, flat, xp.sin(half)], axis=1)
        places = [xp.concat([pad, flat[:, None]], axis=1) for pad in (red, decoy)]
        rows = {
            "qpos": xp.concat([puck, flat[:, None]], axis=1),
            "mocap_pos": xp.stack(places, axis=1),
            "mocap_quat": xp.stack([heading, upright], axis=1),
        }
        return rows, {}, {"red": red, "blue": blue, "decoy": decoy}

    def control(self, sim: Sim, action: Array, memory: Carry) -> tuple[Array, Carry]:
        xp, dtype = sim.xp, sim.qpos.dtype
        lamp = LAMP_M * xp.astype(memory["lit"], dtype)
        return xp.concat([xp.astype(action, dtype), lamp[:, None]], axis=1), memory

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp, dtype = sim.xp, sim.qpos.dtype
        memory = self._follow(sim, memory)
        red, blue = self._distances(sim, memory)
        lit, held = memory["lit"], memory["held"]

        terms = {
            "reach": xp.where(lit, self._one, near(xp, red, 0.3)),
            "follow": xp.where(lit, near(xp, blue, 0.3), self._zero),
            "stay": xp.astype(held > 0, dtype),
            "success": xp.astype(held >= HOLD_STEPS, dtype),
        }
        return terms, memory

    def _follow(self, sim: Sim, memory: Carry) -> Carry:
        """Memory with the lamp, and with the steps that count on the blue pad."""
        xp = sim.xp
        red, blue = self._distances(sim, memory)
        line = memory["blue"] - memory["red"]
        offset = sim.qpos[:, :2] - memory["red"]
        share = xp.sum(offset * line, axis=1) / LINE_M**2
        share = clamp(xp, share, self._zero, self._one)
        astray = norm(xp, offset - share[:, None] * line) > LANE_M
        lit = (memory["lit"] & ~astray) | (red < AT_PAD_M)
        held = xp.where(lit & (blue < AT_PAD_M), memory["held"] + 1, 0)
        visits = memory["visits"] + xp.astype(lit & ~memory["lit"], xp.int64)
        peak = xp.maximum(memory["peak"], held)
        stage = xp.astype(lit, xp.int64) + xp.astype(held > 0, xp.int64)
        counts = {"held": held, "visits": visits, "peak": peak, "stage": stage}
        return {**memory, "lit": lit, **counts}

    def _distances(self, sim: Sim, memory: Carry) -> tuple[Array, Array]:
        """From the puck to the red and the blue pad, `(N,)` each."""
        puck = sim.qpos[:, :2]
        return norm(sim.xp, memory["red"] - puck), norm(sim.xp, memory["blue"] - puck)

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp = sim.xp
        puck = sim.qpos[:, :2]
        lit = memory["lit"][:, None]
        pads = [memory[name] - puck for name in ("red", "blue", "decoy")]
        following = xp.where(lit, pads[1], pads[0])
        parts = [puck, sim.qvel[:, :2], following, *pads, xp.astype(lit, puck.dtype)]
        return {"state": xp.astype(xp.concat(parts, axis=1), xp.float32)}

    def success(self, sim: Sim, memory: Carry) -> Array:
        return memory["held"] >= HOLD_STEPS

    def stage(self, memory: Carry) -> Array:
        return memory["stage"]

    def progress(self, sim: Sim, memory: Carry) -> Array:
        """How far the course is done, `(N,)` in [0, 1]: stages, and the way within one."""
        xp = sim.xp
        red, blue = self._distances(sim, memory)
        held = xp.astype(memory["held"], red.dtype) / HOLD_STEPS
        on_way = xp.where(memory["lit"], 1.0 - blue / LINE_M, 1.0 - red / FAR_M)
        within = clamp(xp, xp.where(memory["held"] > 0, held, on_way), self._zero, self._one)
        return (xp.astype(memory["stage"], red.dtype) + within) / len(self.stages)

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        xp = sim.xp
        points = xp.stack([sim.qpos[:, :2], memory["red"], memory["blue"]], axis=1)
        return xp.concat([points, xp.zeros_like(points[:, :, :1])], axis=2)

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        stage = sim.xp.asarray(memory["stage"], copy=True)
        return {"progress": self.progress(sim, memory), "stage": stage}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        xp = sim.xp
        copied = {
            "puck.position": sim.qpos[:, :2],
            "puck.velocity": sim.qvel[:, :2],
            "red_pad.position": memory["red"],
            "blue_pad.position": memory["blue"],
            "yellow_pad.position": memory["decoy"],
        }
        values = {name: xp.asarray(value, copy=True) for name, value in copied.items()}
        return {**values, "lamp.lit": xp.astype(memory["lit"], sim.qpos.dtype)}

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        xp = sim.xp
        aim = xp.where(memory["lit"][:, None], memory["blue"], memory["red"])
        aim = self._astray(xp, memory, aim, flaw)
        # The puck goes on for a tenth of a second after it is told to stop.
        way = aim - sim.qpos[:, :2] - 0.1 * sim.qvel[:, :2]
        length = norm(xp, way) + 1e-9
        speed = xp.minimum(6.0 * length, 0.95 * self._speed)
        if flaw == "slow":
            speed = xp.minimum(speed, 0.42 * self._speed)
        if flaw == "hesitates":
            moves = draw.uniform("pace") < 0.55
            speed = xp.where(moves, speed, self._zero)
        return way * (speed / length)[:, None]

    def _astray(self, xp: Any, memory: Carry, aim: Array, flaw: str | None) -> Array:
        """Where the expert goes instead of `aim` in one of its flaws, `(N, 2)`."""
        red, blue, lit = memory["red"], memory["blue"], memory["lit"][:, None]
        line = blue - red
        aside = xp.stack([-line[:, 1], line[:, 0]], axis=1)
        if flaw == "retries":  # leaves the line half way, once
            return xp.where(lit & (memory["visits"] == 1)[:, None], blue + 0.5 * aside, aim)
        if flaw == "stops_short":
            return xp.where(lit, red + 0.5 * line, aim)
        if flaw == "near_miss":
            return xp.where(lit, blue + 0.25 * aside, aim)
        if flaw == "wrong_object":
            return xp.where((memory["visits"] > 0)[:, None], memory["decoy"], aim)
        if flaw == "undoes":
            return xp.where((memory["peak"] >= HOLD_STEPS // 2)[:, None], red - 0.5 * line, aim)
        return aim
