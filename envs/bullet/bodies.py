"""The bodies of a compiled MuJoCo model as PyBullet multibodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from .engine import p
from .poses import rotate, xyzw

_GEOM, _JOINT = mujoco.mjtGeom, mujoco.mjtJoint
SHAPES = {
    int(_GEOM.mjGEOM_SPHERE): p.GEOM_SPHERE,
    int(_GEOM.mjGEOM_BOX): p.GEOM_BOX,
    int(_GEOM.mjGEOM_CAPSULE): p.GEOM_CAPSULE,
    int(_GEOM.mjGEOM_CYLINDER): p.GEOM_CYLINDER,
}
MESH, PLANE = int(_GEOM.mjGEOM_MESH), int(_GEOM.mjGEOM_PLANE)
FREE, SLIDE, HINGE = int(_JOINT.mjJNT_FREE), int(_JOINT.mjJNT_SLIDE), int(_JOINT.mjJNT_HINGE)
TRIFLE_KG = 1e-3
"""Of what is between two joints of one body; its moments of inertia are a trifle too."""
HERE, UPRIGHT = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Limb:
    """One rigid part of a multibody, a base or a link: the geoms of a body that collide.

    A mesh is a limb of its own, fixed to its body's first: Bullet compounds take none.
    """

    body: int
    geoms: tuple[int, ...] = ()
    joint: int = -1  # of the model, to its parent; -1: fixed
    parent: int = -1  # index of a limb
    heavy: bool = True  # has the body's mass and inertia
    position: tuple[float, ...] = HERE  # in its parent's frame
    quat: tuple[float, ...] = UPRIGHT  # as Bullet has it


@dataclass(frozen=True)
class Tree:
    """A body of the world with all that hangs on it: the base first. `free`: has a free joint."""

    limbs: tuple[Limb, ...]
    free: bool

    @property
    def root(self) -> int:
        return self.limbs[0].body

    @property
    def joints(self) -> list[int]:
        """The model's joints that move its limbs, in the order of the limbs."""
        return [limb.joint for limb in self.limbs if limb.joint >= 0]


def ground(model: Any) -> list[Tree]:
    """What stands still: every geom of the world that collides, each a tree of its own."""
    return [Tree((Limb(0, (geom,)),), False) for geom in colliding(model, 0)]


def trees(model: Any) -> list[Tree]:
    """The model's bodies, but for the world itself."""
    roots = [b for b in range(1, model.nbody) if model.body_parentid[b] == 0]
    return [_tree(model, root) for root in roots]


def _tree(model: Any, root: int) -> Tree:
    free = any(model.jnt_type[j] == FREE for j in _joints(model, root))
    limbs: list[Limb] = []
    place: dict[int, int] = {}
    for body in range(root, model.nbody):
        if int(model.body_rootid[body]) != root:
            continue
        geoms = colliding(model, body)
        meshes = [g for g in geoms if model.geom_type[g] == MESH]
        simple = tuple(g for g in geoms if g not in meshes)
        if not simple and meshes:
            simple = (meshes.pop(0),)
        parent = place.get(int(model.body_parentid[body]), -1)
        position, quat = tuple(model.body_pos[body].tolist()), tuple(xyzw(model.body_quat[body]))
        joints = [] if free and body == root else _joints(model, body)
        if body == root and joints:  # a base that cannot move, under the first joint
            limbs.append(Limb(body, heavy=False))
            parent, position, quat = 0, HERE, UPRIGHT
        for joint in joints[:-1]:
            limbs.append(Limb(body, (), joint, parent, False, position, quat))
            parent, position, quat = len(limbs) - 1, HERE, UPRIGHT
        joint = joints[-1] if joints else -1
        limbs.append(Limb(body, simple, joint, parent, True, position, quat))
        place[body] = len(limbs) - 1
        limbs += [Limb(body, (mesh,), -1, place[body], False) for mesh in meshes]
    return Tree(tuple(limbs), free)


def _joints(model: Any, body: int) -> list[int]:
    start = int(model.body_jntadr[body])
    return list(range(start, start + int(model.body_jntnum[body]))) if start >= 0 else []


def colliding(model: Any, body: int) -> list[int]:
    """A body's geoms that can touch anything."""
    start, count = int(model.body_geomadr[body]), int(model.body_geomnum[body])
    touches = model.geom_contype | model.geom_conaffinity
    return [g for g in range(start, start + count) if count and touches[g]]


def make_shape(model: Any, geoms: tuple[int, ...], sizes: np.ndarray, client: int) -> int:
    """A collision shape of some geoms in the frame of their body; -1 for none."""
    if not geoms:
        return -1
    first = geoms[0]
    frames = [model.geom_pos[g].tolist() for g in geoms], [xyzw(model.geom_quat[g]) for g in geoms]
    if model.geom_type[first] == PLANE:  # wherever in it its middle is
        normal = rotate(model.geom_quat[first], np.array([0.0, 0.0, 1.0])).tolist()
        return int(p.createCollisionShape(p.GEOM_PLANE, planeNormal=normal, physicsClientId=client))
    if model.geom_type[first] == MESH:
        return int(
            p.createCollisionShape(
                p.GEOM_MESH,
                vertices=vertices(model, first).tolist(),
                collisionFramePosition=frames[0][0],
                collisionFrameOrientation=frames[1][0],
                physicsClientId=client,
            )
        )
    kinds, radii, halves, lengths = zip(*(measures(model, g, sizes) for g in geoms), strict=True)
    return int(
        p.createCollisionShapeArray(
            shapeTypes=kinds,
            radii=radii,
            halfExtents=halves,
            lengths=lengths,
            collisionFramePositions=frames[0],
            collisionFrameOrientations=frames[1],
            physicsClientId=client,
        )
    )


def measures(model: Any, geom: int, sizes: np.ndarray) -> tuple[int, float, list[float], float]:
    """A simple geom as Bullet has it: its kind, radius, half extents and length."""
    kind, size = SHAPES[int(model.geom_type[geom])], sizes[geom].tolist()
    if kind == p.GEOM_BOX:
        return kind, 0.0, size, 0.0
    return kind, size[0], [0.0] * 3, 0.0 if kind == p.GEOM_SPHERE else 2.0 * size[1]


def vertices(model: Any, geom: int) -> np.ndarray:
    mesh = model.geom_dataid[geom]
    start = model.mesh_vertadr[mesh]
    return model.mesh_vert[start : start + model.mesh_vertnum[mesh]]


def make_body(
    model: Any, tree: Tree, shapes: list[int], mass: np.ndarray, inertia: np.ndarray, client: int
) -> int:
    """A multibody of `tree`: a shape for each limb, `mass` `(B,)` and `inertia` of all bodies."""
    base, *links = tree.limbs
    heavy = [_weight(limb, mass) for limb in tree.limbs]
    heavy[0] = heavy[0] if tree.free else 0.0
    inner = [_centre(model, limb) for limb in tree.limbs]
    axes = [model.jnt_axis[limb.joint].tolist() if limb.joint >= 0 else [0, 0, 1] for limb in links]
    start = model.geom_pos[base.geoms[0]] if _is_plane(model, base) else model.body_pos[base.body]
    body = int(
        p.createMultiBody(
            heavy[0],
            shapes[0],
            basePosition=start.tolist(),
            baseOrientation=xyzw(model.body_quat[base.body]),
            baseInertialFramePosition=inner[0][0] if tree.free else [0, 0, 0],
            baseInertialFrameOrientation=inner[0][1] if tree.free else [0, 0, 0, 1],
            linkMasses=heavy[1:],
            linkCollisionShapeIndices=shapes[1:],
            linkVisualShapeIndices=[-1] * len(links),
            linkPositions=[limb.position for limb in links],
            linkOrientations=[limb.quat for limb in links],
            linkInertialFramePositions=[where for where, _ in inner[1:]],
            linkInertialFrameOrientations=[turn for _, turn in inner[1:]],
            linkParentIndices=[limb.parent for limb in links],
            linkJointTypes=[_joint_type(model, limb) for limb in links],
            linkJointAxis=axes,
            physicsClientId=client,
        )
    )
    p.changeDynamics(body, -1, linearDamping=0, angularDamping=0, physicsClientId=client)
    for i, limb in enumerate(tree.limbs):
        if heavy[i]:
            turns = inertia[limb.body].tolist() if limb.heavy else [1e-2 * TRIFLE_KG] * 3
            p.changeDynamics(body, i - 1, localInertiaDiagonal=turns, physicsClientId=client)
    return body


def _is_plane(model: Any, limb: Limb) -> bool:
    return bool(limb.geoms) and model.geom_type[limb.geoms[0]] == PLANE


def _weight(limb: Limb, mass: np.ndarray) -> float:
    if limb.heavy:
        return float(mass[limb.body])
    return TRIFLE_KG if limb.joint >= 0 else 0.0


def _centre(model: Any, limb: Limb) -> tuple[list[float], list[float]]:
    """Where a limb's centre of mass is in its frame, and how its axes of inertia lie."""
    if not limb.heavy:
        return [0.0] * 3, [0.0, 0.0, 0.0, 1.0]
    return model.body_ipos[limb.body].tolist(), xyzw(model.body_iquat[limb.body])


def _joint_type(model: Any, limb: Limb) -> int:
    if limb.joint < 0:
        return int(p.JOINT_FIXED)
    slides = model.jnt_type[limb.joint] == SLIDE
    return int(p.JOINT_PRISMATIC if slides else p.JOINT_REVOLUTE)
