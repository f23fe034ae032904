"""The camera of a simulated robot, in a process of its own: `python -m embodied.deploy.camera`.

It photographs the scene that the plant shows it and publishes the images as a camera would, at its
own rate. Physics never waits for it.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

import cv2
import numpy as np
from hydra.utils import get_method
from omegaconf import OmegaConf

from embodied.build import make
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import CompressedImage
from embodied.deploy.process import closed

PARTS = ("qpos", "mocap_pos", "mocap_quat", "geom_size")
MARKED = "embodied.envs.tasks.marked.marked"
PHYSICS = {"_target_": "embodied.envs.mujoco.sim.MujocoSim", "threads": 1}
QUALITY = 95
HELD_S = 0.5
"""A scene that the plant has not shown again for so long is no longer there to be seen."""


def scene_sizes(model: Any) -> dict[str, int]:
    """Numbers of each part of a scene, of a compiled model."""
    return {
        "qpos": int(model.nq),
        "mocap_pos": 3 * int(model.nmocap),
        "mocap_quat": 4 * int(model.nmocap),
        "geom_size": 3 * int(model.ngeom),
    }


def scene_slot(model: Any) -> dict[str, int]:
    """The slot in which the plant shows a scene: a stamp (ns since 1970), then all its parts."""
    return {"scene": 1 + sum(scene_sizes(model).values())}


class Camera:
    """Photographs scenes of one task with markers on its cubes, from the camera of `name`."""

    def __init__(self, task: Any, name: str, height: int, width: int) -> None:
        source = get_method(MARKED)(task.model(), task.robot)
        self._sim = make(OmegaConf.create(PHYSICS), source=source, num_worlds=1)
        self.model = self._sim.model
        self._sizes = scene_sizes(self.model)
        self._name, self._height, self._width = name, height, width
        self._shown: bytes | None = None

    def photograph(self, scene: np.ndarray) -> np.ndarray:
        """An image `(H, W, 3)` rgb of a scene's parts, one after the other."""
        ends = np.cumsum(list(self._sizes.values()))[:-1]
        parts = dict(zip(PARTS, np.split(scene, ends), strict=True))
        world, sizes = np.array([0]), parts.pop("geom_size")
        if sizes.tobytes() != self._shown:
            self._sim.set_parameters({"geom_size": sizes.reshape(1, -1, 3)}, world)
            self._shown = sizes.tobytes()
        rows = {
            "qpos": parts["qpos"][None],
            "mocap_pos": parts["mocap_pos"].reshape(1, -1, 3),
            "mocap_quat": parts["mocap_quat"].reshape(1, -1, 4),
        }
        self._sim.reset(rows, world)
        return self._sim.render(self._name, world, self._height, self._width)[0]


def main() -> int:
    """Photograph until the plant is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(sys.stdin.buffer.readline())
    settings, life = given["camera"], given["life"]
    task = make(OmegaConf.create(given["task"]))
    camera = Camera(task, settings["name"], settings["height"], settings["width"])
    mailbox = Mailbox(scene_slot(camera.model), given["scene"])
    transport = make(given["transport"])
    transport.advertise(settings["topic"], CompressedImage)
    due, period = time.monotonic(), 1.0 / settings["rate_hz"]
    while not closed(life):
        seen = mailbox.read("scene")
        if seen is not None and time.time_ns() - seen[1][0] < HELD_S * 1e9:
            rgb = camera.photograph(seen[1][1:])
            fine, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            if fine:
                image = CompressedImage(int(seen[1][0]), "jpeg", data.tobytes())
                transport.publish(settings["topic"], image)
        due = max(due + period, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    transport.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
