"""Advantages of whole episodes and of turns against others of the same task; NumPy, no networks.

`group` (N,) numbers the worlds that play the same task; returns are `(N,)`, rewards of turns and
`valid` are `(T, N)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodied.types import Array

EPSILON = 1e-6


def grpo(returns: Array, group: Array, scale: bool = True) -> Array:
    """Group-relative advantages (Shao et al. 2024, arXiv 2402.03300), `(N,)`.

        A_i = (R_i - mean_G R) / (std_G R + 1e-6)

    Without `scale` they are not divided (as Liu et al. 2025, arXiv 2503.20783, advise).
    """
    out = np.zeros(len(returns), np.float32)
    for members in _groups(group):
        centred = returns[members] - returns[members].mean()
        out[members] = centred / (returns[members].std() + EPSILON) if scale else centred
    return out


def rloo(returns: Array, group: Array) -> Array:
    """Against the mean of the others (leave one out: Ahmadian et al. 2024, arXiv 2402.14740).

    A_i = R_i G / (G - 1) - mean_G R  G / (G - 1);  0 for one alone
    """
    out = np.zeros(len(returns), np.float32)
    for members in _groups(group):
        size = len(members)
        if size > 1:
            out[members] = (returns[members] - returns[members].mean()) * size / (size - 1)
    return out


def to_go(reward: Array, valid: Array, gamma: float) -> Array:
    """Discounted sums from every valid turn to its episode's end, over those that are valid.

    `(T, N)` of whole episodes: sum_k gamma^k r_{t+k}; 0 where a turn is not valid.
    """
    out = np.zeros(reward.shape, np.float32)
    following = np.zeros(reward.shape[1])
    for t in range(len(reward) - 1, -1, -1):
        following = np.where(valid[t], reward[t] + gamma * following, following)
        out[t] = np.where(valid[t], following, 0.0)
    return out


def same_state(
    values: Array, states: Sequence[Sequence[str]], valid: Array, group: Array, scale: bool = False
) -> Array:
    """Values of turns against those of the same task in which the same was seen, `(T, N)`.

    The step advantage of GiGPO (Feng et al. 2025, arXiv 2505.10978): A = R - mean over the turns of
    a task's group that saw the identical text; 0 where no other did. `states` are texts `(T, N)`.
    """
    seen: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for t, n in np.argwhere(valid):
        seen.setdefault((int(group[n]), states[t][n]), []).append((int(t), int(n)))
    out = np.zeros(values.shape, np.float32)
    for places in seen.values():
        rows, worlds = zip(*places, strict=True)
        here = values[rows, worlds]
        if len(places) > 1:
            centred = here - here.mean()
            out[rows, worlds] = centred / (here.std() + EPSILON) if scale else centred
    return out


def in_group(values: Array, valid: Array, group: Array, scale: bool = True) -> Array:
    """Values of turns against the mean of all valid turns of their group, `(T, N)`.

    With `scale` they are divided by the deviation of these.
    """
    out = np.zeros(values.shape, np.float32)
    for members in _groups(group):
        here = np.zeros(values.shape, bool)
        here[:, members] = valid[:, members]
        if here.any():
            centred = values[here] - values[here].mean()
            out[here] = centred / (values[here].std() + EPSILON) if scale else centred
    return out


def same_turn(values: Array, valid: Array, group: Array, scale: bool = True) -> Array:
    """Values of turns against the mean of their group's at the same turn, `(T, N)`.

    0 where no other of the group has come as far. With `scale` they are divided by the deviation.
    """
    out = np.zeros(values.shape, np.float32)
    for members in _groups(group):
        for t in range(len(values)):
            here = members[valid[t, members]]
            if len(here) > 1:
                centred = values[t, here] - values[t, here].mean()
                out[t, here] = centred / (values[t, here].std() + EPSILON) if scale else centred
    return out


def _groups(group: Array) -> list[np.ndarray]:
    return [np.flatnonzero(group == which) for which in np.unique(group)]
