"""Humanoid-v5 of Gymnasium: run forward on two legs without falling."""

from __future__ import annotations

from typing import Any

from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.task import Task, Terms
from embodied.types import Carry, Obs

from .body import FREE, free
from .gymnasium_model import gymnasium_model

Array = Any

_MOST_CONTACT = 10.0 / 5e-7
"""Where Gymnasium caps the contact cost: at 10, which its weight of 5e-7 pays for this much."""


class Humanoid(Task):
    """The published task, step for step, but for the contact forces.

    As in Gymnasium, the centre of mass and the bodies' inertias and velocities are those last
    computed, a stage behind the state. Contact forces (`state[:, 270:]`, and the term "contact")
    are those at the start of the last physics step, where Gymnasium reads those of its last
    Runge-Kutta stage.
    """

    name = "humanoid"
    rate_hz = 1.0 / 0.015
    max_steps = 1000
    lagged = True
    readouts = frozenset(
        {"qpos", "qvel", "subtree_com", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"}
    )
    instructions = ("run forward as fast as possible without falling",)
    cameras = ("track",)
    quantities = FREE

    def __init__(
        self,
        forward_weight: float = 1.25,
        control_cost: float = 0.1,
        contact_cost: float = 5e-7,
        survive_weight: float = 5.0,
    ) -> None:
        self.weights = {
            "forward": forward_weight,
            "control": -control_cost,
            "contact": -contact_cost,
            "survive": survive_weight,
        }

    def model(self) -> ModelSource:
        return gymnasium_model("humanoid.xml", contact_forces=True)

    def bind(self, sim: Sim) -> None:
        self._start = sim.xp.asarray(sim.parameter("qpos0"), device=sim.device)
        self._step_s = 5 * sim.timestep_s
        for field in sorted(self.readouts - {"qpos", "qvel"}):
            sim.read(field)  # from here on MuJoCo fills it

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        nq, nv = sim.qpos.shape[1], sim.qvel.shape[1]
        rows = {
            "qpos": self._start + draw.uniform("qpos", (nq,), -1e-2, 1e-2),
            "qvel": draw.uniform("qvel", (nv,), -1e-2, 1e-2),
        }
        return rows, {}, {}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        return free(sim)

    def before(self, sim: Sim) -> dict[str, Array]:
        return {"x": sim.xp.asarray(sim.read("subtree_com")[:, 0, 0], copy=True)}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp, force = sim.xp, sim.read("cfrc_ext")
        control = xp.astype(action, xp.float64)
        terms = {
            "forward": (sim.read("subtree_com")[:, 0, 0] - before["x"]) / self._step_s,
            "control": xp.sum(control * control, axis=-1),
            "contact": xp.clip(xp.sum(force * force, axis=(1, 2)), max=_MOST_CONTACT),
            "survive": xp.astype(self._healthy(sim), xp.float64),
        }
        return terms, memory

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        def bodies(field: str) -> Array:
            return sim.xp.reshape(sim.read(field)[:, 1:, :], (sim.num_worlds, -1))

        parts = [sim.qpos[:, 2:], sim.qvel, bodies("cinert"), bodies("cvel")]
        parts += [sim.read("qfrc_actuator")[:, 6:], bodies("cfrc_ext")]
        return {"state": sim.xp.concat(parts, axis=-1)}

    def terminated(self, sim: Sim, memory: Carry) -> Array:
        return ~self._healthy(sim)

    def _healthy(self, sim: Sim) -> Array:
        height = sim.qpos[:, 2]
        return (height > 1.0) & (height < 2.0)
