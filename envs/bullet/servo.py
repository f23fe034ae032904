"""What moves a model's joints, as Bullet's motors: servos, springs, dampers and limits.

A Bullet motor wants a velocity and may use so much force. A joint's motor wants the velocity that
an implicit step of MuJoCo's law would lead to, and may use the force that the law gives now. In
free motion that is an implicit step, stable at any gain; against a load it is the spring itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

STIFF, DEAD = 2.0, 8.0
"""A joint's limit as a spring and damper: multiples of what would stop its mass in a step."""
ENDLESS = 1e9


class Servos:
    """The `joints` of a model that turn or slide, `(M,)`, in `num_worlds` worlds.

    `command` gives the motors' velocities and forces in worlds `ids` `(n,)`, `(n, M)` each, where
    joints are at `q`, move at `v`, are to go to `target` and move an inertia of `mass`.
    """

    def __init__(
        self, model: Any, joints: Sequence[int], num_worlds: int, timestep_s: float
    ) -> None:
        chosen, count = np.array(joints, int), len(joints)
        dofs = model.jnt_dofadr[chosen]
        self.q, self.v = model.jnt_qposadr[chosen], dofs
        place = {joint: i for i, joint in enumerate(joints)}
        self._driven = np.array([place[int(j)] for j in model.actuator_trnid[:, 0]], int)
        self._clip = np.full((2, count), ENDLESS) * [[-1.0], [1.0]]
        limited = model.actuator_forcelimited.astype(bool)
        self._clip[:, self._driven[limited]] = model.actuator_forcerange[limited].T
        self._range = model.actuator_ctrlrange.T
        self._spring = model.jnt_stiffness[chosen]
        self._rest = model.qpos_spring[self.q]
        self._damping = model.dof_damping[dofs]
        self._rotor = model.dof_armature[dofs]
        bounded = model.jnt_limited[chosen].astype(bool)
        self._low, self._high = (
            np.where(bounded, model.jnt_range[chosen, i], sign * np.inf)
            for i, sign in ((0, -1.0), (1, 1.0))
        )
        self._dt = timestep_s
        self.gain = np.zeros((num_worlds, count))
        self.drag = np.zeros((num_worlds, count))
        self.set_gains(np.arange(num_worlds), model.actuator_gainprm, model.actuator_biasprm)

    def set_gains(self, ids: Any, gain: np.ndarray, bias: np.ndarray) -> None:
        """`actuator_gainprm` and `actuator_biasprm` of some worlds."""
        ids = np.atleast_1d(ids)[:, None]
        self.gain[ids, self._driven] = gain[..., 0]
        self.drag[ids, self._driven] = -bias[..., 2]

    def targets(self, control: np.ndarray) -> np.ndarray:
        """Controls `(N, U)`, clamped to their range, as targets of all joints `(N, M)`."""
        out = np.zeros_like(self.gain)
        out[:, self._driven] = np.minimum(np.maximum(control, self._range[0]), self._range[1])
        return out

    def command(
        self, ids: np.ndarray, mass: np.ndarray, q: np.ndarray, v: np.ndarray, target: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        dt, mass, gain, drag = self._dt, mass + self._rotor, self.gain[ids], self.drag[ids]
        ahead, over = target - q, np.minimum(np.maximum(q, self._low), self._high) - q
        hit = np.where(over != 0.0, mass / dt, 0.0)
        wall = STIFF / dt * hit
        passive = self._spring * (self._rest - q) + wall * over
        servo = gain * ahead - drag * v
        stiffness = gain + self._spring + wall
        passive_drag = self._damping + DEAD * hit
        speed = (mass * v + dt * (gain * ahead + passive)) / (
            mass + dt * (drag + passive_drag) + dt**2 * stiffness
        )
        force = np.minimum(np.maximum(servo, self._clip[0]), self._clip[1]) + passive
        return speed, np.abs(force - passive_drag * v)
