"""The newest of what two processes have to tell each other, in memory that they share.

A slot holds one row of numbers: writing replaces it, reading copies it. Nobody ever waits: a row
that is being written while it is read is read again. Memory has no name, so that nothing is left
behind when its processes die; a child gets it as an open file.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Mapping

import numpy as np

HEAD = 2
"""Numbers before a slot's row: how often it was written (twice), and a checksum."""
TRIES = 200


class Mailbox:
    """Slots by name, each for a row `(size,)` float64, over an open file of anonymous memory."""

    def __init__(self, sizes: Mapping[str, int], file: int | None = None) -> None:
        total = 8 * sum(HEAD + size for size in sizes.values())
        self.sizes = dict(sizes)
        self.file = os.memfd_create("embodied") if file is None else file
        if file is None:
            os.ftruncate(self.file, total)
        self._memory = mmap.mmap(self.file, total)
        self._slots: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        start = 0
        for name, size in sizes.items():
            head = np.frombuffer(self._memory, np.int64, HEAD, start)
            row = np.frombuffer(self._memory, np.float64, size, start + 8 * HEAD)
            self._slots[name] = head, row
            start += 8 * (HEAD + size)

    def write(self, name: str, row: np.ndarray) -> None:
        """Replace a slot's row. It has one writer."""
        head, kept = self._slots[name]
        data = np.ascontiguousarray(row, np.float64)
        if data.shape != kept.shape:
            raise ValueError(f"{name} holds {kept.shape}, not {data.shape}")
        count = int(head[0])
        head[0] = count + 1 + count % 2  # odd: a writer that died midway leaves it so
        kept[:] = data
        head[1] = zlib.crc32(data.tobytes())
        head[0] = count + 2 + count % 2

    def read(self, name: str) -> tuple[int, np.ndarray] | None:
        """How often a slot was written, and its row `(size,)`; None if never, or if it is torn."""
        head, kept = self._slots[name]
        for _ in range(TRIES):
            count = int(head[0])
            if count == 0:
                return None
            row = kept.copy()
            if (
                count % 2 == 0
                and int(head[0]) == count
                and zlib.crc32(row.tobytes()) == int(head[1])
            ):
                return count // 2, row
        return None

    def close(self) -> None:
        self._slots.clear()
        self._memory.close()
        os.close(self.file)
