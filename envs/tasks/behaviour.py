"""Bodies that are to do something and keep doing it."""

from __future__ import annotations

from typing import Any

from embodied.sim import Sim
from embodied.task import Task, Terms
from embodied.types import Carry

Array = Any


class Behaviour(Task):
    """A success is to do it for `hold_s` seconds without a break; a subclass adds a body.

    Memory: `held` (N,), for how many steps in a row it has been done.
    """

    hold_s = 1.0

    def __init__(self) -> None:
        pass

    def does(self, sim: Sim) -> Array:
        """Worlds that are doing it, `(N,)` bool."""
        raise NotImplementedError(f"{type(self).__name__}.does")

    def pay(self, sim: Sim) -> Terms:
        """The terms of its own reward but for `does` and `control`, `(N,)` each."""
        raise NotImplementedError(f"{type(self).__name__}.pay")

    def memory(self, sim: Sim) -> Carry:
        xp = sim.xp
        return {"held": xp.zeros(sim.num_worlds, dtype=xp.int64, device=sim.device)}

    def before(self, sim: Sim) -> dict[str, Array]:
        return {}

    def reward(
        self, sim: Sim, action: Array, before: dict[str, Array], memory: Carry
    ) -> tuple[Terms, Carry]:
        xp, does = sim.xp, self.does(sim)
        terms = {
            **self.pay(sim),
            "does": xp.astype(does, sim.qpos.dtype),
            "control": xp.sum(action * action, axis=-1),
        }
        return terms, {"held": xp.where(does, memory["held"] + 1, 0)}

    def success(self, sim: Sim, memory: Carry) -> Array:
        return memory["held"] >= round(self.hold_s * self.rate_hz)
