"""What reward code may know of an env, as Python that a person or a language model reads.

Made from the env itself: names, shapes, units and meaning from its task's `quantities`, actions
from its `ActionSpec`. Its success, progress and stage are withheld.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from embodied.env import Stepper, TaskEnv
from embodied.errors import UserError
from embodied.task import Quantity


@dataclass(frozen=True)
class Abstraction:
    """The readouts of an env by name: quantities, and shapes without the worlds' axis.

    `actions` are (name, unit, low, high); `dt` is a step in seconds.
    """

    env: str
    instruction: str
    frame: str
    quantities: tuple[Quantity, ...]
    shapes: dict[str, tuple[int, ...]]
    actions: tuple[tuple[str, str, float, float], ...]
    dt: float
    max_steps: int

    @property
    def inputs(self) -> dict[str, list[int]]:
        """What the code is given: shapes by name, `action` among them."""
        return {n: list(s) for n, s in self.shapes.items()} | {"action": [len(self.actions)]}

    @property
    def units(self) -> dict[str, str]:
        """By name; of actions only where all are of one."""
        kinds = {unit for _, unit, _, _ in self.actions}
        return {q.name: q.unit for q in self.quantities} | {
            "action": kinds.pop() if len(kinds) == 1 else ""
        }

    @property
    def unreal(self) -> tuple[str, ...]:
        return tuple(q.name for q in self.quantities if not q.real)

    def __str__(self) -> str:
        """As Python source: a class `World`, the actions, the time step."""
        groups: dict[str, list[Quantity]] = defaultdict(list)
        for quantity in self.quantities:
            groups[quantity.name.rpartition(".")[0]].append(quantity)
        lines = ["class World:", f'    """{self._about()}"""']
        for group, members in groups.items():
            lines += ["", f"    class {group}:"]
            for quantity in members:
                own = quantity.name.rpartition(".")[2]
                shape = ", ".join(["N", *map(str, self.shapes[quantity.name])])
                shape += "," if shape == "N" else ""
                unit = "" if quantity.unit == "1" else f" {quantity.unit}"
                unreal = "" if quantity.real else " [not on a real robot]"
                lines.append(f"        {own}: Array  # ({shape}){unit}: {quantity.meaning}{unreal}")
        lines += ["", "", f"action: Array  # (N, {len(self.actions)}), of the last step:"]
        for k, (name, unit, low, high) in enumerate(self.actions):
            lines.append(f"#   action[:, {k}] {name}, {low:.3g} to {high:.3g} {unit}".rstrip())
        lines.append(f"dt: float = {self.dt:g}  # seconds of a step")
        return "\n".join(lines)

    def _about(self) -> str:
        frame = f" {self.frame}" if self.frame else ""
        return (
            f"N worlds after a step; the first axis of every array is the worlds.{frame} "
            f"An episode lasts {self.max_steps} steps."
        )


def abstraction(env: Stepper) -> Abstraction:
    """What reward code may know of an env. Raises `UserError` for one that tells nothing."""
    if not isinstance(env, TaskEnv) or not env.task.quantities:
        raise UserError(f"env={env.name} names nothing that reward code could read")
    spec, task = env.action_spec, env.task
    told = env.readouts()
    shapes = {q.name: tuple(np.shape(told[f"world.{q.name}"])[1:]) for q in task.quantities}
    limits = zip(spec.names, spec.units, spec.low.tolist(), spec.high.tolist(), strict=True)
    return Abstraction(
        env.name,
        env.instructions[0] if env.instructions else "",
        task.frame,
        task.quantities,
        shapes,
        tuple(limits),
        1.0 / task.rate_hz,
        env.max_steps,
    )
