"""Rollouts of a language policy as the token sequences that a model is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied.causal_lm import IGNORED, padded
from embodied.types import Trajectory

EXTRAS = ("context", "reply", "log_prob")
"""What a language policy tells of every turn, `(T, N)` each in `Trajectory.extras`."""


@dataclass
class Transcripts:
    """B sequences of up to L tokens. Turns of a world share one where each continues the last.

    `ids`, and `targets`: the same where a token is the policy's own, `IGNORED` elsewhere; `turn`:
    the row t of the trajectory in which it was said, -1 where nobody said it; `log_prob`: under the
    policy that said it. All `(B, L)`; `world` is `(B,)`.
    """

    ids: Tensor
    targets: Tensor
    turn: Tensor
    log_prob: Tensor
    world: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def begins(self) -> Tensor:
        """The first token of every turn, `(B, L)` bool."""
        before = torch.cat([torch.full_like(self.turn[:, :1], -1), self.turn[:, :-1]], 1)
        return (self.turn >= 0) & (self.turn != before)

    def rows(self, which: Tensor) -> Transcripts:
        """Some of the sequences, without the columns that are padding in all of them."""
        length = int((self.turn[which] >= 0).any(0).nonzero().max()) + 1
        return Transcripts(
            self.ids[which, :length],
            self.targets[which, :length],
            self.turn[which, :length],
            self.log_prob[which, :length],
            self.world[which],
        )

    def spread(self, per_turn: Any) -> Tensor:
        """Values `(T, N)` of turns as values of their tokens, `(B, L)`; 0 where there is none."""
        values = torch.as_tensor(np.asarray(per_turn, np.float32), device=self.ids.device)
        out = values[self.turn.clamp(min=0), self.world[:, None]]
        return torch.where(self.turn >= 0, out, 0.0)

    def gathered(self, per_token: Tensor, shape: tuple[int, int]) -> Tensor:
        """Sums over the tokens of every turn, `(T, N)`, of values `(B, L)`."""
        steps, worlds = shape
        said = self.turn >= 0
        index = self.turn.clamp(min=0) * worlds + self.world[:, None]
        out = torch.zeros(steps * worlds, device=per_token.device, dtype=per_token.dtype)
        return out.index_add(0, index[said], per_token[said]).view(shape)


def transcripts(traj: Trajectory, pad: int = 0, device: Any = None) -> Transcripts:
    """The sequences of all valid turns of a rollout whose policy speaks."""
    context, reply, log_prob = (traj.extras[name] for name in EXTRAS)
    rows: list[_Row] = []
    for n in range(traj.shape[1]):
        row: _Row | None = None
        for t in np.flatnonzero(traj.valid[:, n]):
            if row is None or not row.continues(context[t, n]):
                row = _Row(n)
                rows.append(row)
            row.add(context[t, n][row.length :], reply[t, n], log_prob[t, n], int(t))
    return Transcripts(
        ids=padded([row.ids for row in rows], pad, device),
        targets=padded(
            [np.where(row.turn >= 0, row.ids, IGNORED) for row in rows], IGNORED, device
        ),
        turn=padded([row.turn for row in rows], -1, device),
        log_prob=_floats([row.log_prob for row in rows], device),
        world=torch.tensor([row.world for row in rows], dtype=torch.int64, device=device or "cpu"),
    )


class _Row:
    """One sequence, turn by turn."""

    def __init__(self, world: int) -> None:
        self.world, self.length = world, 0
        self.ids = np.empty(0, np.int64)
        self.turn = np.empty(0, np.int64)
        self.log_prob = np.empty(0, np.float32)

    def continues(self, context: np.ndarray) -> bool:
        return len(context) > self.length and np.array_equal(context[: self.length], self.ids)

    def add(self, seen: np.ndarray, said: np.ndarray, log_prob: np.ndarray, turn: int) -> None:
        nothing = np.zeros(len(seen), np.float32)
        self.ids = np.concatenate([self.ids, seen, said])
        self.turn = np.concatenate([self.turn, np.full(len(seen), -1), np.full(len(said), turn)])
        self.log_prob = np.concatenate([self.log_prob, nothing, log_prob])
        self.length = len(self.ids)


def _floats(rows: list[np.ndarray], device: Any) -> Tensor:
    out = np.zeros((len(rows), max(map(len, rows), default=0)), np.float32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out).to(device or "cpu")
