"""Gymnasium's spaces as the house knows them: dicts of boxes, vectors of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from embodied.errors import UserError
from embodied.types import ActionSpec

Encoder = tuple[gym.spaces.Box, Callable[[Any], np.ndarray]]
DISCRETE = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)


def encoders(space: gym.Space) -> dict[str, Encoder]:
    """For each key of our observations its space, and how to get it from the env's own."""
    if not isinstance(space, gym.spaces.Dict):
        return {"state": encoder(space)}
    return {key: _of_key(key, *encoder(inner)) for key, inner in space.spaces.items()}


def encoder(space: gym.Space) -> Encoder:
    """Floats and images (uint8 of three axes) as they are, all else flattened to float32."""
    if isinstance(space, gym.spaces.Box):
        image = space.dtype == np.uint8 and len(space.shape) == 3
        if image or np.issubdtype(space.dtype, np.floating):
            return space, np.asarray
    if isinstance(space, gym.spaces.Text) or not space.is_np_flattenable:
        raise UserError(f"cannot learn from observations in {space}: numbers and images only")
    flat = gym.spaces.flatten_space(space)
    assert isinstance(flat, gym.spaces.Box)
    box = gym.spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32))
    return box, lambda obs: np.asarray(gym.spaces.flatten(space, obs), np.float32)


def _of_key(key: str, box: gym.spaces.Box, encode: Callable[[Any], np.ndarray]) -> Encoder:
    return box, lambda obs: encode(obs[key])


def described(env: gym.Env) -> tuple[gym.Space, ActionSpec | None]:
    """The action space as worlds here take it, flat, and what is known of it."""
    space = env.action_space
    if isinstance(space, DISCRETE):
        if np.any(getattr(space, "start", 0)):
            raise UserError(f"cannot act in {space}: it does not start at 0")
        return space, None
    if not isinstance(space, gym.spaces.Box):
        raise UserError(f"cannot act in {space}: Box, Discrete, MultiDiscrete or MultiBinary only")
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    low, high = low.astype(np.float32), high.astype(np.float32)
    names = tuple(f"action_{i}" for i in range(len(low)))
    rate_hz = float(env.metadata.get("render_fps") or 30.0)
    spec = ActionSpec(names, ("",) * len(low), low, high, "gymnasium", rate_hz)
    return gym.spaces.Box(low, high, dtype=np.float32), spec
