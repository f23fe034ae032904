"""Camera images of batched worlds, on a screenless machine too (EGL, else OSMesa)."""

from __future__ import annotations

import atexit
import ctypes.util
import importlib
import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
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
        self._data = mujoco.MjData(model)

    def image(self, batch: Any, world: int, camera: str) -> np.ndarray:
        """World `world` of a batch seen by `camera`, `(H, W, 3)` uint8."""
        batch.get_model(world, self.model)
        batch.get_data(world, self._data)
        self._mujoco.mj_kinematics(self.model, self._data)
        self._mujoco.mj_comPos(self.model, self._data)  # which cameras may track
        self._mujoco.mj_camlight(self.model, self._data)
        self._mujoco.mj_tendon(self.model, self._data)
        self._renderer.update_scene(self._data, camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


FEWEST = 4
"""Images that are worth a thread."""


class Studio:
    """Renders many worlds at once, on up to `threads` threads with a `Camera` of their own each.

    In software an image of a small scene keeps one core busy. A window system draws in the calling
    thread alone, so there is one camera then. `make` makes one.
    """

    def __init__(self, make: Callable[[], Camera], threads: int) -> None:
        alone = threads == 1 or choose_gl() not in ("egl", "osmesa")
        self._operators: list[_Operator] = []
        self._make, self._most = make, 1 if alone else threads
        self._camera: Camera | None = None

    def images(self, batch: Any, worlds: np.ndarray, camera: str) -> np.ndarray:
        """Worlds `(n,)` of a batch seen by `camera`, `(n, H, W, 3)` uint8."""
        if self._most == 1:
            self._camera = self._camera or self._make()
            return np.stack([self._camera.image(batch, int(i), camera) for i in worlds])
        count = max(1, min(self._most, len(worlds) // FEWEST))
        while len(self._operators) < count:
            self._operators.append(_Operator(self._make))
        parts = np.array_split(worlds, count)
        taken = [
            operator.take(batch, part, camera)
            for operator, part in zip(self._operators, parts, strict=False)
        ]
        return np.concatenate([part.result() for part in taken])

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
        for operator in self._operators:
            operator.close()
        self._camera, self._operators = None, []

    def __del__(self) -> None:
        self.close()


class _Operator:
    """A thread with a camera, which must be made, used and closed in one and the same."""

    _all: weakref.WeakSet[_Operator] = weakref.WeakSet()

    def __init__(self, make: Callable[[], Camera]) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(make, self._jobs), daemon=True)
        self._thread.start()
        _Operator._all.add(self)

    def take(self, batch: Any, worlds: np.ndarray, camera: str) -> Future[np.ndarray]:
        done: Future[np.ndarray] = Future()
        self._jobs.put((done, batch, worlds, camera))
        return done

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join(timeout=5.0)


def _work(make: Callable[[], Camera], jobs: queue.SimpleQueue[Any]) -> None:
    camera = None
    while (job := jobs.get()) is not None:
        done, batch, worlds, name = job
        try:
            camera = camera or make()
            done.set_result(np.stack([camera.image(batch, int(i), name) for i in worlds]))
        except BaseException as error:  # the caller's to handle, whatever it is
            done.set_exception(error)
    if camera is not None:
        camera.close()


@atexit.register
def _close_all() -> None:
    """While the threads still run: what is left to the interpreter's end is closed in another."""
    for operator in list(_Operator._all):
        operator.close()


def _apply_gl() -> None:
    """Make the choice hold even where MuJoCo was imported before it was made."""
    from mujoco.rendering.classic import gl_context

    if os.environ.get("MUJOCO_GL", "").lower() != gl_context._MUJOCO_GL:
        importlib.reload(gl_context)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
