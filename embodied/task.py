"""The contract of a task: what to do, written once for every backend.

A task imports no simulator at module level and computes with the array namespace of its `Sim`,
so the same file runs on NumPy and on torch. Everything it keeps between steps lives in `memory`,
a dict of `(N, ...)` arrays that the core masks at resets and saves in checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.random import Draw
from embodied.sim import ModelSource, Sim
from embodied.types import ActionSpec, Carry, Obs

Array = Any
Terms = dict[str, Array]


@dataclass(frozen=True)
class Flaw:
    """A named way for the scripted expert to do badly, and what that must show.

    `expect` is "fails" (at most 10% success) or "slow" (succeeds, in at least 1.3 times the
    expert's steps).
    """

    name: str
    expect: str


@dataclass(frozen=True)
class Quantity:
    """Something of a world that reward code may read, by its dotted name: `red_cube.position`.

    `real` says whether a real robot has it too.
    """

    name: str
    unit: str
    meaning: str
    real: bool = True


class Task:
    """One thing to do with one model, for N worlds at once. Subclass and override.

    Order in a step: `control`, `before`, physics, `reward`, `observe`, `terminated`, `success`.
    """

    name: str
    rate_hz: float
    """Control steps a second."""
    max_steps: int = 1000
    lagged: bool = False
    """Reads derived readouts that describe the start of the last substep, as Gymnasium does."""
    readouts: frozenset[str] = frozenset({"qpos", "qvel"})
    """Readouts it uses; a backend that lacks one refuses the task."""
    instructions: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    """Names of the ordered stages of success; `stage(memory)` says where each world is."""
    keypoints: tuple[str, ...] = ()
    proprio_size: int | None = None
    """How many leading columns of the observation "state" are the robot's own; None: unknown."""
    cameras: tuple[str, ...] = ()
    tracked: tuple[str, ...] = ()
    """Objects whose poses it observes: on a robot, a tracker has to supply them."""
    weights: Mapping[str, float] = {}
    """Weight of each named reward term in the env's own reward (1 where not named)."""
    flaws: tuple[Flaw, ...] = ()
    reward_range: tuple[float, float] = (-np.inf, np.inf)
    quantities: tuple[Quantity, ...] = ()
    """What reward code may read; never its success, its progress or its stage."""
    frame: str = ""
    """Where the axes of positions point, in a sentence for who writes reward code."""

    def model(self) -> ModelSource:
        """The model, made on demand (here a simulator may be imported)."""
        raise NotImplementedError(f"{type(self).__name__}.model")

    def bind(self, sim: Sim) -> None:
        """Look up addresses and make constants on the Sim's device, once."""

    def action_spec(self, sim: Sim) -> ActionSpec:
        """What an action is. By default the model's controls, in their own range."""
        low, high = sim.control_range[:, 0], sim.control_range[:, 1]
        names = tuple(f"ctrl_{i}" for i in range(len(low)))
        return ActionSpec(
            names,
            ("",) * len(low),
            low.astype(np.float32),
            high.astype(np.float32),
            "control",
            self.rate_hz,
        )

    def memory(self, sim: Sim) -> Carry:
        """Fresh memory of all worlds, `(N, ...)` each."""
        return {}

    def reset(self, sim: Sim, draw: Draw) -> tuple[dict[str, Array], dict[str, Array], Carry]:
        """Where `len(draw)` worlds start: state rows, model parameters, memory rows.

        A function of `draw` alone: it is asked ahead of time, for all worlds at once. Parameters
        may be empty; memory rows name only what differs from `memory`.
        """
        raise NotImplementedError(f"{type(self).__name__}.reset")

    def control(self, sim: Sim, action: Array, memory: Carry) -> tuple[Array, Carry]:
        """An action `(N, A)` as the model's controls `(N, nu)`."""
        return action, memory

    def before(self, sim: Sim) -> dict[str, Array]:
        """What `reward` needs of the state before the step (copies, not views)."""
        return {}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        """Named reward terms, `(N,)` each, unweighted, and the memory that follows."""
        raise NotImplementedError(f"{type(self).__name__}.reward")

    def observe(self, sim: Sim, memory: Carry) -> Obs:
        """What a policy sees, `(N, ...)` each: only what a real robot can measure."""
        raise NotImplementedError(f"{type(self).__name__}.observe")

    def terminated(self, sim: Sim, memory: Carry) -> Array:
        """Worlds whose episode ended for a reason of the task's, `(N,)` bool."""
        return sim.xp.zeros(sim.num_worlds, dtype=sim.xp.bool, device=sim.device)

    def success(self, sim: Sim, memory: Carry) -> Array:
        """Worlds that have done it, `(N,)` bool."""
        return sim.xp.zeros(sim.num_worlds, dtype=sim.xp.bool, device=sim.device)

    def stage(self, memory: Carry) -> Array:
        """Index into `stages` of each world, `(N,)` int64."""
        raise NotImplementedError(f"{type(self).__name__} has no stages")

    def progress(self, sim: Sim, memory: Carry) -> Array:
        """True progress in [0, 1], `(N,)`: 1 is success. Privileged: to evaluate with, no more."""
        raise NotImplementedError(f"{type(self).__name__} has no progress")

    def keypoint_positions(self, sim: Sim, memory: Carry) -> Array:
        """World positions of `keypoints`, `(N, K, 3)` in metres."""
        raise NotImplementedError(f"{type(self).__name__} has no keypoints")

    def expert(self, sim: Sim, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        """The scripted expert's action `(N, A)`; it may read everything, flaws included."""
        raise NotImplementedError(f"{type(self).__name__} has no scripted expert")

    def readout(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        """Further quantities for reward models that declare they need them, `(N, ...)` each."""
        return {}

    def world(self, sim: Sim, memory: Carry) -> dict[str, Array]:
        """At least `quantities` by name, `(N, ...)` each (copies, not views)."""
        return {}
