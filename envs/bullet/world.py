"""One world in a PyBullet client of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bodies import ground, make_body, make_shape, trees
from .contacts import Contacts
from .engine import connect, p, prepare
from .forms import Arm, form_of
from .poses import xyzw

RENEWED = 50
"""After how many resets the arm is made anew."""
Rows = Mapping[str, np.ndarray]


class Plan:
    """What all worlds of a model share. The arm's form is the first, then what stands still."""

    def __init__(self, model: Any, arm: Arm) -> None:
        self.model, self.arm = model, arm
        others = [tree for tree in trees(model) if tree.root != arm.form.tree.root]
        self.forms = [arm.form, *(form_of(tree) for tree in (*ground(model), *others))]
        self.free = [self._free(f) for f, form in enumerate(self.forms) if form.tree.free]
        self.jointed = [f for f, form in enumerate(self.forms) if form.tree.joints]
        self.posed = [
            (f, int(model.body_mocapid[form.tree.root]))
            for f, form in enumerate(self.forms)
            if f and model.body_mocapid[form.tree.root] >= 0
        ]
        self.joints = [joint for f in self.jointed for joint in self.forms[f].tree.joints]
        self.contacts = Contacts(model, self.forms)

    def _free(self, f: int) -> tuple[int, slice, slice, np.ndarray, np.ndarray]:
        """A free body's form, where it is in `qpos` and `qvel`, its centre, its axes of inertia."""
        model, body = self.model, self.forms[f].tree.root
        joint = model.body_jntadr[body]
        q, v = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
        where = slice(q, q + 7), slice(v, v + 6)
        return f, *where, model.body_ipos[body], model.body_iquat[body]


class World:
    """A reset makes all but the arm anew, so that nothing of an episode, no contact and no order
    of pairs, is left for the next; and at times the arm too, for PyBullet keeps memory of all that
    was ever removed."""

    def __init__(self, plan: Plan, timestep_s: float) -> None:
        self.plan, self.client, self.timestep_s = plan, connect(), timestep_s
        self._rest = {"physicsClientId": self.client}
        self._resets = 0
        self.bodies: list[int] = []

    def reset(self, state: Rows, own: Rows) -> None:
        """Start anew from a row of "qpos", "qvel", "mocap_pos", "mocap_quat", with parameters."""
        plan, model = self.plan, self.plan.model
        for body in reversed(self.bodies[1:]):  # so that each gets the number again that it had
            p.removeBody(body, **self._rest)
        if self._resets % RENEWED == 0:
            prepare(self.client, self.timestep_s)
            self.bodies = [plan.arm.load(self.client)]
        self._resets += 1
        del self.bodies[1:]
        for form in plan.forms[1:]:
            shapes = [make_shape(model, g, own["geom_size"], self.client) for g in form.geoms]
            mass, inertia = own["body_mass"], own["body_inertia"]
            self.bodies.append(make_body(model, form.tree, shapes, mass, inertia, self.client))
        self._load_arm(own)
        self._touch(own["geom_friction"])
        for f, mocap in plan.posed:
            where, turn = state["mocap_pos"][mocap].tolist(), xyzw(state["mocap_quat"][mocap])
            p.resetBasePositionAndOrientation(self.bodies[f], where, turn, **self._rest)
        self._weights = list(self._weigh())
        for f in plan.jointed:
            form = plan.forms[f]
            for link, joint in zip(form.links, form.tree.joints, strict=True):
                q = float(state["qpos"][model.jnt_qposadr[joint]])
                v = float(state["qvel"][model.jnt_dofadr[joint]])
                p.resetJointState(self.bodies[f], link, q, v, **self._rest)

    def place(self, f: int, row: list[float]) -> None:
        """Put the centre of a free body at a row of `poses.to_centre`."""
        p.resetBasePositionAndOrientation(self.bodies[f], row[:3], row[3:7], **self._rest)
        p.resetBaseVelocity(self.bodies[f], row[7:10], row[10:], **self._rest)

    def inertia(self) -> list[float]:
        """What each joint moves where it is, in the order of the forms."""
        out: list[float] = []
        for f in self.plan.jointed:
            links = self.plan.forms[f].links
            order = sorted(links)
            q = [s[0] for s in p.getJointStates(self.bodies[f], order, **self._rest)]
            matrix = p.calculateMassMatrix(self.bodies[f], q, **self._rest)
            places = [order.index(link) for link in links]
            out += [matrix[i][i] for i in places]
        return out

    def joints(self) -> tuple[list[float], list[float]]:
        """Positions and velocities of all joints, in the order of the forms."""
        states: tuple[Any, ...] = ()
        for f in self.plan.jointed:
            states += p.getJointStates(self.bodies[f], self.plan.forms[f].links, **self._rest)
        return [s[0] for s in states], [s[1] for s in states]

    def base(self, f: int) -> tuple[float, ...]:
        """A row of `poses.to_centre` of a free body, as it is now."""
        pose = p.getBasePositionAndOrientation(self.bodies[f], **self._rest)
        speed = p.getBaseVelocity(self.bodies[f], **self._rest)
        return (*pose[0], *pose[1], *speed[0], *speed[1])

    def step(self, speed: list[float], force: list[float]) -> None:
        start = 0
        for f in self.plan.jointed:
            links = self.plan.forms[f].links
            stop = start + len(links)
            p.setJointMotorControlArray(
                self.bodies[f],
                links,
                p.VELOCITY_CONTROL,
                targetVelocities=speed[start:stop],
                forces=force[start:stop],
                **self._rest,
            )
            start = stop
        for body, link, weight in self._weights:
            if link < 0:
                centre = p.getBasePositionAndOrientation(body, **self._rest)[0]
            else:
                centre = p.getLinkState(body, link, **self._rest)[0]
            p.applyExternalForce(body, link, weight, centre, p.WORLD_FRAME, **self._rest)
        p.stepSimulation(**self._rest)

    def renew(self) -> None:
        """Have the next reset make the arm anew as well: this world is broken."""
        self._resets = 0

    def close(self) -> None:
        p.disconnect(self.client)

    def _load_arm(self, own: Rows) -> None:
        """Give the arm's links their share of mass: as much more as its body has in the model."""
        arm, model = self.plan.arm, self.plan.model
        for i, body in enumerate(arm.form.bodies):
            if arm.mass[i] and model.body_mass[body]:
                more = float(own["body_mass"][body] / model.body_mass[body])
                turns = (arm.inertia[i] * more).tolist()
                mass = float(arm.mass[i]) * more
                p.changeDynamics(
                    self.bodies[0], i - 1, mass=mass, localInertiaDiagonal=turns, **self._rest
                )

    def _touch(self, friction: np.ndarray) -> None:
        """Set who touches whom, and how roughly."""
        contacts, sides = self.plan.contacts, []
        rubs = contacts.links(friction)
        spins = contacts.spins(friction, rubs)
        for k, (f, i) in enumerate(contacts.places):
            side = self.bodies[f], i - 1
            p.changeDynamics(*side, lateralFriction=float(rubs[k]), **self._rest)
            if spins[k] and (f or not self.plan.arm.foreign):
                p.changeDynamics(*side, spinningFriction=spins[k], **self._rest)
            group, mask = contacts.groups[k], contacts.masks[k]
            p.setCollisionFilterGroupMask(*side, group, mask, **self._rest)
            sides.append(side)
        for i, j in contacts.apart:
            one, other = sides[i], sides[j]
            p.setCollisionFilterPair(one[0], other[0], one[1], other[1], 0, **self._rest)

    def _weigh(self) -> Any:
        """The weight of what gravity is not compensated of: body, link, force."""
        model, gravity = self.plan.model, self.plan.model.opt.gravity
        for f, form in enumerate(self.plan.forms):
            for i, body in enumerate(form.bodies):
                share = 1.0 - float(model.body_gravcomp[body])
                told = p.getDynamicsInfo(self.bodies[f], i - 1, **self._rest)[0]
                if told and share and (f or i):
                    yield self.bodies[f], i - 1, (told * share * gravity).tolist()
