"""Cited evidence: which hops count, what they are worth, and the real library."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.turns.cited_evidence import (
    CitedEvidence,
    Rubric,
    is_satisfied,
    linked,
    read_rubrics,
    read_titles,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.types import ABSTAINED, Trajectory
from tests.reward_models.turns.plays import by_hand, open_env, play, values


def hop(entity: str, value: str) -> Rubric:
    return {"entity": entity, "relation": "is", "value": value, "document": f"On {entity}"}


LAMP, ADA, TORVIK = hop("lamp", "Ada"), hop("Ada", "Torvik"), hop("Torvik", "Wend")
CHAIN = [LAMP, ADA, TORVIK]
TITLES = [one["document"] for one in CHAIN]


def test_a_hop_needs_its_document_both_cited_and_read() -> None:
    assert is_satisfied(LAMP, {"On lamp"}, {"On lamp", "On Ada"})
    assert not is_satisfied(LAMP, {"On lamp"}, {"On Ada"})
    assert not is_satisfied(LAMP, {"on lamp"}, {"On lamp"})


def test_hops_count_only_where_they_lead_to_the_answer() -> None:
    assert linked(CHAIN, "Wend") == CHAIN[::-1]
    assert linked([LAMP, TORVIK], "Wend") == [TORVIK]  # the middle is missing
    assert linked([LAMP, ADA], "Wend") == [] and linked([], "Wend") == []
    assert linked([hop("a", "b"), hop("b", "a")], "a") == [hop("b", "a"), hop("a", "b")]


@settings(max_examples=100, deadline=None)
@given(st.permutations(CHAIN), st.sets(st.integers(0, 2)), st.integers(0, 2))
def test_more_evidence_never_counts_less_whatever_the_order(
    chain: list[Rubric], which: set[int], more: int
) -> None:
    some = [one for one in chain if CHAIN.index(one) in which]
    most = [one for one in chain if CHAIN.index(one) in which | {more}]
    count = len(linked(some, "Wend"))
    assert count == next((k for k in range(3) if 2 - k not in which), 3)
    assert count <= len(linked(most, "Wend"))


def answered(success: list[bool], cited: list[Any], read: Any = TITLES) -> Trajectory:
    """Episodes of two turns, one a world, each with its citations."""
    count = len(success)
    told = {"rubrics": CHAIN, "read": read, "answer": "Wend"}
    given = {f"world__{name}": [[json.dumps(value)] * count] * 2 for name, value in told.items()}
    return by_hand(
        [".T"] * count,
        success=np.array([[False] * count, success]),
        world__cited=[[json.dumps([])] * count, [json.dumps(one) for one in cited]],
        **given,
    )


CITED = [TITLES, TITLES[1:], TITLES[:2], ["On lamp", "On Torvik"], [], [*TITLES, "On Bo"]]
SHARES = np.array([3, 2, 0, 1, 0, 3]) / 3


def test_by_hand() -> None:
    traj = answered([True] * 6, CITED)
    got = values(CitedEvidence(weight_rubrics=0.25), traj)
    np.testing.assert_array_equal(got[0], 0.0)
    np.testing.assert_allclose(got[1], 0.75 + 0.25 * SHARES, rtol=1e-6)
    wrong = answered([False] * 6, CITED)
    np.testing.assert_array_equal(values(CitedEvidence(), wrong), 0.0)
    got = values(CitedEvidence(0.25, without_outcome=True), wrong)
    np.testing.assert_allclose(got[1], 0.25 * SHARES, rtol=1e-6)
    unread = values(CitedEvidence(), answered([True] * 6, CITED, read=[]))
    np.testing.assert_array_equal(unread[1], 0.5)
    traj.valid[1, 0] = False
    assert values(CitedEvidence(), traj)[1, 0] == 0.0


def test_in_chunks_it_is_scored_as_the_whole_is() -> None:
    traj = answered([True, False] * 3, CITED)
    one, whole = values(CitedEvidence(), traj, 1), values(CitedEvidence(), traj)
    np.testing.assert_array_equal(one, whole)


MALFORMED = ["", "{", "7", '{"a": 1}', "[1]", '[{"entity": "a"}]', "[" * 50_000, "9" * 5000]


@pytest.mark.parametrize("said", MALFORMED)
def test_what_is_malformed_is_abstained_from(said: str) -> None:
    assert read_rubrics(said) is None and read_titles(said) is None
    for name in ("rubrics", "cited", "read"):
        traj = answered([True], [TITLES])
        traj.readouts[f"world.{name}"][1, 0] = said
        score = CitedEvidence().score({}, traj)[1]
        assert score.status[1, 0] == ABSTAINED and score.value[1, 0] == 0.0
    traj = answered([True], [TITLES])
    traj.readouts["world.answer"][1, 0] = "[]"
    assert CitedEvidence().score({}, traj)[1].status[1, 0] == ABSTAINED


def test_in_the_real_library_the_gold_plan_gets_the_most() -> None:
    env = open_env("library", 6)
    told = play(env, CitedEvidence())
    np.testing.assert_array_equal(told.reward.sum(0), 1.0)
    np.testing.assert_array_equal(told.reward[~told.valid], 0.0)
    env.close()


def test_in_the_real_library_shortcuts_get_less() -> None:
    env = open_env("library", 6)
    env.reset()
    gold = env.gold()
    bare = [plan[-1].partition(" [cites")[0] for plan in gold]
    plans = {
        "no citation": [[*plan[:-1], said] for plan, said in zip(gold, bare, strict=True)],
        "nothing read": [[plan[-1]] for plan in gold],
        "a guess": [[said] for said in bare],
    }
    for what, said in plans.items():
        again = open_env("library", 6)
        told = play(again, CitedEvidence(), said)
        np.testing.assert_array_equal(told.reward.sum(0), 0.5, err_msg=what)
        again.close()
    again = open_env("library", 6)
    last = [[*plan[-3:-1], plan[-1]] for plan in gold]  # of the chain at most the end is read
    told = play(again, CitedEvidence(), last)
    assert (told.reward.sum(0) < 1.0).all()
    env.close()
    again.close()


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_bad_settings_are_told_in_one_line(weight: float) -> None:
    with pytest.raises(UserError, match=r"reward_model\.cited_evidence\.weight_rubrics="):
        CitedEvidence(weight)
