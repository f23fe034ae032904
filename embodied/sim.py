"""The contract of a simulator: N worlds of one model. The real robot is one more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = Any
Rows = Mapping[str, Array]


@dataclass(frozen=True)
class ModelSource:
    """What to simulate, in a form every backend reads: MJCF text, with its assets by file name."""

    xml: str
    assets: Mapping[str, bytes] | None = None


class Sim(Protocol):
    """N worlds of one model, stepped together.

    Arrays are `(N, ...)` in the namespace `xp` on `device`. `qpos` and `qvel` describe the state
    after the last step. Derived readouts (`sensor`, `body_pos`, ...) are `lagged` after a step on
    a plain batch: they describe the start of its last substep. A task that uses them declares
    `lagged = True`, or asks for `fresh = True` and pays for it.

    A world's parameters (`parameters`, see `set_parameters`) are named as in MuJoCo's model:
    "body_mass", "geom_friction", "geom_size", "actuator_gainprm", ...
    """

    num_worlds: int
    xp: Any
    device: Any
    timestep_s: float
    masked: bool
    """Whether `reset` and `set_parameters` take a mask `(N,)` as `ids`, with rows of all worlds: a
    GPU need not tell the host, then, which worlds they are."""
    missing: frozenset[str]
    """Readouts that this backend cannot supply."""
    exact_resume: bool
    """Whether a restored state goes on as if nothing had been; it does where nothing is said."""
    measured: bool
    """Whether its state is what sensors say of a real robot: a task then adds no noise."""

    @property
    def qpos(self) -> Array: ...  # (N, nq), live

    @property
    def qvel(self) -> Array: ...  # (N, nv), live

    @property
    def control_range(self) -> np.ndarray: ...  # (nu, 2)

    def step(self, control: Array, substeps: int) -> None:
        """Apply `control` (N, nu) for `substeps` steps of physics."""

    def reset(self, rows: Rows, ids: Array) -> None:
        """Start worlds `ids` (n,) anew from the model's defaults overwritten by state `rows`.

        `rows` maps "qpos", "qvel", "mocap_pos", ... to `(n, ...)`.
        """

    def set_parameters(self, rows: Rows, ids: Array) -> None:
        """Give worlds `ids` their own model parameters, `(n, ...)` each, until set again."""

    def parameter(self, name: str) -> Array:
        """The model's nominal value of a parameter, without the world axis."""

    def read(self, field: str) -> Array:
        """A derived readout by its MuJoCo name ("xpos", "cinert", ...), `(N, ...)`."""

    def sensor(self, name: str) -> Array: ...  # (N, dim)

    def joint(self, name: str) -> tuple[slice, slice]:
        """Where a joint lives in `qpos` and in `qvel`."""

    def body(self, name: str) -> int: ...

    def geom(self, name: str) -> int: ...

    def actuator(self, name: str) -> int: ...

    def jac(self, body: str, point: Array) -> tuple[Array, Array]:
        """Jacobians of world `point` (N, 3) on a body: `(N, 3, nv)` linear and angular."""

    def faults(self) -> Array:
        """Which worlds broke since their reset, `(N,)` bool (NaN, divergence)."""

    def render(self, camera: str, ids: Array, height: int, width: int) -> np.ndarray:
        """Images of some worlds, `(n, height, width, 3)` uint8."""

    def snapshot(self, ids: Array | None = None) -> dict[str, Array]:
        """Everything needed to go on from here, rows of worlds `ids`: worlds can be forked."""

    def restore(self, rows: Rows, ids: Array | None = None) -> None:
        """Put a snapshot's rows into worlds `ids`."""

    def state_dict(self) -> dict[str, Array]: ...

    def load_state_dict(self, state: Mapping[str, Array]) -> None: ...

    def close(self) -> None: ...
