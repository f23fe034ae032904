"""Domain randomisation: what differs from world to world, drawn anew for every episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from array_api_compat import array_namespace

from embodied.errors import UserError
from embodied.random import Draw
from embodied.sim import Sim

Array = Any


class Randomisation:
    """Ranges of what varies per world. All default to nothing varied.

    `mass`, `friction` and `gains` are (low, high) factors on the task's own values (mass and
    inertia per body, sliding friction per world, actuator gains per actuator); `delay_steps` is
    a range of whole control steps between an action and its effect; `obs_noise` is the standard
    deviation of Gaussian noise added to every float observation, in its own units.
    """

    def __init__(
        self,
        mass: Sequence[float] = (1.0, 1.0),
        friction: Sequence[float] = (1.0, 1.0),
        gains: Sequence[float] = (1.0, 1.0),
        delay_steps: Sequence[int] = (0, 0),
        obs_noise: float = 0.0,
    ) -> None:
        for name, span in (("mass", mass), ("friction", friction), ("gains", gains)):
            if len(span) != 2 or not 0 < span[0] <= span[1] < float("inf"):
                raise UserError(f"env.randomise.{name}={list(span)}: give 0 < low <= high")
        whole = all(isinstance(steps, int) for steps in delay_steps)
        if len(delay_steps) != 2 or not whole or not 0 <= delay_steps[0] <= delay_steps[1]:
            raise UserError(
                f"env.randomise.delay_steps={list(delay_steps)}: give whole 0 <= low <= high"
            )
        if not 0 <= obs_noise < float("inf"):
            raise UserError(f"env.randomise.obs_noise={obs_noise}: give a finite number >= 0")
        self.mass, self.friction, self.gains = tuple(mass), tuple(friction), tuple(gains)
        self.delay_steps, self.obs_noise = tuple(delay_steps), float(obs_noise)

    @property
    def max_delay_steps(self) -> int:
        return self.delay_steps[1]

    def delays(self, draw: Draw) -> Array:
        """Delay of each episode in control steps, `(n,)` int64."""
        low, high = self.delay_steps
        return low + draw.integers("randomise/delay", (), high - low + 1)

    def nominal(self, sim: Sim) -> dict[str, Array]:
        """What it varies, as in the model: constants on the sim's device, `(1, ...)` each."""
        varied = {
            ("body_mass", "body_inertia"): self.mass,
            ("geom_friction",): self.friction,
            ("actuator_gainprm", "actuator_biasprm"): self.gains,
        }
        names = [n for group, span in varied.items() if span != (1.0, 1.0) for n in group]
        return {n: sim.xp.asarray(sim.parameter(n)[None], device=sim.device) for n in names}

    def parameters(
        self, nominal: dict[str, Array], draw: Draw, rows: dict[str, Array]
    ) -> dict[str, Array]:
        """The task's parameter `rows`, else `nominal`, with the factors applied: `(n, ...)`."""
        rows = dict(rows)

        def current(name: str) -> Array:
            return rows.get(name, nominal.get(name))

        if self.mass != (1.0, 1.0):
            bodies = current("body_mass").shape[1]
            factor = draw.uniform("randomise/mass", (bodies,), *self.mass)
            rows["body_mass"] = current("body_mass") * factor
            rows["body_inertia"] = current("body_inertia") * factor[:, :, None]
        if self.friction != (1.0, 1.0):
            factor = draw.uniform("randomise/friction", (1,), *self.friction)
            none = array_namespace(factor).zeros_like(factor)[:, :, None]
            friction = none + current("geom_friction")
            friction[:, :, 0] = friction[:, :, 0] * factor
            rows["geom_friction"] = friction
        if self.gains != (1.0, 1.0):
            actuators = current("actuator_gainprm").shape[1]
            factor = draw.uniform("randomise/gains", (actuators, 1), *self.gains)
            rows["actuator_gainprm"] = current("actuator_gainprm") * factor
            rows["actuator_biasprm"] = current("actuator_biasprm") * factor
        return rows

    def noisy(self, obs: dict[str, Array], draw: Draw) -> dict[str, Array]:
        """Observations as a sensor would give them (the same array where nothing is added)."""
        if not self.obs_noise:
            return obs
        out = {}
        for key, value in obs.items():
            noise = draw.normal(f"randomise/obs/{key}", tuple(value.shape[1:]), self.obs_noise)
            out[key] = value + array_namespace(value).astype(noise, value.dtype)
        return out
