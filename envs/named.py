"""Where the named parts of a compiled MuJoCo model live, for the backends that run one."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.errors import unknown


class Named:
    """A backend's look-ups by name in its `model`, an `MjModel`.

    Raise `UserError` for a name that there is not, with those that there are.
    """

    model: Any
    measured = False

    def joint(self, name: str) -> tuple[slice, slice]:
        view = self._view("joint", name)
        q, v = int(view.qposadr[0]), int(view.dofadr[0])
        width = {0: (7, 6), 1: (4, 3)}.get(int(view.type[0]), (1, 1))
        return slice(q, q + width[0]), slice(v, v + width[1])

    def body(self, name: str) -> int:
        return int(self._view("body", name).id)

    def geom(self, name: str) -> int:
        return int(self._view("geom", name).id)

    def actuator(self, name: str) -> int:
        return int(self._view("actuator", name).id)

    @property
    def control_range(self) -> np.ndarray:
        return np.array(self.model.actuator_ctrlrange)

    def parameter(self, name: str) -> np.ndarray:
        return np.array(self._nominal(name))

    def _nominal(self, name: str) -> Any:
        of = self.model.opt if name.startswith("opt.") else self.model
        return getattr(of, name.removeprefix("opt."))

    def _columns(self, sensor: str) -> slice:
        """Where a sensor's numbers are among all of them."""
        view = self._view("sensor", sensor)
        start = int(view.adr[0])
        return slice(start, start + int(view.dim[0]))

    def _view(self, kind: str, name: str) -> Any:
        try:
            return getattr(self.model, kind)(name)
        except KeyError:
            short = {"camera": "cam", "joint": "jnt", "actuator": "u"}.get(kind, kind)
            count = getattr(self.model, f"n{short}")
            known = (getattr(self.model, kind)(i).name for i in range(count))
            raise unknown(kind, name, filter(None, known)) from None
