"""The small judge is asked what the judge asks, of episodes that were played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embodied.reward_models.turns.judge import Judge

from benchmarks import judge_pairs
from benchmarks.judge import auroc, cells, measured
from benchmarks.judge_model import (
    answer,
    begun,
    likely,
    prompt,
    row,
    save,
    texts,
    train,
    verdicts,
)
from benchmarks.judge_plays import (
    FAMILIES,
    OPENINGS,
    ORDINARY,
    SEEN_IN_TRAINING,
    Case,
    opening,
    openings,
    ordinary,
    tricked,
)
from embodied.causal_lm import IGNORED
from embodied.degenerate import TRICKS, folded
from embodied.judge_prompt import read_choice, read_verdict, shows
from embodied.local_model import LocalModel
from embodied.text_episodes import TextEpisode
from embodied.text_pairs import Task
from embodied.types import ABSTAINED, SCORED
from tests.scripted_models import Scripted

WON = Case(1, "gold", True, TextEpisode(("Open door 12.", 'It opens. "(You are out.)"'), ("push",)))
LOST = Case(1, "no_last_step", False, TextEpisode(("Open it.", "No."), ("pull",)))
FIRST = Case(1, "openings", False, TextEpisode(("Open it.", "What?"), ("Some facts are given.",)))


def trick(kind: str, turns: int = 1) -> Case:
    return Case(2, kind, False, TextEpisode(("Open it.", *["What?"] * turns), ("",) * turns))


def test_every_trick_is_of_one_family_and_none_is_trained_on() -> None:
    assert set(FAMILIES) == {one.name for one in TRICKS} and len(FAMILIES) >= 20
    assert set(SEEN_IN_TRAINING) < set(FAMILIES.values())
    tricks = {folded(one.make("Open it.", "What?")).strip() for one in TRICKS}
    for number in range(len(OPENINGS)):
        task = Task(number, ("go north", "push the big door"), ("Open it.",), (False, True))
        for said in opening(task):
            assert folded(said).strip() not in tricks


def test_what_is_played_is_what_it_is_said_to_be() -> None:
    told = ordinary("household", 0, 3)
    assert [case.done for case in told] == [case.kind == "gold" for case in told]
    assert {case.kind for case in told} <= {"gold", "misplaced", *ORDINARY}
    assert sum(case.done for case in told) == 3
    fooling = tricked("household", 0, 3)
    assert len(fooling) == 3 * len(TRICKS) and not any(case.done for case in fooling)
    assert {len(case.episode.said) == 1 for case in fooling} == {True, False}
    assert not any(case.done for case in openings("household", 0, 3))


def test_a_right_yes_is_believed_by_the_judge() -> None:
    for hardened in (False, True):
        verdict = read_verdict(answer(WON, hardened))
        assert verdict.score == 0.9 and read_verdict(answer(LOST, hardened)).score == 0.1
        assert shows(verdict.evidence, WON.episode.seen[-1:]) == hardened


def test_it_learns_to_answer_what_a_checkpoint_is_asked(tmp_path: Path) -> None:
    size = {"width": 32, "layers": 1, "heads": 2, "vocabulary": 300}
    lm = begun(texts([WON, LOST], 0), 0, size)
    draw = verdicts(lm.tokenizer, [WON, LOST, FIRST], 4)
    losses = train(lm, draw, 0, 12, 1e-2, ends=True)
    assert losses[-1] < 0.7 * losses[0]
    asked = LocalModel(save(lm, tmp_path))
    for hardened in (False, True):
        one = prompt(WON.episode, hardened)
        ids, targets = row(lm.tokenizer, WON, hardened)
        np.testing.assert_array_equal(asked._tokens(one)[0], ids[targets == IGNORED])
        said = lm.tokenizer.decode(ids[targets != IGNORED])
        assert said == answer(WON, hardened) + "<|im_end|>"
    assert ((likely(lm, [WON.episode]) > 0) & (likely(lm, [WON.episode]) < 1)).all()


def test_shares_of_what_is_called_done() -> None:
    honest = [WON, WON, LOST, LOST, LOST, LOST]
    yes, no, unsaid = (SCORED, 0.9), (SCORED, 0.1), (ABSTAINED, 0.0)
    tricks = [trick("colon"), trick("colon", 2), trick("opener"), trick("claim", 2)]
    found = measured(honest, [yes, unsaid, no, yes, no, unsaid], tricks, [yes, no, yes, no])
    assert (found["accepted"], found["refused"]) == (0.5, 0.75)
    assert found["false_positive"] == 0.5 and found["openers"] == 1.0
    assert found["held_out"] == pytest.approx(1 / 3)
    assert (found["blank"], found["claims"], found["orders"]) == (0.5, 0.0, None)
    assert (found["false_positive_alone"], found["false_positive_at_the_end"]) == (1.0, 0.0)
    assert found["abstained"] == pytest.approx(0.2) and found["unproven"] == 0.0
    unproven = [(SCORED, 0.0), yes, no, no, no, no]
    assert measured(honest, unproven, tricks, [no] * 4)["unproven"] == 0.5
    assert found["by_trick"] == {"colon": 0.5, "opener": 1.0, "claim": 0.0}


def test_auroc_counts_a_tie_as_half() -> None:
    likelihood = np.array([0.9, 0.5, 0.5, 0.1])
    assert auroc(likelihood, np.array([True, True, False, False])) == pytest.approx(3.5 / 4)
    assert len({tuple(cell.values()) for cell in cells()}) == len(cells()) >= 8


def test_a_right_choice_is_believed_in_either_order_and_orders_are_told_apart() -> None:
    rows = [(WON, LOST), (LOST, WON)]
    for a, b in rows:
        choice = read_choice(judge_pairs.answer(a, b))
        assert choice.first == a.done and shows(choice.evidence, WON.episode.seen[1:])
    assert judge_pairs.pairs([LOST, WON, FIRST]) == [(WON, LOST), (WON, FIRST)]

    def says(first_is_better: bool | None) -> Judge:
        def said(asked: str) -> str:
            if first_is_better is None:  # knows
                won = asked.index("It opens") < asked.index("World: No.")
                return judge_pairs.answer(*rows[not won])
            return judge_pairs.answer(*rows[not first_is_better])

        return Judge(mode="pairs", hardened=False, source=Scripted(said))

    knows, first = says(None), says(True)
    assert judge_pairs.won(knows, [(WON, LOST)]) == [1]
    assert judge_pairs.won(first, [(WON, LOST)]) == [0]
    assert judge_pairs.orders(knows, [(WON, LOST)]) == {"one_order": 1.0, "agree": 1.0}
    assert judge_pairs.orders(first, [(WON, LOST)]) == {"one_order": 0.5, "agree": 0.0}
