"""What Bullet has in place of a model's trees of bodies: which link stands for which body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from embodied.errors import UserError, unknown

from .bodies import Tree, colliding, make_body, make_shape
from .engine import connect, p
from .poses import xyzw

FIT_MM = 2.0
"""How far a URDF's links may be from the model's bodies."""


@dataclass(frozen=True)
class Form:
    """A tree as it is in Bullet. Rows of `bodies` and `geoms` are its base and then its links."""

    tree: Tree
    links: tuple[int, ...]  # of each of the tree's joints
    bodies: tuple[int, ...]  # the model's
    geoms: tuple[tuple[int, ...], ...]


def form_of(tree: Tree) -> Form:
    """A tree that is built from the model."""
    links = tuple(i - 1 for i, limb in enumerate(tree.limbs) if limb.joint >= 0)
    bodies = tuple(limb.body for limb in tree.limbs)
    return Form(tree, links, bodies, tuple(limb.geoms for limb in tree.limbs))


class Arm:
    """The robot: made once in a client, and kept through resets."""

    form: Form
    mass: np.ndarray  # (L,) nominal, of base and links
    inertia: np.ndarray  # (L, 3)
    foreign = False  # has shapes and masses that are not the model's

    def load(self, client: int, visible: bool = False) -> int:
        """Put it into a client."""
        raise NotImplementedError


class OwnArm(Arm):
    """The arm as the model has it."""

    def __init__(self, model: Any, tree: Tree) -> None:
        self.model, self.form = model, form_of(tree)
        self.mass, self.inertia = _masses(self)

    def load(self, client: int, visible: bool = False) -> int:
        model = self.model
        shapes = [make_shape(model, geoms, model.geom_size, client) for geoms in self.form.geoms]
        mass, inertia = model.body_mass, model.body_inertia
        return make_body(model, self.form.tree, shapes, mass, inertia, client)


class UrdfArm(Arm):
    """Another maker's description of the same arm: masses, shapes, limits.

    `joints` names the URDF's joints by the model's. A link without a joint of its own stands for
    the same body as its parent. Raises `UserError` where its links are not where the model's are.
    """

    foreign = True

    def __init__(self, model: Any, tree: Tree, urdf: str, joints: Mapping[str, str]) -> None:
        self.model, self.path, self.tree = model, _find(urdf), tree
        client = connect()
        try:
            arm = self.load(client)
            self.form = self._form(arm, joints, client)
            self._check_fit(arm, client)
        finally:
            p.disconnect(client)
        self.mass, self.inertia = _masses(self)

    def load(self, client: int, visible: bool = False) -> int:
        root = self.tree.root
        try:
            arm = int(
                p.loadURDF(
                    str(self.path),
                    basePosition=self.model.body_pos[root].tolist(),
                    baseOrientation=xyzw(self.model.body_quat[root]),
                    useFixedBase=True,
                    flags=0 if visible else p.URDF_IGNORE_VISUAL_SHAPES,
                    physicsClientId=client,
                )
            )
        except p.error as error:
            raise UserError(f"sim.urdf={self.path}: PyBullet cannot load it ({error})") from None
        p.changeDynamics(arm, -1, linearDamping=0, angularDamping=0, physicsClientId=client)
        return arm

    def _form(self, arm: int, joints: Mapping[str, str], client: int) -> Form:
        count = p.getNumJoints(arm, physicsClientId=client)
        infos = [p.getJointInfo(arm, i, physicsClientId=client) for i in range(count)]
        number = {info[1].decode(): info[0] for info in infos}
        links = []
        for joint in self.tree.joints:
            theirs = joints[self.model.joint(joint).name]
            if theirs not in number:
                raise unknown(f"joint of {self.path.name}", theirs, number)
            links.append(number[theirs])
        for info in infos:
            if info[2] != p.JOINT_FIXED and info[0] not in links:
                raise UserError(f"sim.joints leaves out {info[1].decode()} of {self.path.name}")
        moved = self.model.jnt_bodyid[self.tree.joints].tolist()
        body = {-1: self.tree.root} | dict(zip(links, moved, strict=True))
        for info in infos:
            body.setdefault(info[0], body[info[16]])  # its parent's
        bodies = tuple(body[i] for i in range(-1, count))
        geoms = []
        for i, stands_for in enumerate(bodies):
            shaped = p.getCollisionShapeData(arm, i - 1, physicsClientId=client)
            geoms.append(tuple(colliding(self.model, stands_for)) if shaped else ())
        return Form(self.tree, tuple(links), bodies, tuple(geoms))

    def _check_fit(self, arm: int, client: int) -> None:
        """Compare where links are with the model, at a few postures."""
        model, data = self.model, mujoco.MjData(self.model)
        pairs = list(zip(self.form.links, self.tree.joints, strict=True))
        low, high = (model.jnt_range[self.tree.joints, i] for i in range(2))
        for share in (0.5, 0.2, 0.8):
            angles = low + share * (high - low)
            data.qpos[model.jnt_qposadr[self.tree.joints]] = angles
            mujoco.mj_kinematics(model, data)
            for (link, _), angle in zip(pairs, angles.tolist(), strict=True):
                p.resetJointState(arm, link, angle, physicsClientId=client)
            for link, joint in pairs:
                where = p.getLinkState(
                    arm, link, computeForwardKinematics=1, physicsClientId=client
                )[4]
                body = int(model.jnt_bodyid[joint])
                off_mm = 1e3 * float(np.linalg.norm(np.array(where) - data.xpos[body]))
                if off_mm > FIT_MM:
                    raise UserError(
                        f"sim.urdf={self.path.name} is another arm: {model.body(body).name} is "
                        f"{off_mm:.1f} mm from the model's (sim.urdf=null builds the model's own)"
                    )


def _masses(arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    client = connect()
    try:
        body, count = arm.load(client), len(arm.form.bodies)
        told = [p.getDynamicsInfo(body, i - 1, physicsClientId=client) for i in range(count)]
    finally:
        p.disconnect(client)
    return np.array([one[0] for one in told]), np.array([one[2] for one in told])


def _find(urdf: str) -> Path:
    """A URDF by its path, or by its place in `pybullet_data`."""
    import pybullet_data

    for path in (Path(urdf), Path(pybullet_data.getDataPath()) / urdf):
        if path.is_file():
            return path
    raise UserError(f"sim.urdf={urdf}: no such file, here or in pybullet_data")
