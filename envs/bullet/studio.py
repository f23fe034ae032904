"""Pictures of a world, by Bullet's software renderer."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from .bodies import MESH, PLANE, SHAPES, measures, vertices
from .engine import connect, p
from .forms import UrdfArm

NEAR_M, FAR_M = 0.01, 30.0
SHOWN = 3
"""Groups of geoms below this are seen."""
THIN_M = 5e-4
SUN = (0.45, -0.45, 0.85)


class Studio:
    """A client that only shows: every geom that is to be seen, and the arm in its own shape."""

    def __init__(self, plan: Any) -> None:
        self.plan, self.model = plan, plan.model
        self.client = connect()
        self._rest = {"physicsClientId": self.client}
        self._data = mujoco.MjData(self.model)
        arm = plan.arm
        self._arm = arm.load(self.client, visible=True) if isinstance(arm, UrdfArm) else None
        hidden = arm.form.tree.root if self._arm is not None else -1
        self._geoms = {
            g: (-1, b"")
            for g in range(self.model.ngeom)
            if self.model.geom_group[g] < SHOWN
            and self.model.body_rootid[self.model.geom_bodyid[g]] != hidden
            and self._colour(g)[3] > 0
        }

    def image(self, row: dict[str, np.ndarray], camera: int, height: int, width: int) -> np.ndarray:
        """What a camera of the model sees of one world, `(height, width, 3)`."""
        data = self._data
        data.qpos[:] = row["qpos"]
        if self.model.nmocap:
            data.mocap_pos[:], data.mocap_quat[:] = row["mocap_pos"], row["mocap_quat"]
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_camlight(self.model, data)
        self._pose(row)
        eye, axes = data.cam_xpos[camera], data.cam_xmat[camera].reshape(3, 3)
        view = p.computeViewMatrix(eye.tolist(), (eye - axes[:, 2]).tolist(), axes[:, 1].tolist())
        fovy = float(self.model.cam_fovy[camera])
        lens = p.computeProjectionMatrixFOV(fovy, width / height, NEAR_M, FAR_M)
        pixels = p.getCameraImage(
            width, height, view, lens, lightDirection=SUN, shadow=0,
            renderer=p.ER_TINY_RENDERER, **self._rest,
        )[2]  # fmt: skip
        return np.reshape(np.asarray(pixels, np.uint8), (height, width, 4))[:, :, :3].copy()

    def close(self) -> None:
        p.disconnect(self.client)

    def _pose(self, row: dict[str, np.ndarray]) -> None:
        if self._arm is not None:
            form = self.plan.arm.form
            for link, joint in zip(form.links, form.tree.joints, strict=True):
                angle = float(row["qpos"][self.model.jnt_qposadr[joint]])
                p.resetJointState(self._arm, link, angle, **self._rest)
        turn = np.zeros(4)
        for g, (body, known) in self._geoms.items():
            size = row["geom_size"][g].tobytes()
            if size != known:
                if body >= 0:
                    p.removeBody(body, **self._rest)
                body = self._show(g, row["geom_size"])
                self._geoms[g] = body, size
            mujoco.mju_mat2Quat(turn, self._data.geom_xmat[g])
            where = self._data.geom_xpos[g].tolist()
            p.resetBasePositionAndOrientation(
                body, where, turn[[1, 2, 3, 0]].tolist(), **self._rest
            )

    def _show(self, geom: int, sizes: np.ndarray) -> int:
        """A body that is only seen."""
        model, colour = self.model, self._colour(geom)
        kind = int(model.geom_type[geom])
        if kind == MESH:
            mesh = model.geom_dataid[geom]
            start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
            corners = vertices(model, geom)[model.mesh_face[start : start + count]]  # (F, 3, 3)
            flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-12
            shape: dict[str, Any] = {
                "shapeType": p.GEOM_MESH,
                "vertices": corners.reshape(-1, 3).tolist(),
                "normals": np.repeat(flat, 3, axis=0).tolist(),
                "indices": list(range(3 * count)),
            }
        elif kind == PLANE:
            half = [*(sizes[geom, :2].tolist()), THIN_M]
            shape = {"shapeType": p.GEOM_BOX, "halfExtents": half}
            shape["visualFramePosition"] = [0.0, 0.0, -THIN_M]
        elif kind in SHAPES:
            kind, radius, half, length = measures(model, geom, sizes)
            shape = {"shapeType": kind, "radius": radius, "halfExtents": half, "length": length}
        else:
            return int(p.createMultiBody(0, -1, -1, **self._rest))
        visual = p.createVisualShape(rgbaColor=colour, **shape, **self._rest)
        return int(p.createMultiBody(0, -1, visual, **self._rest))

    def _colour(self, geom: int) -> list[float]:
        """Red, green, blue and opacity; a texture as its mean."""
        model, material = self.model, int(self.model.geom_matid[geom])
        if material < 0:
            return model.geom_rgba[geom].tolist()
        colour = model.mat_rgba[material].copy()
        texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
        if texture >= 0:
            start, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
            count = int(model.tex_height[texture] * model.tex_width[texture]) * channels
            pixels = model.tex_data[start : start + count].reshape(-1, channels)
            colour[:3] *= pixels[:, :3].mean(axis=0) / 255.0
        return colour.tolist()
