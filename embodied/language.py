"""Instructions as vectors, without a language model: hashed words and pairs of words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np

TEXT_SIZE = 64


@cache
def _embed(text: str) -> np.ndarray:
    words = re.findall(r"\w+", text.lower())
    vector = np.zeros(TEXT_SIZE, np.float32)
    for term in [*words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))]:
        bits = zlib.crc32(term.encode())
        vector[bits % TEXT_SIZE] += 1.0 if bits >> 31 else -1.0
    return vector / max(1.0, float(np.linalg.norm(vector)))


def embed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors `(n, TEXT_SIZE)` float32 of texts, alike where their words are."""
    return np.stack([_embed(text) for text in texts]) if len(texts) else np.zeros((0, TEXT_SIZE))
