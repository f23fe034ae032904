"""Camera images of batched worlds, on a screenless machine too (EGL, else OSMesa)."""

from __future__ import annotations

import ctypes.util
import importlib
import os
from typing import Any

import numpy as np

from embodied.errors import UserError


def choose_gl() -> str:
    """Pick how to render and tell MuJoCo, which reads `MUJOCO_GL` when it is imported."""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if os.environ.get("DISPLAY"):
        return "glfw"
    for name, libraries in (("egl", ("EGL", "OpenGL")), ("osmesa", ("OSMesa",))):
        if all(ctypes.util.find_library(library) for library in libraries):
            os.environ["MUJOCO_GL"] = name
            return name
    os.environ["MUJOCO_GL"] = "disable"
    return "none"


SMALL_PX = 128
"""Up to this size round shapes are drawn from fewer triangles: in half the time, in software, with
a handful of pixels on their edges changed."""


class Camera:
    """Renders single worlds of a model at one image size.

    Shadows, reflections and multisampling are off by default: in software they cost 20 times.
    """

    def __init__(self, model: Any, height: int, width: int, fancy: bool = False) -> None:
        import mujoco

        _apply_gl()
        self._mujoco = mujoco
        self.model = model
        if not fancy:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        if max(height, width) <= SMALL_PX:
            model.vis.quality.numslices, model.vis.quality.numstacks = 16, 8
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # every GL back end has an exception of its own
            raise UserError(
                f"cannot render without OpenGL ({_one_line(error)}): install libegl1 "
                "libopengl0 libgl1-mesa-dri (Debian), or set MUJOCO_GL=osmesa|glfw"
            ) from error
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = fancy
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = fancy
        self.data = mujoco.MjData(model)

    def image(self, batch: Any, world: int, camera: str) -> np.ndarray:
        """World `world` of a batch seen by `camera`, `(H, W, 3)` uint8."""
        batch.get_model(world, self.model)
        batch.get_data(world, self.data)
        return self.shoot(camera)

    def shoot(self, camera: str) -> np.ndarray:
        """What `model` and `data` are in, seen by `camera`, `(H, W, 3)` uint8."""
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_comPos(self.model, self.data)  # which cameras may track
        self._mujoco.mj_camlight(self.model, self.data)
        self._mujoco.mj_tendon(self.model, self.data)
        self._renderer.update_scene(self.data, camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def _apply_gl() -> None:
    """Make the choice hold even where MuJoCo was imported before it was made."""
    from mujoco.rendering.classic import gl_context

    if os.environ.get("MUJOCO_GL", "").lower() != gl_context._MUJOCO_GL:
        importlib.reload(gl_context)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
