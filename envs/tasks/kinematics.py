"""Forward kinematics and resolved-rate steps of a serial chain of hinges, as array code.

Worlds are the last axis inside, so that every step is a few operations on contiguous rows, and
the zeros and ones of a chain's constants cost nothing: they are skipped when the chain is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
_TINY = 1e-12


@dataclass(frozen=True)
class Link:
    """A fixed transform; after each but the last, a hinge turns about its z."""

    position: np.ndarray  # (3,) metres, in the frame before
    rotation: np.ndarray  # (3, 3)


class Chain:
    """Kinematics of the tool at the end of `links`, for joint angles `q` of shape `(N, A)`.

    Results are in the base's frame: positions in metres, rotations as matrices whose columns are
    the tool's axes.
    """

    def __init__(
        self, links: Sequence[Link], xp: Any, device: Any = None, dtype: Any = None
    ) -> None:
        self._xp = xp
        self._links = [(_terms(link.position), _columns(link.rotation)) for link in links]
        dtype = dtype or xp.float64
        self._base = xp.asarray(np.eye(3)[:, :, None], dtype=dtype, device=device)
        self._three = xp.ones((1, 3, 1), dtype=dtype, device=device)
        self._six = xp.asarray(np.eye(6), dtype=dtype, device=device)

    def fk(self, q: Array) -> tuple[Array, Array]:
        """Tool position `(N, 3)` and rotation `(N, 3, 3)`."""
        position, axes, _ = self._walk(q)
        return self._pose(position, axes)

    def jacobian(self, q: Array) -> tuple[Array, Array, Array]:
        """`fk(q)` and the geometric Jacobian `(N, 6, A)`: linear, then angular velocity."""
        position, axes, hinges = self._walk(q)
        columns = self._xp.stack(self._screws(position, hinges))
        return *self._pose(position, axes), self._xp.permute_dims(columns, (2, 1, 0))

    def resolve(self, q: Array, twist: Array, rest: Array, damping: float = 0.03) -> Array:
        """Joint steps `(N, A)` that move the tool by `twist` `(N, 6)`, by damped least squares.

        Motion that the tool does not feel goes to `rest` `(N, A)`, the preferred joint step.
        """
        xp = self._xp
        position, _, hinges = self._walk(q)
        screws = xp.stack(self._screws(position, hinges))  # (A, 6, N)
        rest = xp.permute_dims(rest, (1, 0))
        wanted = xp.permute_dims(twist, (1, 0)) - xp.sum(screws * rest[:, None, :], axis=0)
        square = xp.sum(screws[:, :, None, :] * screws[:, None, :, :], axis=0)
        square = square + damping**2 * self._six[:, :, None]
        force = solve_positive(square, wanted, xp)
        return xp.permute_dims(rest + xp.sum(screws * force[None, ...], axis=1), (1, 0))

    def _pose(self, position: Array, axes: list[Array]) -> tuple[Array, Array]:
        xp = self._xp
        return xp.permute_dims(position, (1, 0)), xp.permute_dims(xp.stack(axes), (2, 1, 0))

    def _walk(self, q: Array) -> tuple[Array, list[Array], list[tuple[Array, Array]]]:
        """Position `(3, N)`, the three axes `(3, N)`, and every hinge's (anchor, axis)."""
        xp, links = self._xp, self._links
        # Spread over the three numbers of a vector once: broadcasting at each step costs more.
        rows = xp.reshape(xp.permute_dims(q, (1, 0)), (-1,))
        rows = xp.reshape(rows, (q.shape[1], 1, q.shape[0]))
        cos, sin = self._three * xp.cos(rows), self._three * xp.sin(rows)
        position = xp.zeros_like(cos[0, ...])
        axes = [position + self._base[i, ...] for i in range(3)]
        hinges = []
        for i, (offset, columns) in enumerate(links):
            for k, weight in offset:
                position = position + weight * axes[k]
            axes = [_mix(axes, column) for column in columns]
            if i < len(links) - 1:
                x, y, c, s = axes[0], axes[1], cos[i, ...], sin[i, ...]
                axes = [c * x + s * y, c * y - s * x, axes[2]]
                hinges.append((position, axes[2]))
        return position, axes, hinges

    def _screws(self, position: Array, hinges: list[tuple[Array, Array]]) -> list[Array]:
        """What each hinge does to the tool, `(6, N)`: axis x arm, then axis."""
        out = []
        for anchor, axis in hinges:
            arm = position - anchor
            x, y, z = (axis[i, ...] for i in range(3))
            dx, dy, dz = (arm[i, ...] for i in range(3))
            out.append(self._xp.stack([y * dz - z * dy, z * dx - x * dz, x * dy - y * dx, x, y, z]))
        return out


def solve_positive(matrix: Array, vector: Array, xp: Any) -> Array:
    """Solve symmetric positive definite `matrix` `(K, K, N)` for `vector` `(K, N)`.

    Cholesky written out over N: faster for many small systems than a batched solver, and it can
    be captured in a CUDA graph.
    """
    size = matrix.shape[0]
    low: list[list[Array]] = [[None] * size for _ in range(size)]
    out: list[Array] = []
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i, j, ...]
            for k in range(j):
                rest = rest - low[i][k] * low[j][k]
            low[i][j] = xp.sqrt(rest) if i == j else rest / low[j][j]
        value = vector[i, ...]
        for k in range(i):
            value = value - low[i][k] * out[k]
        out.append(value / low[i][i])
    for i in reversed(range(size)):
        value = out[i]
        for k in range(i + 1, size):
            value = value - low[k][i] * out[k]
        out[i] = value / low[i][i]
    return xp.stack(out)


def _terms(values: np.ndarray) -> list[tuple[int, float]]:
    return [(i, float(v)) for i, v in enumerate(values) if abs(v) > _TINY]


def _columns(rotation: np.ndarray) -> list[list[tuple[int, float]]]:
    whole = np.round(rotation)
    exact = np.where(np.abs(rotation - whole) < 1e-9, whole, rotation)
    return [_terms(exact[:, j]) for j in range(3)]


def _mix(axes: Sequence[Array], terms: list[tuple[int, float]]) -> Array:
    out = None
    for k, weight in terms:
        part = axes[k] if weight == 1.0 else -axes[k] if weight == -1.0 else weight * axes[k]
        out = part if out is None else out + part
    return out
