"""Bytes that are almost messages, for whoever reads what comes from elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator


def mangled(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Bytes like `data` with some changed, cut out or put in; and some that are mere noise."""
    dice = random.Random(seed)
    for _ in range(count):
        if dice.random() < 0.2:
            yield dice.randbytes(dice.randrange(300))
            continue
        changed = bytearray(data)
        for _ in range(dice.randrange(1, 6)):
            at, length = dice.randrange(len(changed) + 1), dice.choice([0, 1, 1, 1, 4, 20])
            changed[at : at + length] = dice.randbytes(dice.choice([0, length, length, 8]))
        yield bytes(changed)
