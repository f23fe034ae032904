"""N worlds of one MuJoCo model on native threads (`mujoco.batch`, MuJoCo 4.0 and later)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.sim import ModelSource, Rows

from ..named import Named
from .render import choose_gl
from .studio import Studio

choose_gl()

try:  # after the choice of GL, which it reads here
    import mujoco
    from mujoco.batch import Batch, SimulationError
except (AttributeError, RuntimeError, OSError) as error:
    chosen = os.environ.get("MUJOCO_GL")
    raise UserError(
        f"MuJoCo does not start with MUJOCO_GL={chosen} ({error}): unset it, or see embodied doctor"
    ) from error

if mujoco.get_mju_user_warning() is None:  # else MuJoCo prints, and writes MUJOCO_LOG.TXT
    mujoco.set_mju_user_warning(logging.getLogger("mujoco").info)

_BAD = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]

MOST_CAMERAS = 4
"""At work at once, at one image size."""


class MujocoSim(Named):
    """The CPU backend. Worlds are bit-identical at any number of threads.

    Plain batches are fastest, and then derived readouts lag a substep behind the state; with
    `fresh=True` they describe the new state, at the price of one `MjData` a world.
    """

    device, masked = None, False
    missing: frozenset[str] = frozenset()

    def __init__(
        self, source: ModelSource, num_worlds: int, threads: int | None = None, fresh: bool = False
    ) -> None:
        if num_worlds < 1:
            raise UserError(f"num_envs={num_worlds}: give a whole number >= 1")
        cores = len(os.sched_getaffinity(0))
        if threads is not None and threads < 1:
            raise UserError(f"sim.threads={threads}: give a whole number >= 1 (cores: {cores})")
        self.xp: Any = np  # an array-API namespace of its own since NumPy 2.1
        self.model = mujoco.MjModel.from_xml_string(source.xml, dict(source.assets or {}))
        self.num_worlds = num_worlds
        self.timestep_s = float(self.model.opt.timestep)
        self._threads = threads or cores
        self.batch = Batch(self.model, num_worlds, min(self._threads, num_worlds), fresh)
        self._stage = int(mujoco.mjtStage.mjSTAGE_VEL if fresh else mujoco.mjtStage.mjSTAGE_NONE)
        self._qpos, self._qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self._ctrl = self.batch.bind("ctrl")
        self._bad_counts = self.batch.warning[:, _BAD[0] : _BAD[-1] + 1, 1]
        if [*range(_BAD[0], _BAD[-1] + 1)] != sorted(_BAD):
            raise RuntimeError("MuJoCo renumbered its warnings")
        self._raised = np.zeros(num_worlds, bool)
        self._states: dict[str, np.ndarray] = {}
        self._derived: dict[str, np.ndarray] = {}
        self._restored: dict[str, np.ndarray] = {}
        self._studios: dict[tuple[int, int], Studio] = {}
        self._setconst = frozenset(mujoco.MjModel._setconst_inputs)

    @property
    def qpos(self) -> np.ndarray:
        return self._qpos

    @property
    def qvel(self) -> np.ndarray:
        return self._qvel

    def step(self, control: np.ndarray, substeps: int) -> None:
        self._ctrl[:] = control
        if self._restored:
            self._restored = {}
        self._run(self.batch.step, None, substeps, self._stage)

    def reset(self, rows: Rows, ids: np.ndarray) -> None:
        self.batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._raised[ids] = False
        for name, value in rows.items():
            if name not in self._states:
                self._states[name] = self.batch.bind(name)
            self._states[name][ids] = value
        if self._derived:
            self._run(self.batch.forward, ids)
            for name, value in self._restored.items():
                value[ids] = self._derived[name][ids]

    def set_parameters(self, rows: Rows, ids: np.ndarray) -> None:
        for name, value in rows.items():
            self.batch.expand(name)[ids] = value
        if self._setconst.intersection(rows):
            try:
                self.batch.set_const(ids)
            except SimulationError as error:
                raise UserError(f"{', '.join(sorted(rows))} out of range: {error}") from None

    def read(self, field: str) -> np.ndarray:
        if field not in self._derived:
            self._derived[field] = self.batch.bind(field)
            self._run(self.batch.forward, None)
        return self._restored.get(field, self._derived[field])

    def sensor(self, name: str) -> np.ndarray:
        return self.read("sensordata")[:, self._columns(name)]

    def jac(self, body: str, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.batch.jac(self.body(body), point)

    def faults(self) -> np.ndarray:
        if self._bad_counts.any():
            return self._raised | self._bad_counts.any(axis=1)
        return self._raised

    def render(self, camera: str, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        self._view("camera", camera)
        if (height, width) not in self._studios:
            self._studios[height, width] = Studio(height, width, min(self._threads, MOST_CAMERAS))
        return self._studios[height, width].images(self.batch, ids, camera)

    def snapshot(self, ids: np.ndarray | None = None) -> dict[str, np.ndarray]:
        rows = slice(None) if ids is None else ids
        out = {"state": self.batch.state[rows].copy(), "raised": self._raised[rows].copy()}
        out["warning"] = self.batch.warning[rows].copy()
        for name in mujoco.batch.MODEL_FIELDS:
            expanded = self.batch.expanded(name)
            if expanded is not None:
                out[f"model/{name}"] = expanded[rows].copy()
        for name in self._derived:
            out[f"derived/{name}"] = self.read(name)[rows].copy()
        return out

    def restore(self, rows: Rows, ids: np.ndarray | None = None) -> None:
        where = slice(None) if ids is None else ids
        if rows["state"].shape != self.batch.state[where].shape:
            raise UserError("the saved state is of another model or another number of worlds")
        for name in mujoco.batch.MODEL_FIELDS:  # fields that had no values of their own then
            if f"model/{name}" not in rows and self.batch.expanded(name) is not None:
                own = self.batch.expand(name)
                nominal = np.asarray(self._nominal(name))
                own[where] = nominal[: own.shape[1]] if own.ndim > 1 else nominal
        for name, value in rows.items():
            kind, _, field = name.partition("/")
            if kind == "model":
                self.batch.expand(field)[where] = value
            elif kind == "derived":
                current = np.array(self.read(field))
                current[where] = value
                self._restored[field] = current
        self.batch.state[where] = rows["state"]
        self.batch.warning[where] = rows["warning"]
        self._raised[where] = rows["raised"]

    def state_dict(self) -> dict[str, np.ndarray]:
        return self.snapshot()

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        self.restore(state)

    def close(self) -> None:
        for studio in self._studios.values():
            studio.close()
        self._studios = {}

    def _run(self, call: Any, ids: np.ndarray | None, *args: int) -> None:
        """A batch call; worlds in which MuJoCo raised are marked, the others go on."""
        try:
            call(ids, *args)
        except SimulationError as error:
            self._raised[error.ids] = True
