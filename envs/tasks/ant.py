"""Ant-v5 of Gymnasium: run forward on four legs."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.task import Task, Terms
from embodied.types import Carry, Obs

from .body import FREE, free
from .gymnasium_model import gymnasium_model

Array = Any


class Ant(Task):
    """The published task, step for step, but for the contact forces.

    As in Gymnasium, "forward" is measured on the torso's last computed position, a stage behind
    the state. Contact forces (`state[:, 27:]`, and the term "contact") are those at the start of
    the last physics step, where Gymnasium reads those of its last Runge-Kutta stage.
    """

    name = "ant"
    rate_hz = 20.0
    max_steps = 1000
    lagged = True
    readouts = frozenset({"qpos", "qvel", "xpos", "cfrc_ext"})
    instructions: tuple[str, ...] = ("run forward as fast as possible",)
    cameras = ("track",)
    quantities = FREE

    def __init__(
        self,
        forward_weight: float = 1.0,
        control_cost: float = 0.5,
        contact_cost: float = 5e-4,
        survive_weight: float = 1.0,
    ) -> None:
        self.weights = {
            "forward": forward_weight,
            "control": -control_cost,
            "contact": -contact_cost,
            "survive": survive_weight,
        }

    def model(self) -> ModelSource:
        return gymnasium_model("ant.xml", contact_forces=True)

    def bind(self, sim: Sim) -> None:
        self._start = sim.xp.asarray(sim.parameter("qpos0"), device=sim.device)
        self._step_s = 5 * sim.timestep_s
        self._torso = sim.body("torso")
        for field in sorted(self.readouts - {"qpos", "qvel"}):
            sim.read(field)  # from here on MuJoCo fills it

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        nq, nv = sim.qpos.shape[1], sim.qvel.shape[1]
        rows = {
            "qpos": self._start + draw.uniform("qpos", (nq,), -0.1, 0.1),
            "qvel": draw.normal("qvel", (nv,), 0.1),
        }
        return rows, {}, {}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        return free(sim)

    def before(self, sim: Sim) -> dict[str, Array]:
        return {"x": sim.xp.asarray(sim.read("xpos")[:, self._torso, 0], copy=True)}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp, force = sim.xp, self._contact_force(sim)
        terms = {
            "forward": (sim.read("xpos")[:, self._torso, 0] - before["x"]) / self._step_s,
            "control": xp.sum(action * action, axis=-1),
            "contact": xp.sum(force * force, axis=(1, 2)),
            "survive": xp.astype(self._healthy(sim), xp.float64),
        }
        return terms, memory

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        force = sim.xp.reshape(self._contact_force(sim)[:, 1:, :], (sim.num_worlds, -1))
        return {"state": sim.xp.concat([sim.qpos[:, 2:], sim.qvel, force], axis=-1)}

    def terminated(self, sim: Sim, memory: Carry) -> Array:
        return ~self._healthy(sim)

    def _contact_force(self, sim: Sim) -> Array:
        return sim.xp.clip(sim.read("cfrc_ext"), -1.0, 1.0)  # (N, nbody, 6)

    def _healthy(self, sim: Sim) -> Array:
        xp, height = sim.xp, sim.qpos[:, 2]
        finite = xp.isfinite(xp.sum(sim.qpos, axis=-1) + xp.sum(sim.qvel, axis=-1))
        return (height >= 0.2) & (height <= 1.0) & finite
