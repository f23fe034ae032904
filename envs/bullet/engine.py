"""PyBullet itself, without the greeting that it prints, and its clients."""

from __future__ import annotations

import os
from typing import Any

from embodied.errors import UserError


def _import() -> Any:
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import pybullet
    except ImportError as error:
        raise UserError(f"sim=bullet needs PyBullet ({error}): pip install pybullet") from error
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
    return pybullet


p = _import()
MOST_CLIENTS = 1000
"""PyBullet has room for 1024 in a process; each takes about 40 MB."""
ITERATIONS = 50


def connect() -> int:
    """A new, empty client."""
    try:
        client = int(p.connect(p.DIRECT))
    except p.error as error:
        raise UserError(f"PyBullet gives no further client ({error}): fewer num_envs") from None
    if client < 0:
        raise UserError("PyBullet gives no further client: fewer num_envs")
    return client


def prepare(client: int, timestep_s: float) -> None:
    """Empty a client, and have it step alike every time, without gravity.

    Contacts are filtered as in MuJoCo, where the mask of one side is enough.
    """
    p.resetSimulation(physicsClientId=client)
    p.setPhysicsEngineParameter(
        fixedTimeStep=timestep_s,
        numSolverIterations=ITERATIONS,
        collisionFilterMode=1,
        deterministicOverlappingPairs=1,
        physicsClientId=client,
    )
    p.setGravity(0, 0, 0, physicsClientId=client)
