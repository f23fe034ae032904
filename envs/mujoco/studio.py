"""Images of many worlds at once, taken by processes of their own.

OpenGL in software keeps one core busy, and its contexts cannot be trusted on several threads of one
process: once in some hundred thousand images it brought a whole run down with it. A process that
dies here is replaced, and takes its images again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from embodied.errors import UserError

from .photographer import receive, send
from .render import Camera, choose_gl

FEWEST = 4
"""Images that are worth a process."""
TRIES = 3


class Studio:
    """Renders worlds of a batch at one image size, by up to `processes` at once.

    Where there is one, or a window system, which draws in the calling thread alone, a camera in
    this process does it.
    """

    def __init__(self, height: int, width: int, processes: int) -> None:
        alone = processes == 1 or choose_gl() not in ("egl", "osmesa")
        self.height, self.width = height, width
        self._most = 1 if alone else processes
        self._camera: Camera | None = None
        self._photographers: list[Photographer] = []

    @property
    def replaced(self) -> int:
        """Processes that died and were replaced."""
        return sum(one.replaced for one in self._photographers)

    def images(self, batch: Any, worlds: np.ndarray, camera: str) -> np.ndarray:
        """Worlds `(n,)` of a batch seen by `camera`, `(n, H, W, 3)` uint8."""
        if self._most == 1 or len(worlds) < FEWEST:
            self._camera = self._camera or Camera(batch.get_model(0), self.height, self.width)
            return np.stack([self._camera.image(batch, int(i), camera) for i in worlds])
        count = max(1, min(self._most, len(worlds) // FEWEST))
        while len(self._photographers) < count:
            model = _saved(batch.get_model(0))
            self._photographers.append(Photographer(model, self.height, self.width))
        parts = np.array_split(worlds, count)
        waiting = [
            one.take(_rows(batch, part), camera)
            for one, part in zip(self._photographers, parts, strict=False)
        ]
        return np.concatenate([images() for images in waiting])

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
        for one in self._photographers:
            one.close()
        self._camera, self._photographers = None, []

    def __del__(self) -> None:
        self.close()


class Photographer:
    """A process that takes images of states of a saved `model`."""

    def __init__(self, model: np.ndarray, height: int, width: int) -> None:
        self.model, self.height, self.width = model, height, width
        self.replaced = 0
        self._process: subprocess.Popen[bytes] | None = None

    def take(self, rows: dict[str, np.ndarray], camera: str) -> Callable[[], np.ndarray]:
        """Set it to work; what waits for the images `(n, H, W, 3)` and returns them.

        Raises `UserError`, there, for what a camera lacks, and where no process lives to the end.
        """
        begun = self._begin(rows, camera)

        def images() -> np.ndarray:
            answer = self._answer() if begun else None
            for _ in range(TRIES - 1):
                if answer is not None:
                    break
                self._replace()
                answer = self._answer() if self._begin(rows, camera) else None
            if answer is None:
                raise UserError(f"rendering died {TRIES} times over the same images")
            said, arrays = answer
            if "error" in said:
                raise UserError(said["error"])
            return arrays["images"]

        return images

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # it died
                pipe.close()  # type: ignore[union-attr]
        try:
            process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _begin(self, rows: dict[str, np.ndarray], camera: str) -> bool:
        """Hand it the job; False where it died before it had it all."""
        fresh = self._process is None
        self._process = process = self._process or _start()
        assert process.stdin is not None
        try:
            if fresh:
                said = {"height": self.height, "width": self.width}
                send(process.stdin, said, {"model": self.model})
            send(process.stdin, {"camera": camera}, rows)
        except OSError:
            return False
        return True

    def _answer(self) -> Any:
        assert self._process is not None
        return receive(self._process.stdout)  # type: ignore[arg-type]

    def _replace(self) -> None:
        assert self._process is not None
        self._process.wait()
        code, self.replaced = self._process.returncode, self.replaced + 1
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        warnings.warn(f"a process that renders died ({why}): another takes over", stacklevel=2)
        self.close()


def _start() -> subprocess.Popen[bytes]:
    """A new process, out of reach of the terminal's Ctrl-C: it ends when its input does."""
    command = [sys.executable, "-m", "embodied.envs.mujoco.photographer"]
    environ = {"LP_NUM_THREADS": "0", **os.environ}  # each has a core to itself
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        start_new_session=True,
    )


def _saved(model: Any) -> np.ndarray:
    import mujoco

    out = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, out)
    return out


def _rows(batch: Any, worlds: np.ndarray) -> dict[str, np.ndarray]:
    """The states of some worlds, and the parameters that differ between worlds."""
    import mujoco

    own = {name: batch.expanded(name) for name in mujoco.batch.MODEL_FIELDS}
    rows = {name: value[worlds] for name, value in own.items() if value is not None}
    return {"state": batch.state[worlds], **rows}
