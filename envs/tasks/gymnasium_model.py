"""The MJCF files that ship with Gymnasium."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from embodied.sim import ModelSource

_FORCE_SENSOR = '<sensor><framelinacc objtype="body" objname="torso"/></sensor></mujoco>'


@cache
def gymnasium_model(file: str, contact_forces: bool = False) -> ModelSource:
    """The text of one of Gymnasium's own MuJoCo models (found without importing them).

    MuJoCo computes contact forces on bodies (`cfrc_ext`) only for a model that has a sensor of
    accelerations: `contact_forces` adds one, which changes nothing else.
    """
    spec = importlib.util.find_spec("gymnasium")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "envs" / "mujoco" / "assets" / file
    xml = path.read_text()
    return ModelSource(xml.replace("</mujoco>", _FORCE_SENSOR) if contact_forces else xml)
