"""N worlds of one MuJoCo model on a GPU, through `mujoco_warp`; on Warp's CPU device for tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
import torch
from array_api_compat import torch as xp
from torch import Tensor

from embodied.errors import UserError
from embodied.nets import usable_device
from embodied.sim import ModelSource, Rows

from ..named import Named

try:
    import mujoco_warp as mjw
    import warp as wp
except ImportError as error:
    raise UserError("sim=warp needs mujoco-warp: pip install 'embodied-rl[gpu]'") from error

wp.config.log_level = wp.LOG_ERROR  # else it tells of every module that it loads

STATE = ("time", "qpos", "qvel", "act", "history", "plastic", "qacc_warmstart", "ctrl",
         "qfrc_applied", "xfrc_applied", "eq_active", "mocap_pos", "mocap_quat")  # fmt: skip
"""What a step depends on."""
FOLLOWS = ("dof_invweight0", "body_invweight0", "body_subtreemass", "tendon_invweight0",
           "tendon_length0", "actuator_acc0", "geom_rbound", "geom_aabb")  # fmt: skip
"""What follows from a model's masses, sizes and shape, and so is each world's own with them."""
LOST = int(
    mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ | mjw.OverflowType.BROADPHASE
    | mjw.OverflowType.NARROWPHASE | mjw.OverflowType.CCD
)  # fmt: skip
"""Contacts or constraints for which there was no room: what a world does then is undefined."""
WILD = 1e10
"""The acceleration at which MuJoCo, too, says that a world has diverged."""


class WarpSim(Named):
    """The GPU backend: arrays are torch's, on `device`, and those of the simulation itself.

    `contacts` (of a world, on average) and `constraints` (of a world, at most) are what there is
    room for; by default mujoco_warp's own guess, from the model at rest. A world that needs more
    is a fault. Where a model asks for the PGS solver, which there is not, Newton's solves the same
    problem, and further. It computes in float32, and on a GPU not in the same order every time:
    equal seeds give like trajectories there, and equal ones on the CPU.
    """

    masked = True
    missing: frozenset[str] = frozenset()

    def __init__(
        self,
        source: ModelSource,
        num_worlds: int,
        device: str = "cpu",
        contacts: int | None = None,
        constraints: int | None = None,
    ) -> None:
        for name, value in (("contacts", contacts), ("constraints", constraints)):
            if value is not None and value < 1:
                raise UserError(f"sim.{name}={value}: give a whole number >= 1, or null")
        if num_worlds < 1:
            raise UserError(f"num_envs={num_worlds}: give a whole number >= 1")
        self.xp: Any = xp
        self.device = usable_device(device)
        self.model = mujoco.MjModel.from_xml_string(source.xml, dict(source.assets or {}))
        if self.model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
            self.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        self.num_worlds, self.timestep_s = num_worlds, float(self.model.opt.timestep)
        _init()
        if self.device.type == "cuda":  # one stream for both, and one that can be captured
            torch.cuda.set_stream(torch.cuda.Stream(self.device))
            wp.set_stream(wp.stream_from_torch(torch.cuda.current_stream(self.device)))
        self._warp = wp.device_from_torch(self.device)
        self._setconst = frozenset(mujoco.MjModel._setconst_inputs)
        try:
            with wp.ScopedDevice(self._warp):
                self._m = mjw.put_model(self.model)
                self._d = mjw.make_data(self.model, num_worlds, contacts, njmax=constraints)
        except NotImplementedError as error:
            raise UserError(f"sim=warp cannot run this model: {error}") from error
        self._m.opt.warn_overflow = 0  # `faults` tells
        self._own: dict[str, Tensor] = {}
        self._held: dict[str, Tensor] = {}
        self._graphs: dict[Any, Any] = {}
        self._renderers: dict[tuple[str, int, int], Any] = {}
        self._mask = torch.zeros(num_worlds, dtype=torch.bool, device=self.device)
        self._qpos, self._qvel = self._array("qpos"), self._array("qvel")
        self._ctrl = self._array("ctrl")
        self._overflow, self._qacc = self._array("overflow"), self._array("qacc")

    @property
    def qpos(self) -> Tensor:
        return self._qpos

    @property
    def qvel(self) -> Tensor:
        return self._qvel

    def step(self, control: Tensor, substeps: int) -> None:
        self._ctrl.copy_(control)

        def steps() -> None:
            for _ in range(substeps):
                mjw.step(self._m, self._d)

        self._launch(("step", substeps), steps)
        for name, value in self._held.items():
            value.copy_(self._array(name))

    def reset(self, rows: Rows, ids: Tensor) -> None:
        """Start worlds anew; with a mask `(N,)` as `ids`, `rows` are those of all worlds."""
        mask = self._masked(ids)
        mask_wp = wp.from_torch(self._mask, dtype=wp.bool)
        self._launch("reset", lambda: mjw.reset_data(self._m, self._d, mask_wp))
        for name, value in rows.items():
            self._write(self._array(name), value, ids, mask)
        if self._held:
            warm = self._array("qacc_warmstart").clone()
            self._launch("forward", lambda: mjw.forward(self._m, self._d))
            self._write(self._array("qacc_warmstart"), warm, ~mask, ~mask)
            for name, value in self._held.items():
                self._write(value, self._array(name), mask, mask)

    def set_parameters(self, rows: Rows, ids: Tensor) -> None:
        mask = self._masked(ids)
        for name, value in rows.items():
            self._write(self._expanded(name), value, ids, mask)
        if self._setconst.intersection(rows):
            self._launch("set_const", lambda: mjw.set_const(self._m, self._d))

    def read(self, field: str) -> Tensor:
        if field not in self._held:
            if field == "cfrc_ext":
                self._m.opt.run_rne_postconstraint = True
                self._graphs.clear()
            self._launch("forward", lambda: mjw.forward(self._m, self._d))
            self._held[field] = self._array(field).clone()
        return self._held[field]

    def sensor(self, name: str) -> Tensor:
        return self.read("sensordata")[:, self._columns(name)]

    def jac(self, body: str, point: Tensor) -> tuple[Tensor, Tensor]:
        shape = (self.num_worlds, 3, self.model.nv)
        linear, angular = (torch.zeros(shape, device=self.device) for _ in range(2))
        where = wp.from_torch(point.to(torch.float32).contiguous(), dtype=wp.vec3)
        with wp.ScopedDevice(self._warp):
            which = wp.full(self.num_worlds, self.body(body), dtype=int)
            mjw.jac(self._m, self._d, wp.from_torch(linear), wp.from_torch(angular), where, which)
        return linear, angular

    def faults(self) -> Tensor:
        """Which worlds broke: not finite, diverged, or short of room for their contacts."""
        sane = torch.isfinite(self._qpos).all(1) & torch.isfinite(self._qvel).all(1)
        return ~(sane & (self._qacc.abs() < WILD).all(1)) | ((self._overflow & LOST) != 0)

    def needed(self) -> tuple[int, int]:
        """Room that the last step needed: contacts of all worlds, and most constraints of one."""
        return int(self._array("nacon").sum()), int(self._array("nefc").max())

    def render(self, camera: str, ids: Tensor, height: int, width: int) -> np.ndarray:
        index, key = int(self._view("camera", camera).id), (camera, height, width)
        with wp.ScopedDevice(self._warp):
            if key not in self._renderers:
                self._renderers[key] = mjw.create_render_context(
                    self.model, self.num_worlds, (width, height), render_rgb=True,
                    render_depth=False, render_seg=False, cam_active=[index],
                )  # fmt: skip
            context = self._renderers[key]
            for update in (mjw.kinematics, mjw.com_pos, mjw.camlight):  # no step depends on them
                update(self._m, self._d)
            mjw.refit_bvh(self._m, self._d, context)
            mjw.render(self._m, self._d, context)
            image = wp.zeros((self.num_worlds, height, width), dtype=wp.vec3)
            mjw.get_rgb(context, 0, image)
        pixels = (wp.to_torch(image)[ids] * 255.0).round().clamp(0, 255)
        return pixels.to(torch.uint8).cpu().numpy()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Around a capture by torch of which this simulation is a part."""
        if not self._warp.is_cuda:
            yield
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(self.device))
        wp.capture_begin(stream=stream, external=True)
        try:
            yield
        finally:
            wp.capture_end(stream=stream)

    def snapshot(self, ids: Tensor | None = None) -> dict[str, Tensor]:
        where = slice(None) if ids is None else ids
        out = {f"state/{name}": self._array(name)[where].clone() for name in self._state_fields()}
        out |= {f"model/{name}": value[where].clone() for name, value in self._own.items()}
        out |= {f"derived/{name}": value[where].clone() for name, value in self._held.items()}
        return out | {"overflow": self._overflow[where].clone()}

    def restore(self, rows: Rows, ids: Tensor | None = None) -> None:
        where = slice(None) if ids is None else ids
        if rows["state/qpos"].shape != self._qpos[where].shape:
            raise UserError("the saved state is of another model or another number of worlds")
        for name in [n for n in self._own if f"model/{n}" not in rows]:  # had none of its own then
            nominal = torch.as_tensor(self.parameter(name), dtype=self._own[name].dtype)
            self._own[name][where] = nominal.to(self.device).reshape(self._own[name].shape[1:])
        for name, value in rows.items():
            kind, _, field = name.partition("/")
            to = {
                "state": self._array, "model": self._expanded, "derived": self.read,
                "overflow": lambda _: self._overflow,
            }[kind](field)  # fmt: skip
            to[where] = torch.as_tensor(value, device=self.device)

    def state_dict(self) -> dict[str, Tensor]:
        return self.snapshot()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.restore({k: torch.as_tensor(v, device=self.device) for k, v in state.items()})

    def close(self) -> None:
        self._renderers, self._graphs = {}, {}

    def _state_fields(self) -> list[str]:
        return [name for name in STATE if self._array(name).numel()]

    def _array(self, name: str) -> Tensor:
        """A field of the simulation's data, the very memory."""
        return wp.to_torch(getattr(self._d, name))

    def _expanded(self, name: str) -> Tensor:
        """A field of the model with values for every world, `(N, ...)`."""
        if name not in self._own:
            more = FOLLOWS if name in self._setconst else ()
            for field in (name, *more):
                array = getattr(self._m, field)
                if field in self._own or not array.size:
                    continue
                shared = wp.to_torch(array)
                own = shared.expand(self.num_worlds, *shared.shape[1:]).contiguous()
                new: Any = wp.from_torch(own, dtype=array.dtype)
                new._is_batched = True
                setattr(self._m, field, new)
                self._own[field] = own
            self._graphs.clear()
        return self._own[name]

    def _masked(self, ids: Tensor) -> Tensor:
        """The worlds `ids` as a mask, always in the same memory."""
        if ids.dtype == torch.bool:
            return self._mask.copy_(ids)
        self._mask.zero_()
        self._mask[ids] = True
        return self._mask

    def _write(self, to: Tensor, value: Any, ids: Tensor, mask: Tensor) -> None:
        value = torch.as_tensor(value, device=self.device).to(to.dtype)
        if ids.dtype == torch.bool:
            torch.where(mask.reshape(-1, *(1,) * (to.ndim - 1)), value, to, out=to)
        else:
            to[ids] = value

    def _launch(self, key: Any, call: Callable[[], None]) -> None:
        """Run `call`, from the second time on as the graph that was captured then."""
        with wp.ScopedDevice(self._warp):
            if self._warp.is_cuda and torch.cuda.is_current_stream_capturing():
                return call()  # a part of a larger graph
            if key not in self._graphs:
                call()  # compiles
                with wp.ScopedCapture() as capture:
                    call()
                self._graphs[key] = capture.graph
                return None
            wp.capture_launch(self._graphs[key])
        return None


def _init() -> None:
    """Start Warp; where there is no GPU it would say so every time, below Python's reach."""
    if torch.cuda.is_available():
        wp.init()
        return
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        wp.init()
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
