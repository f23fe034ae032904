"""What is not progress, without any failure to learn it from: other tasks' words, states put
together from two."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied.dataset import Dataset

ELSEWHERE = (
    "wave to the people",
    "open the window",
    "wipe the table clean",
    "turn off the light",
    "fold the towel in half",
    "pour water into the glass",
    "put the cup into the sink",
    "press the green button",
    "throw the bottle away",
    "close the lid of the box",
    "bring the spoon to the plate",
    "place the yellow ball on top of the book",
    "hang the blue towel on the hook",
    "move the chair to the left",
    "insert the key into the lock and turn it",
    "hold the red pen above the paper",
)
"""Instructions of no task of ours."""

COMMON = frozenset("a an and at in into it its of off on onto or out the then there to up".split())
REWORDED = 48


def words(text: str) -> set[str]:
    """The words of a text that mean something by themselves."""
    return set(re.findall(r"\w+", text.lower())) - COMMON


def told_otherwise(
    dataset: Dataset, others: Sequence[Dataset], own: Sequence[str] = (), seed: int = 0
) -> dict[str, tuple[str, ...]]:
    """Wrong instructions, each with the names of its task's stages where known.

    Those of `others`, some of no task of ours, and the right ones, which are those of `dataset`
    and `own`, with some of their words exchanged for words of the wrong ones.
    """
    right = sorted({*own, *(episode.instruction for episode in dataset.episodes)})
    found: dict[str, tuple[str, ...]] = dict.fromkeys(ELSEWHERE, ())
    found |= {e.instruction: tuple(other.info.stages) for other in others for e in other.episodes}
    spare = sorted(set[str]().union(*map(words, found)) - set[str]().union(*map(words, right)))
    rng = np.random.default_rng(seed)
    found |= {_reworded(right[k % len(right)], spare, rng): () for k in range(REWORDED)}
    return {text: stages for text, stages in sorted(found.items()) if text not in right}


def _reworded(text: str, spare: Sequence[str], rng: np.random.Generator) -> str:
    """`text` with one to half of its words of meaning exchanged for `spare` ones."""
    parts = re.findall(r"\w+|\W+", text)
    places = [i for i, part in enumerate(parts) if words(part)]
    count = int(rng.integers(1, max(1, len(places) // 2) + 1)) if places else 0
    for place in rng.choice(places, count, replace=False) if places else ():
        parts[place] = str(rng.choice(spare))
    return "".join(parts)


def mixed(vector: Tensor, other: Tensor, chosen: Tensor, noise: torch.Generator) -> Tensor:
    """States `(B, ..., V)`; those of `chosen` (B,) with some numbers of `other` (B, V).

    A state that has the posture of one moment and the objects of another has done no more than
    either: it counts as the lesser, so that no policy is paid for what only looks done.
    """
    share = 0.2 + 0.6 * torch.rand((len(vector), 1), generator=noise)
    swap = torch.rand((len(vector), vector.shape[-1]), generator=noise) < share
    shape = (len(vector), *(1,) * (vector.ndim - 2), vector.shape[-1])
    return torch.where((swap & chosen[:, None]).view(shape), other.view(shape), vector)
