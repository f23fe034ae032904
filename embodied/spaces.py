"""Dict observations as flat vectors: a view, for networks that want one."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
from array_api_compat import array_namespace

from embodied.errors import UserError
from embodied.types import Array, Obs


def vector_keys(space: gym.spaces.Dict) -> tuple[str, ...]:
    """The float-valued keys of an observation space, in order; images are left to encoders."""
    keys = tuple(
        k for k, box in space.spaces.items() if isinstance(box, gym.spaces.Box) and _is_float(box)
    )
    if not keys:
        raise UserError(f"no numeric observation to learn from: the env offers {list(space)}")
    return keys


def vector_size(space: gym.spaces.Dict) -> int:
    """Length D of the flat vector of `vector_keys`."""
    return sum(math.prod(space[key].shape or (1,)) for key in vector_keys(space))


def to_vector(obs: Obs, keys: tuple[str, ...], lead: int = 1) -> Array:
    """Observations `(..., D)` float32, the first `lead` axes kept; torch stays torch."""
    if not isinstance(obs[keys[0]], np.ndarray):
        xp = array_namespace(obs[keys[0]])
        parts = [xp.reshape(obs[k], (*obs[k].shape[:lead], -1)) for k in keys]
        return xp.astype(xp.concat(parts, axis=-1), xp.float32)
    shapes = {k: obs[k].shape for k in keys}
    parts = [np.reshape(obs[k], (*s[:lead], math.prod(s[lead:]))) for k, s in shapes.items()]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return np.asarray(flat, np.float32)


def _is_float(box: gym.spaces.Box) -> bool:
    return box.dtype is not None and np.issubdtype(box.dtype, np.floating)
