"""Counter-based random numbers: a world's draws depend on its own seed, never on its neighbours.

The array API has no random numbers, and a shared stream makes a world depend on how many others
were reset before it. Here every number is a hash of (seed, episode, step, stream, index), so it
is the same for any batch size, any order, and on NumPy and torch alike (integers bit for bit;
normals to the last bits of `log` and `cos`).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

Array = Any

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def _mix(x: Array) -> Array:
    """Avalanche 32-bit values held in int64 (the `lowbias32` finaliser); wraps, never overflows."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


@cache
def _indices(xp: Any, dev: Any, size: int) -> Array:
    """Hashes of 1 to `size`, `(1, size)`: made once, on the device."""
    counts = xp.arange(1, size + 1, dtype=xp.int64, device=dev)
    return _mix((counts * _GOLDEN) & _MASK)[None, :]


def walk(key: Array) -> Array:
    """The key `(n,)` of the next step. For noise at every step this is cheaper than `Draw.at`."""
    return _mix((key + _GOLDEN) & _MASK)


def key_bits(key: Array, size: int) -> Array:
    """Uniform 32-bit integers as int64 of a step's key, `(n, size)`."""
    return _mix(key[:, None] ^ _indices(array_namespace(key), device(key), size))


def world_seeds(seed: int, num_worlds: int, first: int = 0) -> np.ndarray:
    """Seeds of worlds `first ..`, `(num_worlds,)` int64: `seed + i`, as Gymnasium does."""
    return np.arange(first, first + num_worlds, dtype=np.int64) + np.int64(seed)


@dataclass(frozen=True)
class Draw:
    """The random numbers of some worlds' episodes. `seed` and `episode` are `(n,)` int64.

    Ask with a stream name, so that adding one draw never shifts another:
    `draw.uniform("cube_yaw", (), -math.pi, math.pi)` has shape `(n,)`.
    """

    seed: Array
    episode: Array

    def __len__(self) -> int:
        return self.seed.shape[0]

    def at(self, step: Array) -> Draw:
        """The draws of one step `(n,)` of these episodes (for noise)."""
        return Draw(self.seed ^ (_mix((step + 1) & _MASK) << 32), self.episode)

    @cached_property
    def _root(self) -> tuple[Array, Array]:
        """What all streams of these episodes share, `(n,)` each: a key, and an offset.

        Of a million 32-bit keys 116 pairs are equal: the offset tells those episodes apart.
        """
        low = self.seed & _MASK
        high = _mix(((self.seed >> 32) & _MASK) ^ _GOLDEN)
        episode = _mix((self.episode + _GOLDEN) & _MASK)
        return _mix(_mix(low ^ high) ^ episode), (low + 3 * high + episode)[:, None]

    def bits(self, stream: str, shape: tuple[int, ...] = ()) -> Array:
        """Uniform 32-bit integers as int64, `(n, *shape)`."""
        xp = array_namespace(self.seed)
        root, offset = self._root
        key = _mix(root ^ zlib.crc32(stream.encode()))
        index = _indices(xp, device(self.seed), math.prod(shape))
        mixed = _mix(((key[:, None] ^ index) + offset) & _MASK)
        return xp.reshape(mixed, (key.shape[0], *shape))

    def key(self, stream: str) -> Array:
        """Where a stream begins that is walked a step at a time, `(n,)`: see `walk`."""
        return self.bits(stream)

    def uniform(
        self, stream: str, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Array:
        """Uniform float64 in the open interval (low, high), `(n, *shape)`."""
        xp = array_namespace(self.seed)
        unit = (xp.astype(self.bits(stream, shape), xp.float64) + 0.5) * 2.0**-32
        return low + (high - low) * unit

    def normal(self, stream: str, shape: tuple[int, ...] = (), std: float = 1.0) -> Array:
        """Gaussian float64 of mean 0 (Box-Muller), `(n, *shape)`."""
        xp = array_namespace(self.seed)
        radius = xp.sqrt(-2.0 * xp.log(self.uniform(stream + "/radius", shape)))
        return std * radius * xp.cos(self.uniform(stream + "/angle", shape, 0.0, 2.0 * math.pi))

    def integers(self, stream: str, shape: tuple[int, ...] = (), high: int = 2) -> Array:
        """Uniform int64 in [0, high), `(n, *shape)`."""
        return (self.bits(stream, shape) * high) >> 32
