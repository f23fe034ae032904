"""A real robot as one more simulator: one world, on the clock on the wall.

What a task reads of it is what was measured: joints as the guard heard them, objects as a tracker
saw them. What it commands goes to the guard. So a task's own code makes observations of a robot,
and commands of actions, as it does in simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import mujoco
import numpy as np

from embodied.errors import UserError
from embodied.sim import ModelSource, Rows

from ..named import Named


class Link(Protocol):
    """What stands between this and the robot: `embodied.deploy.session.Session`."""

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and speeds `(A,)` of the mapped joints, as last measured."""

    def objects(self) -> Mapping[str, np.ndarray]:
        """Poses `(7,)` of objects by name, as last seen."""

    def command(self, target: np.ndarray) -> None:
        """Ask the guard for joint positions `(A,)`."""

    def prepare(self, target: np.ndarray) -> None:
        """Get the robot and its objects to where an episode starts: joints at `target` `(A,)`."""

    def failed(self) -> bool:
        """Whether the guard has stopped the robot."""


class RobotSim(Named):
    """One robot. `joints` names those that are mapped, `objects` those that are tracked.

    A step asks for a command and waits until the next control step is due; it never waits for the
    robot. Whatever a robot cannot tell is in `missing`; bodies without joints stand where the task
    puts them. Raises `UserError` where the model has a joint that nobody measures.
    """

    device, masked, measured = None, False, True
    missing = frozenset({"sensordata", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "xpos"})

    def __init__(
        self,
        source: ModelSource,
        num_worlds: int,
        joints: Sequence[str] = (),
        objects: Sequence[str] = (),
        rate_hz: float = 20.0,
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if num_worlds != 1:
            raise UserError(f"num_envs={num_worlds}: a robot is one world")
        self.xp: Any = np
        self.model = mujoco.MjModel.from_xml_string(source.xml, dict(source.assets or {}))
        self.num_worlds, self.timestep_s = 1, float(self.model.opt.timestep)
        self.qpos = np.array(self.model.qpos0)[None]
        self.qvel = np.zeros((1, self.model.nv))
        self.link = link
        self.overruns = 0
        self._period_s, self._clock, self._sleep = 1.0 / rate_hz, clock, sleep
        self._due = 0.0
        self.watch(joints, objects)

    def watch(self, joints: Sequence[str], objects: Sequence[str]) -> None:
        """Say which joints are mapped, and which objects are tracked."""
        self._joints = [self.joint(name) for name in joints]
        self._servos = [self.actuator(name) for name in joints]
        self._objects = {name: self.joint(name) for name in objects}

    def step(self, control: np.ndarray, substeps: int) -> None:
        assert self.link is not None
        self.link.command(control[0, self._servos])
        self._due += self._period_s
        left = self._due - self._clock()
        if left < 0.0:
            self.overruns += 1
            self._due = self._clock()
        else:
            self._sleep(left)
        self._measure()

    def reset(self, rows: Rows, ids: np.ndarray) -> None:
        """Bring the robot to where `rows` have it; before there is a `link`, only note that."""
        self.qpos[:] = rows["qpos"]
        self.qvel[:] = 0.0
        if self.link is not None:
            self.link.prepare(np.array([self.qpos[0, q][0] for q, _ in self._joints]))
            self._due = self._clock()
            self._measure()

    def set_parameters(self, rows: Rows, ids: np.ndarray) -> None:
        """A robot's masses, sizes and friction are what they are."""

    def faults(self) -> np.ndarray:
        return np.array([self.link is not None and self.link.failed()])

    def read(self, field: str) -> np.ndarray:
        raise UserError(f"a robot cannot tell {field}")

    def sensor(self, name: str) -> np.ndarray:
        raise UserError(f"a robot has no sensor {name}")

    def jac(self, body: str, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise UserError("a robot cannot tell its Jacobian")

    def render(self, camera: str, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        raise UserError("a robot is not rendered: its cameras' images are in the record")

    def snapshot(self, ids: np.ndarray | None = None) -> dict[str, np.ndarray]:
        raise UserError("a robot cannot be put back to where it was")

    def restore(self, rows: Rows, ids: np.ndarray | None = None) -> None:
        raise UserError("a robot cannot be put back to where it was")

    def state_dict(self) -> dict[str, np.ndarray]:
        return {}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        raise UserError("a robot cannot be put back to where it was")

    def close(self) -> None:
        """What it was linked to is closed by who made that."""

    def _measure(self) -> None:
        assert self.link is not None
        position, velocity = self.link.joints()
        for (q, v), x, dx in zip(self._joints, position, velocity, strict=True):
            self.qpos[0, q], self.qvel[0, v] = x, dx
        seen = self.link.objects()
        for name, (q, _) in self._objects.items():
            if name in seen:
                self.qpos[0, q] = seen[name]
