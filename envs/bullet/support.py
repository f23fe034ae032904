"""Which models can be built in Bullet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from embodied.errors import UserError

from .bodies import FREE, HINGE, MESH, PLANE, SHAPES, SLIDE


def check_model(model: Any) -> None:
    """Raise `UserError` for the first thing in a model that would be left out or done otherwise."""
    found = (*_actuators(model), *_joints(model), *_geoms(model), *_rest(model))
    if found:
        raise UserError(
            f"sim=bullet runs arms that position servos move, not this model: {found[0]}"
        )


def _actuators(model: Any) -> Iterator[str]:
    if not model.nu:
        yield "nothing moves it"
    for i in range(model.nu):
        gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
        servo = (
            model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT
            and model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_FIXED
            and model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_AFFINE
            and model.actuator_dyntype[i] == mujoco.mjtDyn.mjDYN_NONE
            and gain[0] == -bias[1]
            and bias[0] == 0.0
            and model.actuator_gear[i, 0] == 1.0
        )
        if not servo:
            yield f"actuator {model.actuator(i).name or i!r} is no position servo of a joint"


def _joints(model: Any) -> Iterator[str]:
    for j in range(model.njnt):
        name, kind, body = model.joint(j).name, model.jnt_type[j], model.jnt_bodyid[j]
        if kind not in (FREE, SLIDE, HINGE):
            yield f"joint {name!r} is a ball joint"
        elif kind == FREE:
            if model.body_jntnum[body] > 1:
                yield f"joint {name!r} is free, and not its body's only one"
        elif model.qpos0[model.jnt_qposadr[j]]:
            yield f"joint {name!r} is not 0 as the model is drawn"
        elif kind == HINGE and np.any(model.jnt_pos[j]):
            yield f"joint {name!r} is not at its body's origin"
        elif model.dof_frictionloss[model.jnt_dofadr[j]]:
            yield f"joint {name!r} has dry friction"


def _geoms(model: Any) -> Iterator[str]:
    for g in range(model.ngeom):
        kind, name = model.geom_type[g], model.geom(g).name or g
        if not model.geom_contype[g] | model.geom_conaffinity[g]:
            continue
        if kind not in (*SHAPES, MESH, PLANE):
            yield f"geom {name!r} has a shape that Bullet lacks"
        elif kind == PLANE and model.geom_bodyid[g]:
            yield f"geom {name!r} is a plane that moves"


def _rest(model: Any) -> Iterator[str]:
    if model.opt.disableflags:
        yield "it switches parts of the physics off"
    for count, what in ((model.neq, "equality constraints"), (model.ntendon, "tendons")):
        if count:
            yield f"it has {what}"
