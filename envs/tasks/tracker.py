"""An object's pose as a camera tracks it: noisy, sometimes a step late, sometimes lost.

On the robot a marker tracker supplies the same seven numbers. How bad the tracking is differs
from episode to episode.
"""

from __future__ import annotations

from typing import Any

from embodied.random import Draw, key_bits, walk
from embodied.sim import Sim
from embodied.types import Carry

Array = Any

POSITION_STD_M = 0.001
ROTATION_STD_RAD = 0.009
DROPOUT = 0.01
"""Averages over episodes: of each coordinate, each rotation axis, and lost frames."""


def no_tracking(sim: Sim, name: str = "") -> Carry:
    """Memory of a tracker that has seen nothing yet, `(N, ...)`."""
    xp, n, dev, dtype = sim.xp, sim.num_worlds, sim.device, sim.qpos.dtype
    return {
        f"{name}track_key": xp.zeros(n, dtype=xp.int64, device=dev),
        f"{name}track_delayed": xp.zeros(n, dtype=xp.bool, device=dev),
        f"{name}track_noise": xp.zeros((n, 8), dtype=dtype, device=dev),
        f"{name}track_last": xp.zeros((n, 7), dtype=dtype, device=dev),
        f"{name}tracked": xp.zeros((n, 7), dtype=dtype, device=dev),
    }


def start_tracking(sim: Sim, draw: Draw, unit: Array, pose: Array, name: str = "") -> Carry:
    """Memory rows of a tracker that has just seen `pose` `(n, 7)`: position and quaternion.

    `unit` `(n, 3)` are random numbers in (0, 1) that say how good it is in this episode. A second
    tracker has a `name`, which its rows begin with. What is measured already is as bad as it is.
    """
    xp = sim.xp
    delayed = (unit[:, 0] > 0.5) & (not sim.measured)
    quality = (0.5 + unit[:, 1:]) * (0.0 if sim.measured else 1.0)
    parts = [POSITION_STD_M * quality[:, :1]] * 3 + [0.5 * ROTATION_STD_RAD * quality[:, :1]] * 4
    noise = xp.concat([*parts, (DROPOUT * 2.0**32) * quality[:, 1:]], axis=1)
    key = draw.key(f"{name}track/noise")
    noisy = _blur(xp, key, pose, noise)[0]
    return {
        f"{name}track_key": key,
        f"{name}track_delayed": delayed,
        f"{name}track_noise": noise,
        f"{name}track_last": pose,
        f"{name}tracked": noisy,
    }


def keep_tracking(xp: Any, memory: Carry, pose: Array, name: str = "") -> Carry:
    """The rows that follow when the object's true pose is `pose`; `tracked` is what is seen."""
    key = walk(memory[f"{name}track_key"])
    seen = xp.where(memory[f"{name}track_delayed"][:, None], memory[f"{name}track_last"], pose)
    noisy, lost = _blur(xp, key, seen, memory[f"{name}track_noise"])
    tracked = xp.where(lost[:, None], memory[f"{name}tracked"], noisy)
    return {f"{name}track_key": key, f"{name}track_last": pose, f"{name}tracked": tracked}


def _blur(xp: Any, key: Array, pose: Array, noise: Array) -> tuple[Array, Array]:
    """A noisy pose, and whether it was lost. Noise is the sum of two uniforms (a triangle).

    Noise on all four numbers of a quaternion is a small rotation about any axis, and a change of
    its length that means nothing.
    """
    bits = key_bits(key, 8)
    halves = xp.astype((bits[:, :7] >> 16) + (bits[:, :7] & 0xFFFF), pose.dtype)
    unit = (halves - 65535.0) * (6.0**0.5 / 65536.0)  # mean 0, variance 1
    lost = xp.astype(bits[:, 7], pose.dtype) < noise[:, 7]
    return pose + noise[:, :7] * unit, lost
