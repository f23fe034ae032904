"""The robot's own shape, as the guard knows it: how near it is to what must not be.

A margin is positive where all is well. They are measured on the robot's MJCF model, from joint
positions alone, with what the tool's Jacobian says about the way there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

MARGINS = ("self-collision", "singularity", "x low", "x high", "y low", "y high", "z low", "z high")
LOOK_M = 0.1
"""Parts farther apart than this are not looked at closely."""


class Body:
    """Margins of one arm, whose `joints` (arm, then fingers) are given by name.

    Of self-collision (m, beyond `apart_m`), of singularity (the tool Jacobian's smallest singular
    value, beyond `singular`), and of the tool's place in a box (m). Without a box the last six are
    infinite. Neighbouring links, and those the model says may touch, do not count; parts that are
    near each other even at `home` keep half of their distance there.
    """

    def __init__(
        self,
        xml: str,
        joints: Sequence[str],
        moving: Sequence[str],
        tool: str,
        home: Sequence[float],
        box: Sequence[Sequence[float]] | None,
        apart_m: float,
        singular: float,
    ) -> None:
        import mujoco

        self._mj = mujoco
        self._model = model = mujoco.MjModel.from_xml_string(xml)
        self._data = mujoco.MjData(model)
        self._q = np.array([model.joint(name).qposadr[0] for name in joints])
        self._v = np.array([model.joint(name).dofadr[0] for name in joints])
        self._arm = np.array([model.joint(name).dofadr[0] for name in moving])
        self._tool = model.site(tool).id
        self._box = None if box is None else np.asarray(box, float)
        self._singular = singular
        self._jac = np.zeros((2, 3, model.nv))
        pairs = [pair for pair in combinations(range(model.ngeom), 2) if self._can_touch(*pair)]
        self._place(np.asarray(home, float))
        at_home = [self._distance(*pair) for pair in pairs]
        kept = [
            (*pair, min(apart_m, 0.5 * d)) for pair, d in zip(pairs, at_home, strict=True) if d > 0
        ]
        self._pairs = np.array([pair[:2] for pair in kept], int).reshape(-1, 2)
        self._gaps = np.array([pair[2] for pair in kept])
        self._reach = model.geom_rbound[self._pairs].sum(1) + apart_m + LOOK_M

    def margins(self, q: np.ndarray) -> np.ndarray:
        """All `MARGINS` `(8,)` at joint positions `q` `(A,)` in rad and m."""
        self._place(q)
        out = np.full(len(MARGINS), np.inf)
        out[0] = self._apart()
        full = self._jac.reshape(6, -1)[:, self._arm]
        out[1] = np.linalg.svd(full, compute_uv=False)[-1] - self._singular
        if self._box is not None:
            place = self._data.site_xpos[self._tool]
            out[2::2], out[3::2] = place - self._box[:, 0], self._box[:, 1] - place
        return out

    def slopes(self) -> np.ndarray:
        """How the tool moves with each joint, `(3, A)`, where `margins` was last asked."""
        return self._jac[0][:, self._v]

    def tool(self, q: np.ndarray) -> np.ndarray:
        """Where the tool is, `(3,)` in m."""
        self._place(q)
        return self._data.site_xpos[self._tool].copy()

    def _place(self, q: np.ndarray) -> None:
        self._data.qpos[self._q] = q
        self._mj.mj_kinematics(self._model, self._data)
        self._mj.mj_comPos(self._model, self._data)
        self._mj.mj_jacSite(self._model, self._data, self._jac[0], self._jac[1], self._tool)

    def _apart(self) -> float:
        """How much farther apart than needed the nearest parts are, in m; `LOOK_M` at most."""
        place = self._data.geom_xpos[self._pairs]
        offset = place[:, 0] - place[:, 1]
        near = np.flatnonzero(np.einsum("ij,ij->i", offset, offset) < self._reach**2)
        return min((self._distance(*self._pairs[i]) - self._gaps[i] for i in near), default=LOOK_M)

    def _distance(self, one: int, other: int) -> float:
        return float(
            self._mj.mj_geomDistance(self._model, self._data, one, other, 2 * LOOK_M, None)
        )

    def _can_touch(self, one: int, other: int) -> bool:
        model = self._model
        bodies = model.geom_bodyid[[one, other]]
        if model.body_weldid[bodies[0]] == model.body_weldid[bodies[1]]:
            return False
        meets = model.geom_contype[one] & model.geom_conaffinity[other]
        meets |= model.geom_contype[other] & model.geom_conaffinity[one]
        first, second = (int(model.body_weldid[body]) for body in bodies)
        above, beyond = (int(model.body_weldid[model.body_parentid[b]]) for b in (first, second))
        low, high = sorted(map(int, bodies))
        excluded = (low << 16) + high in model.exclude_signature
        return bool(meets) and first != beyond and second != above and not excluded
