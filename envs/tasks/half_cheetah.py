"""HalfCheetah-v5 of Gymnasium: run forward as fast as possible."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.task import Quantity, Task, Terms
from embodied.types import Carry, Obs

from .body import PLANAR, planar
from .gymnasium_model import gymnasium_model

Array = Any

GROUND_M = 0.7
"""How high the torso is where its joint is 0."""
LEGS = (
    (((-0.5, 0.0), 3), ((0.16, -0.25), 4), ((-0.28, -0.14), 5)),
    (((0.5, 0.0), 6), ((-0.14, -0.24), 7), ((0.13, -0.18), 8)),
)
"""Hind and front leg: where each joint is in the frame of the part before, along x and z in
metres, and its place in `qpos`; the last is the ankle."""


class HalfCheetah(Task):
    """The published task, step for step (tests compare it with Gymnasium's own env)."""

    name = "half_cheetah"
    rate_hz = 20.0
    max_steps = 1000
    instructions: tuple[str, ...] = ("run forward as fast as possible",)
    cameras = ("track",)
    quantities: tuple[Quantity, ...] = PLANAR

    def __init__(self, forward_weight: float = 1.0, control_cost: float = 0.1) -> None:
        self.weights = {"forward": forward_weight, "control": -control_cost}

    def model(self) -> ModelSource:
        return gymnasium_model("half_cheetah.xml")

    def bind(self, sim: Sim) -> None:
        self._start = sim.xp.asarray(sim.parameter("qpos0"), device=sim.device)
        self._step_s = 5 * sim.timestep_s

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        nq, nv = sim.qpos.shape[1], sim.qvel.shape[1]
        rows = {
            "qpos": self._start + draw.uniform("qpos", (nq,), -0.1, 0.1),
            "qvel": draw.normal("qvel", (nv,), 0.1),
        }
        return rows, {}, {}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        return planar(sim, GROUND_M)

    def before(self, sim: Sim) -> dict[str, Array]:
        return {"x": sim.xp.asarray(sim.qpos[:, 0], copy=True)}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        forward = (sim.qpos[:, 0] - before["x"]) / self._step_s
        return {"forward": forward, "control": sim.xp.sum(action * action, axis=-1)}, memory

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        return {"state": sim.xp.concat([sim.qpos[:, 1:], sim.qvel], axis=-1)}


def ankle_heights(sim: Sim) -> Array:
    """Of the hind and the front ankle above the ground, `(N, 2)` in metres."""
    xp, q = sim.xp, sim.qpos
    heights = []
    for leg in LEGS:
        height, lean = q[:, 1] + GROUND_M, q[:, 2]
        for (x, z), joint in leg:
            height = height - x * xp.sin(lean) + z * xp.cos(lean)
            lean = lean + q[:, joint]
        heights.append(height)
    return xp.stack(heights, axis=1)
