"""N worlds of one MuJoCo model in PyBullet: a second opinion of the physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from embodied.errors import UserError
from embodied.sim import ModelSource, Rows

from ..named import Named
from .bodies import trees
from .engine import MOST_CLIENTS
from .forms import Arm, OwnArm, UrdfArm
from .poses import from_centre, to_centre
from .servo import Servos
from .studio import Studio
from .support import check_model
from .world import Plan, World

GAINS = ("actuator_gainprm", "actuator_biasprm")
OWN = ("body_mass", "body_inertia", "geom_size", "geom_friction", *GAINS)
"""Parameters that a world can have of its own."""
STATE = ("qpos", "qvel", "mocap_pos", "mocap_quat")
BLOCK = 16
"""So many worlds are stepped together."""
WILD = 1e3
"""A speed (m/s, rad/s) at which a world has come apart."""


class BulletSim(Named):
    """Bullet's contacts, constraints and integration of a model that MuJoCo compiles.

    `qpos`, `qvel`, controls and parameters are laid out as in the model, so a task notices
    nothing. The arm is that of `urdf`, whose `joints` are named by the model's; with `urdf` null
    it is built from the model like everything else. `finer` steps of Bullet make one of the model.

    Each world is a client of its own (40 MB), so none depends on its neighbours. What cannot carry
    over is the softness of contacts (`solref`, `solimp`), rolling friction and collisions within a
    tree of bodies; a rotor's inertia (`armature`) slows the servos alone. Fingertips of a URDF are
    1 mm thicker than their meshes, Bullet's margin. A snapshot holds no contacts: a run that goes
    on from one is as good, not the same.
    """

    xp: Any = np
    device, masked, exact_resume = None, False, False
    missing = frozenset({
        "sensor", "sensordata", "jac", "xpos", "xquat", "xipos", "subtree_com", "cinert", "cvel",
        "cfrc_ext", "qfrc_actuator", "actuator_force", "qacc",
    })  # fmt: skip

    def __init__(
        self,
        source: ModelSource,
        num_worlds: int,
        urdf: str | None = None,
        joints: Mapping[str, str] | None = None,
        finer: int = 2,
    ) -> None:
        if not 1 <= num_worlds <= MOST_CLIENTS:
            raise UserError(
                f"num_envs={num_worlds}: sim=bullet takes a whole number from 1 to {MOST_CLIENTS}"
            )
        if finer < 1:
            raise UserError(f"sim.finer={finer}: give a whole number >= 1")
        self.model = mujoco.MjModel.from_xml_string(source.xml, dict(source.assets or {}))
        check_model(self.model)
        self.num_worlds, self.finer = num_worlds, finer
        self.timestep_s = float(self.model.opt.timestep)
        self._plan = Plan(self.model, _arm(self.model, urdf, dict(joints or {})))
        step = self.timestep_s / finer
        self._servos = Servos(self.model, self._plan.joints, num_worlds, step)
        nominal = {name: np.asarray(getattr(self.model, name)) for name in OWN}
        self._own = {k: np.repeat(v[None], num_worlds, axis=0) for k, v in nominal.items()}
        home = mujoco.MjData(self.model)
        self._home = {name: np.array(getattr(home, name)) for name in STATE}
        self._state = {k: np.repeat(v[None], num_worlds, axis=0) for k, v in self._home.items()}
        self._broken = np.zeros(num_worlds, bool)
        self._due = np.ones(num_worlds, bool)  # worlds to be built before the next step
        self._studio: Studio | None = None
        self._worlds: list[World] = []
        try:
            self._worlds += [World(self._plan, step) for _ in range(num_worlds)]
        except UserError:
            self.close()
            raise

    @property
    def qpos(self) -> np.ndarray:
        return self._state["qpos"]

    @property
    def qvel(self) -> np.ndarray:
        return self._state["qvel"]

    def step(self, control: np.ndarray, substeps: int) -> None:
        self._build()
        target = self._servos.targets(control)
        ids = np.flatnonzero(~self._broken)
        for start in range(0, len(ids), BLOCK):
            self._advance(ids[start : start + BLOCK], target, substeps * self.finer)
        self._look(ids)

    def _advance(self, ids: np.ndarray, target: np.ndarray, steps: int) -> None:
        """Step a few worlds: few, so that what they work on stays in the processor's cache."""
        servos, live = self._servos, [self._worlds[i] for i in ids]
        mass = np.array([world.inertia() for world in live])
        q, v = self.qpos[ids][:, servos.q], self.qvel[ids][:, servos.v]
        for _ in range(steps):
            speed, force = servos.command(ids, mass, q, v, target[ids])
            for world, wanted, most in zip(live, speed.tolist(), force.tolist(), strict=True):
                world.step(wanted, most)
            told = np.array([world.joints() for world in live])
            q, v = told[:, 0], told[:, 1]
        self.qpos[ids[:, None], servos.q], self.qvel[ids[:, None], servos.v] = q, v

    def reset(self, rows: Rows, ids: np.ndarray) -> None:
        for name in STATE:
            self._state[name][ids] = rows.get(name, self._home[name])
        self._broken[ids] = False
        self._due[ids] = True

    def set_parameters(self, rows: Rows, ids: np.ndarray) -> None:
        for name, value in rows.items():
            if name not in OWN:
                raise UserError(f"sim=bullet has no {name} for each world: it has {', '.join(OWN)}")
            self._own[name][ids] = value
        self._servos.set_gains(ids, *(self._own[name][ids] for name in GAINS))
        if not rows.keys() <= set(GAINS):
            self._due[ids] = True

    def read(self, field: str) -> np.ndarray:
        raise UserError(f"sim=bullet has no readout {field!r}: sim=mujoco has")

    def sensor(self, name: str) -> np.ndarray:
        raise UserError(f"sim=bullet has no sensor {name!r}: sim=mujoco has")

    def jac(self, body: str, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise UserError(f"sim=bullet has no Jacobian of {body!r}: sim=mujoco has")

    def faults(self) -> np.ndarray:
        return self._broken.copy()

    def render(self, camera: str, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        index = int(self._view("camera", camera).id)
        if self._studio is None:
            self._studio = Studio(self._plan)
        rows = ({**{k: v[i] for k, v in self._state.items()},
                 "geom_size": self._own["geom_size"][i]} for i in ids)  # fmt: skip
        return np.stack([self._studio.image(row, index, height, width) for row in rows])

    def snapshot(self, ids: np.ndarray | None = None) -> dict[str, np.ndarray]:
        where = slice(None) if ids is None else ids
        out = {f"state/{name}": value[where].copy() for name, value in self._state.items()}
        out |= {f"model/{name}": value[where].copy() for name, value in self._own.items()}
        return out | {"broken": self._broken[where].copy()}

    def restore(self, rows: Rows, ids: np.ndarray | None = None) -> None:
        ids = np.arange(self.num_worlds) if ids is None else ids
        if rows["state/qpos"].shape != self.qpos[ids].shape:
            raise UserError("the saved state is of another model or another number of worlds")
        self.set_parameters({name: rows[f"model/{name}"] for name in OWN}, ids)
        self.reset({name: rows[f"state/{name}"] for name in STATE}, ids)
        self._broken[ids] = rows["broken"]

    def state_dict(self) -> dict[str, np.ndarray]:
        return self.snapshot()

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        self.restore(state)

    def close(self) -> None:
        for world in self._worlds:
            world.close()
        self._worlds = []
        if self._studio is not None:
            self._studio.close()
            self._studio = None

    def _build(self) -> None:
        """Build the worlds that are due in the state that is written down for them."""
        ids = np.flatnonzero(self._due & ~self._broken)
        for i in ids:
            state = {name: value[i] for name, value in self._state.items()}
            own = {name: value[i] for name, value in self._own.items()}
            self._worlds[i].reset(state, own)
        self._due[ids] = False
        for f, q, v, centre, axes in self._plan.free:
            rows = to_centre(self.qpos[ids, q], self.qvel[ids, v], centre, axes)
            for i, row in zip(ids, rows.tolist(), strict=True):
                self._worlds[i].place(f, row)

    def _look(self, ids: np.ndarray) -> None:
        """Read free bodies, and whether all is well."""
        for f, q, v, centre, axes in self._plan.free if len(ids) else ():
            rows = np.array([self._worlds[i].base(f) for i in ids])
            self.qpos[ids, q], self.qvel[ids, v] = from_centre(rows, centre, axes)
        sane = np.isfinite(self.qpos).all(axis=1) & (np.abs(self.qvel) < WILD).all(axis=1)
        for i in np.flatnonzero(~sane & ~self._broken):
            self._broken[i] = True
            self._worlds[i].renew()


def _arm(model: Any, urdf: str | None, joints: dict[str, str]) -> Arm:
    """The arm: what the actuators move."""
    driven = sorted({int(j) for j in model.actuator_trnid[:, 0]})
    root = int(model.body_rootid[model.jnt_bodyid[driven[0]]])
    tree = next(tree for tree in trees(model) if tree.root == root)
    if urdf is None:
        return OwnArm(model, tree)
    missing = [model.joint(j).name for j in tree.joints if model.joint(j).name not in joints]
    if missing:
        raise UserError(
            f"sim.joints names no joint of {urdf} for {missing[0]!r}: name all, or give "
            "sim.urdf=null for an arm that is built from the model"
        )
    return UrdfArm(model, tree, urdf, joints)
