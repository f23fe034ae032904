"""Instructions as vectors."""

from __future__ import annotations

import numpy as np

from embodied.language import TEXT_SIZE, embed


def test_texts_are_unit_vectors_that_are_alike_where_their_words_are() -> None:
    one, same, near, far = embed(
        ["pick up the red cube", "Pick up the RED cube!", "pick up the blue cube", "close a drawer"]
    )
    assert one.shape == (TEXT_SIZE,) and np.isclose(np.linalg.norm(one), 1.0)
    np.testing.assert_array_equal(one, same)
    assert one @ far < one @ near < 0.999


def test_the_order_of_words_counts_and_no_text_is_nothing() -> None:
    there, back = embed(["cube on drawer", "drawer on cube"])
    assert not np.array_equal(there, back)
    assert (embed([""]) == 0.0).all() and embed([]).shape == (0, TEXT_SIZE)
