"""Hopper-v5 of Gymnasium: hop forward on one leg without falling."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.task import Task, Terms
from embodied.types import Carry, Obs

from .body import PLANAR, planar
from .gymnasium_model import gymnasium_model

Array = Any


class Hopper(Task):
    """The published task, step for step (tests compare it with Gymnasium's own env)."""

    name = "hopper"
    rate_hz = 125.0
    max_steps = 1000
    instructions: tuple[str, ...] = ("hop forward as fast as possible without falling",)
    cameras = ("track",)
    quantities = PLANAR

    def __init__(
        self,
        forward_weight: float = 1.0,
        control_cost: float = 1e-3,
        survive_weight: float = 1.0,
    ) -> None:
        self.weights = {
            "forward": forward_weight,
            "control": -control_cost,
            "survive": survive_weight,
        }

    def model(self) -> ModelSource:
        return gymnasium_model("hopper.xml")

    def bind(self, sim: Sim) -> None:
        self._start = sim.xp.asarray(sim.parameter("qpos0"), device=sim.device)
        self._step_s = 4 * sim.timestep_s

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        nq, nv = sim.qpos.shape[1], sim.qvel.shape[1]
        rows = {
            "qpos": self._start + draw.uniform("qpos", (nq,), -5e-3, 5e-3),
            "qvel": draw.uniform("qvel", (nv,), -5e-3, 5e-3),
        }
        return rows, {}, {}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        return planar(sim, 0.0)

    def before(self, sim: Sim) -> dict[str, Array]:
        return {"x": sim.xp.asarray(sim.qpos[:, 0], copy=True)}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp = sim.xp
        terms = {
            "forward": (sim.qpos[:, 0] - before["x"]) / self._step_s,
            "control": xp.sum(action * action, axis=-1),
            "survive": xp.astype(self._healthy(sim), xp.float64),
        }
        return terms, memory

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        xp = sim.xp
        return {"state": xp.concat([sim.qpos[:, 1:], xp.clip(sim.qvel, -10.0, 10.0)], axis=-1)}

    def terminated(self, sim: Sim, memory: Carry) -> Array:
        return ~self._healthy(sim)

    def _healthy(self, sim: Sim) -> Array:
        """Upright, off the ground and within bounds, `(N,)` bool."""
        xp, qpos = sim.xp, sim.qpos
        upright = (qpos[:, 1] > 0.7) & (xp.abs(qpos[:, 2]) < 0.2)
        bounded = xp.all(xp.abs(qpos[:, 2:]) < 100.0, axis=-1)
        return upright & bounded & xp.all(xp.abs(sim.qvel) < 100.0, axis=-1)
