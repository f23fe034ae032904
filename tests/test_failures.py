"""What a policy does, in words, by hand."""

from __future__ import annotations

import numpy as np

from embodied.evidence import Evidence
from embodied.failures import failures
from tests.test_reward_author import about


def evidence(success: list[bool]) -> Evidence:
    """Three steps of as many episodes; the hand comes to the cube only in those that succeed."""
    count = len(success)
    rows = {n: np.zeros((count, 3, *s), np.float32) for n, s in about().shapes.items()}
    rows["hand.position"][:, :, 0] = [0.3, 0.1, 0.2]
    for k, won in enumerate(success):
        if won:
            rows["hand.position"][k, :, 0] = [0.3, 0.2, 0.0]
    rows["hand.opening"][:] = [0.08, 0.01, 0.05]
    played = np.ones((count, 3), bool)
    return Evidence(rows, ("policy",) * count, played, np.array(success))


def test_both_groups_by_hand() -> None:
    text = failures(evidence([False, True, False]), about())
    lines = text.splitlines()
    assert lines[0] == "2 of 3 episodes fail. Medians over episodes:"
    assert lines[1] == (
        "- from hand.position to cube.position, in m: failed 0.100 at the nearest, 0.200 at the "
        "end; succeeded 0.000 at the nearest, 0.000 at the end"
    )
    assert (
        "- hand.opening, in m (at first, extremes, at the end): failed 0.08, from 0.01 to 0.08, "
        "0.05; succeeded 0.08, from 0.01 to 0.08, 0.05"
    ) in lines
    assert sum("goal" in line for line in lines) == 0  # two numbers: no distance to three


def test_what_comes_after_an_end_is_not_told() -> None:
    one = evidence([False])
    one.played[:, 1:] = False
    assert "failed 0.300 at the nearest, 0.300 at the end" in failures(one, about())


def test_success_has_little_to_tell() -> None:
    assert failures(evidence([True, True]), about()) == "All 2 episodes succeed."
