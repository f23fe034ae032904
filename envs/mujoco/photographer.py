"""A process that takes images, for one that must not die of it: see `embodied.envs.mujoco.studio`.

Over its standard input come a model and then jobs, over its standard output go images. A message is
a line of JSON, which says what arrays follow, and their bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from embodied.errors import UserError

Message = tuple[dict[str, Any], dict[str, np.ndarray]]


def send(to: IO[bytes], said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write one message."""
    follow = [[name, str(value.dtype), list(value.shape)] for name, value in arrays.items()]
    to.write(json.dumps({**said, "arrays": follow}).encode() + b"\n")
    for value in arrays.values():
        to.write(np.ascontiguousarray(value).tobytes())
    to.flush()


def receive(source: IO[bytes]) -> Message | None:
    """Read one message; None where it ends."""
    line = source.readline()
    if not line.endswith(b"\n"):
        return None
    said = json.loads(line)
    arrays = {}
    for name, dtype, shape in said.pop("arrays"):
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        data = source.read(size)
        if len(data) < size:
            return None
        arrays[name] = np.frombuffer(data, kind).reshape(shape)
    return said, arrays


def main() -> None:
    """Take images until nobody asks for more."""
    jobs, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is not an image
    camera = None
    first = receive(jobs)
    while (job := receive(jobs)) is not None and first is not None:
        try:
            camera = camera or _camera(*first)
            images = _images(camera, *job)
        except UserError as error:
            send(out, {"error": str(error)}, {})
            continue
        send(out, {}, {"images": images})


def _camera(said: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    from .render import Camera, choose_gl

    choose_gl()
    import mujoco

    model = mujoco.MjModel.from_binary_path("model.mjb", {"model.mjb": arrays["model"].tobytes()})
    return Camera(model, said["height"], said["width"])


def _images(camera: Any, said: dict[str, Any], rows: dict[str, np.ndarray]) -> np.ndarray:
    """Of every row's state and own parameters, `(n, H, W, 3)` uint8."""
    import mujoco

    images = []
    for i, state in enumerate(rows["state"]):
        for name, value in rows.items():
            if name != "state":
                of = camera.model.opt if name.startswith("opt.") else camera.model
                field = getattr(of, name.removeprefix("opt."))
                if field.ndim:
                    field[: len(value[i])] = value[i]  # of some, a batch keeps the first alone
                else:
                    setattr(of, name.removeprefix("opt."), value[i])
        mujoco.mj_setState(camera.model, camera.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        images.append(camera.shoot(said["camera"]))
    return np.stack(images)


if __name__ == "__main__":
    main()
