"""Episodes with marked places: how they are put together, taken apart, kept and drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from embodied.reward_models.turns.episodes import (
    Memory,
    apart,
    ended,
    histories,
    marked,
    replies,
    succeeded,
    together,
)

from tests.reward_models.turns.mixed import mixed
from tests.talks import lm
from tests.toys import through_disk


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


ONE = marked([ids(1, 2), ids(1, 2, 3, 4), ids(1, 4), ids(1, 4, 5)], [0.0, 0.5, 0.0, 1.0])
"""Its third sequence does not continue its second: what was said first was left out."""
TWO = marked([ids(7, 8, 9)], [0.25])


def test_sequences_that_go_on_become_one() -> None:
    assert [row.tolist() for row in ONE.rows] == [[1, 2, 3, 4], [1, 4, 5]]
    assert ONE.places.tolist() == [1, 3, 5, 6]
    assert ONE.ids[ONE.places].tolist() == [2, 4, 4, 5]


def test_equal_sequences_are_two_places() -> None:
    part = marked([ids(1, 2), ids(1, 2)], [0.0, 0.0])
    assert part.ids[part.places].tolist() == [2, 2] and len(part.lengths) == 2


def test_together_and_apart() -> None:
    whole = together([ONE, TWO, ONE])
    assert whole.owner.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert whole.episode.tolist() == [0, 0, 1, 2, 2]
    assert whole.ids[whole.places].tolist() == [2, 4, 4, 5, 9, 2, 4, 4, 5]
    for part, again in zip([ONE, TWO, ONE], apart(whole), strict=True):
        for name, value in vars(part).items():
            np.testing.assert_array_equal(getattr(again, name), value)


def test_the_oldest_are_forgotten() -> None:
    memory = Memory(2, 0)
    memory.add([ONE])
    memory.add([TWO, TWO])
    assert [len(part.places) for part in memory.kept] == [1, 1]


def test_draws_go_on_from_a_checkpoint(tmp_path: Any) -> None:
    memory, other = Memory(9, 1), Memory(9, 2)
    memory.add([ONE, TWO, ONE])
    memory.draw(3)
    other.load_state_dict(through_disk(memory.state_dict(), tmp_path))
    for _ in range(3):
        one, two = memory.draw(4), other.draw(4)
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(two, name), value)
    empty = Memory(9, 1)
    empty.load_state_dict(through_disk(Memory(9, 1).state_dict(), tmp_path))
    assert empty.kept == []


def read(tokens: np.ndarray) -> str:
    return str(lm().chat.tokenizer.decode(tokens.tolist()))


def test_what_was_said_and_seen() -> None:
    traj = mixed(worlds=4)
    seen = histories(traj, 0, lm(), "You are out.")
    said = replies(traj, 0)
    assert (len(seen), len(said)) == (3, 2)
    for t in range(2):
        np.testing.assert_array_equal(seen[t], traj.extras["context"][t, 0])
        np.testing.assert_array_equal(said[t][: len(seen[t])], seen[t])
        assert read(said[t][len(seen[t]) :]) == f"{traj.action[t, 0]}<|im_end|>"
    for text in seen:
        assert read(text).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "It opens." in read(seen[1]) and read(seen[2]).count("You are out.") == 1
    np.testing.assert_array_equal(seen[2][: len(said[1])], said[1])


def test_a_reply_that_did_not_end_is_ended() -> None:
    traj = mixed(worlds=4)
    traj.extras["reply"][1, 0] = traj.extras["reply"][1, 0][:-1]
    assert read(histories(traj, 0, lm(), "x")[2]).count("<|im_end|>") == 5


def test_a_history_that_is_too_long_keeps_its_end() -> None:
    last = histories(mixed(worlds=4), 0, lm(), "out " * 600)[2]
    assert len(last) == lm().context
    assert read(last).endswith("assistant\n")


def test_what_can_be_learned_from() -> None:
    """A whole episode, one that is not over, one that faulted at its end, one with a bad turn."""
    traj = mixed(worlds=4).slice(0, 2)
    traj.valid = np.array([[1, 1, 1, 0], [0, 1, 0, 1]], bool)
    traj.truncated = np.array([[1, 0, 0, 0], [0, 0, 1, 1]], bool)
    traj.terminated = np.zeros((2, 4), bool)
    traj.due = np.array([[1, 1, 1, 1], [0, 1, 1, 1]], bool)
    assert ended(traj).tolist() == [True, False, False, False]
    traj.due = None  # then every world was live
    assert not ended(traj).any()


def test_who_succeeded() -> None:
    assert succeeded(mixed(worlds=4)).tolist() == [True, False, True, False]
