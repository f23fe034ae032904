"""A judge of pairs: shares of won comparisons, in both orders, on evidence."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.judge import Judge

from embodied.errors import UserError
from embodied.types import ABSTAINED, FAILED, SCORED
from tests.scripted_models import Scripted, check_contract, told


def record(asked: str) -> Any:
    """The data in a hardened question."""
    return json.loads(re.search(r"<<<DATA (\w+)\n(.*)\nDATA \1>>>", asked, re.S)[2])  # type: ignore[index]


def judge(says: Any, **options: Any) -> tuple[Judge, Scripted]:
    model = Scripted(says)
    return Judge(source=model, **options), model


def chooses(better: Any, evidence: str | None = None) -> Any:
    """Says A where `better(A's last observation, B's)`."""

    def says(asked: str) -> str:
        rows = record(asked)
        ends = [rows[side][-1]["world"] for side in "AB"]
        first = better(*ends)
        sides = [{"evidence": end if evidence is None else evidence, "met": "so"} for end in ends]
        return json.dumps(
            {"principles": ["the door is to be open"], "a": sides[0], "b": sides[1],
             "comparison": "so", "verdict": "A" if first else "B"}
        )  # fmt: skip

    return says


def ranked(*numbers: int) -> list[tuple[list[str], list[str]]]:
    return [(["Open doors.", f"{k} doors are open."], ["push"]) for k in numbers]


def more(a: str, b: str) -> bool:
    return int(a.split()[0]) > int(b.split()[0])


def test_shares_of_won_comparisons_by_hand() -> None:
    one, model = judge(chooses(more), mode="pairs")
    traj = told(*ranked(3, 1, 2, 5, 4), group=[0, 0, 0, 1, 1])
    score = one.score({}, traj)[1]
    np.testing.assert_allclose(score.value, [[1.0, 0.0, 0.5, 1.0, 0.0]])
    assert len(model.asked) == 2 * (3 + 1)  # each pair in both orders, none across groups
    assert one.kind == "preference" and (score.status == SCORED).all()


def test_a_judge_that_prefers_what_comes_first_decides_nothing() -> None:
    score = judge(chooses(lambda a, b: True), mode="pairs")[0].score(
        {}, told(*ranked(3, 1), group=[0, 0])
    )[1]
    assert (score.status == ABSTAINED).all() and not score.value.any()


def test_a_tie_is_won_by_nobody() -> None:
    def close(a: str, b: str) -> bool:  # cannot tell 1 from 2, and then takes the first
        pair = {a.split()[0], b.split()[0]}
        return True if pair == {"1", "2"} else more(a, b)

    score = judge(chooses(close), mode="pairs")[0].score(
        {}, told(*ranked(3, 1, 2), group=[0, 0, 0])
    )[1]
    np.testing.assert_allclose(score.value, [[1.0, 0.0, 0.0]])
    assert (score.status == SCORED).all()


def test_pairs_need_evidence_of_the_better_one() -> None:
    made_up = judge(chooses(more, "All doors are open."), mode="pairs")[0]
    assert (made_up.score({}, told(*ranked(3, 1), group=[0, 0]))[1].status == ABSTAINED).all()


def test_in_pairs_what_says_nothing_loses_without_a_question() -> None:
    one, model = judge(chooses(more), mode="pairs")
    talks = [*ranked(1, 2), (["Open doors.", "9 doors are open."], ["Solution"])]
    score = one.score({}, told(*talks, group=[0, 0, 0]))[1]
    np.testing.assert_allclose(score.value, [[0.5, 1.0, 0.0]])
    assert len(model.asked) == 2


def test_failures_and_lone_episodes_of_pairs() -> None:
    down = judge(lambda asked: None, mode="pairs")[0]
    assert (down.score({}, told(*ranked(3, 1), group=[0, 0]))[1].status == FAILED).all()
    alone = judge(chooses(more), mode="pairs")[0]
    assert (alone.score({}, told(*ranked(3, 1), group=[0, 1]))[1].status == ABSTAINED).all()
    with pytest.raises(UserError, match="no groups"):
        alone.score({}, told(*ranked(3, 1)))


def test_in_pairs_it_keeps_the_contract(tmp_path: Any) -> None:
    out = chooses(lambda a, b: "out" in a and "out" not in b)
    check_contract(lambda: judge(out, mode="pairs")[0], tmp_path)
