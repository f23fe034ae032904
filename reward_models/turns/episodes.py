"""Episodes of talk as what a model is trained on: what was heard and said, and places in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from embodied.causal_lm import CausalLM
from embodied.types import Array, Trajectory


def ended(traj: Trajectory) -> Array:
    """Worlds `(N,)` bool whose episode is over, and can be learned from: every turn is valid."""
    live = np.ones(traj.shape, bool) if traj.due is None else np.asarray(traj.due)
    over = ((traj.terminated | traj.truncated) & traj.valid).any(0)
    return over & (traj.valid | ~live).all(0)


def succeeded(traj: Trajectory) -> Array:
    """Worlds `(N,)` bool whose task was done."""
    return (np.asarray(traj.readouts["success"], bool) & traj.valid).any(0)


def replies(traj: Trajectory, n: int) -> list[np.ndarray]:
    """Of every valid turn of a world all tokens up to its end, its reply with them."""
    context, reply = traj.extras["context"], traj.extras["reply"]
    turns = np.flatnonzero(traj.valid[:, n])
    return [np.concatenate([context[t, n], reply[t, n]]) for t in turns]


def histories(traj: Trajectory, n: int, lm: CausalLM, final: str) -> list[np.ndarray]:
    """All that a world's agent had seen before each valid turn, and after the last: K + 1 of them.

    Each ends where a reply begins. `final` is the text after the last turn, which the agent never
    replied to: it is put as the agent would have seen it, cut at the front where it is too long.
    """
    turns = np.flatnonzero(traj.valid[:, n])
    seen = [np.asarray(traj.extras["context"][t, n]) for t in turns]
    if len(turns):
        said = traj.extras["reply"][turns[-1], n]
        stop = lm.chat.stop if said[-1] != lm.chat.stop[-1] else lm.chat.stop[:0]
        whole = np.concatenate([seen[-1], said, stop, lm.chat.following(final)])
        seen.append(whole[-lm.context :])
    return seen


@dataclass(frozen=True)
class Marked:
    """Episodes as sequences of tokens in which places are marked, each with a target.

    `ids` (L,) are those of all sequences, one after another; `lengths` (R,) and `episode` (R,) are
    the sequences' own. `places` (K,) are positions in `ids`, `targets` (K,) what is to be said of
    them.
    """

    ids: np.ndarray
    lengths: np.ndarray
    episode: np.ndarray
    places: np.ndarray
    targets: np.ndarray

    @property
    def rows(self) -> list[np.ndarray]:
        return np.split(self.ids, np.cumsum(self.lengths)[:-1])

    @property
    def owner(self) -> np.ndarray:
        """The episode of every place, `(K,)`."""
        row = np.searchsorted(np.cumsum(self.lengths), self.places, side="right")
        return self.episode[row]


def marked(sequences: Sequence[np.ndarray], targets: Sequence[float] | np.ndarray) -> Marked:
    """One episode, the last token of every sequence marked.

    Sequences that continue the one before them become one with it.
    """
    rows: list[np.ndarray] = []
    places, start = [], 0
    for ids in sequences:
        had = rows[-1] if rows else ids[:0]
        if rows and len(ids) > len(had) and np.array_equal(ids[: len(had)], had):
            rows[-1] = ids
        else:
            start += len(had)
            rows.append(ids)
        places.append(start + len(ids) - 1)
    return Marked(
        np.concatenate(rows).astype(np.int64),
        np.array([len(row) for row in rows], np.int64),
        np.zeros(len(rows), np.int64),
        np.array(places, np.int64),
        np.asarray(targets, np.float32),
    )


def together(parts: Sequence[Marked]) -> Marked:
    """Episodes as one, numbered in their order."""
    starts = np.cumsum([0, *(len(part.ids) for part in parts)])[:-1]
    return Marked(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part.lengths) for part in parts]),
        np.concatenate([part.places + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.targets for part in parts]),
    )


def apart(whole: Marked) -> list[Marked]:
    """The episodes that `together` made one."""
    out, owner = [], whole.owner
    ends = np.cumsum(whole.lengths)
    for k in np.unique(whole.episode):
        mine, here = whole.episode == k, owner == k
        start = int((ends - whole.lengths)[mine][0])
        out.append(
            Marked(
                whole.ids[start : int(ends[mine][-1])],
                whole.lengths[mine],
                np.zeros(int(mine.sum()), np.int64),
                whole.places[here] - start,
                whole.targets[here],
            )
        )
    return out


class Memory:
    """The last `most` episodes, and draws from them."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.kept = most, list[Marked]()
        self.noise = torch.Generator().manual_seed(seed)

    def add(self, parts: Sequence[Marked]) -> None:
        self.kept = [*self.kept, *parts][-self.most :]

    def draw(self, count: int) -> Marked:
        """Some of them at random, one perhaps more than once."""
        chosen = torch.randint(len(self.kept), (count,), generator=self.noise).tolist()
        return together([self.kept[k] for k in chosen])

    def state_dict(self) -> dict[str, Any]:
        kept = vars(together(self.kept)) if self.kept else None
        return {"kept": kept, "noise": self.noise.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.noise.set_state(torch.as_tensor(state["noise"]))
        rows = state["kept"]
        self.kept = apart(Marked(**{k: np.asarray(v) for k, v in rows.items()})) if rows else []
