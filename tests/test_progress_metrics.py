"""Every metric against a case worked by hand, and what must hold for any input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied import progress_metrics as pm

numbers = st.integers(-50, 50).map(float)
paths = st.lists(numbers, min_size=2, max_size=30)
unit = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)
scored = st.lists(st.tuples(numbers, st.booleans()), min_size=1, max_size=30)


def test_correlations():
    assert pm.pearson([0, 1, 2], [1, 3, 5]) == pytest.approx(1.0)
    assert pm.pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert pm.spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1.0)
    # ranks 1, 2, 3, 4 and 2, 1, 4, 3: 1 - 6 * 4 / (4 * 15)
    assert pm.spearman([1, 2, 3, 4], [5, 1, 9, 7]) == pytest.approx(0.6)
    assert pm.spearman([1, 2, 3], [7, 7, 7]) == 0.0
    assert pm.pearson([1e-300, 2e-300, 3e-300], [1, 2, 3]) == pytest.approx(1.0)


def test_tau_b_with_ties():
    # pairs: 5 concordant, 0 discordant, 1 tied in x: 5 / sqrt(5 * 6)
    assert pm.kendall_tau([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30))
    assert pm.kendall_tau([1, 2, 3], [3, 2, 1]) == -1.0
    assert pm.kendall_tau([1, 1, 1], [3, 2, 1]) == 0.0


def test_order_of_frames():
    assert pm.voc([0.0, 0.1, 0.5, 0.9]) == pytest.approx(1.0)
    assert pm.vroc([0.9, 0.5, 0.1, 0.0]) == pytest.approx(1.0)
    assert pm.voc_f1([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(1.0)
    # VOC 1, VROC .6
    assert pm.voc_f1([1, 2, 3, 4], [7, 9, 1, 5]) == pytest.approx(2 * 0.6 / 1.6)
    assert pm.voc_f1([1, 2, 3], [1, 2, 3]) == 0.0  # a clock rises backwards too
    assert pm.negative_rate([0.0, 0.2, 0.1, 0.1, 0.0]) == 0.5
    assert pm.negative_rate([0.3]) == 0.0


def test_a_clock_scores_low_on_a_retry_and_a_hesitation():
    truth = [0.0, 0.4, 0.8, 0.1, 0.2, 0.6]
    assert pm.retry_voc(truth, truth) == pytest.approx(1.0)
    # ranks of truth 1 4 6 2 3 5 against 1..6: d^2 = 0+4+9+4+4+1 = 22
    assert pm.retry_voc(range(6), truth) == pytest.approx(1 - 6 * 22 / (6 * 35))
    assert pm.hesitation_rmse([0.0, 0.5, 1.0], [0.0, 0.2, 0.6]) == pytest.approx(
        math.sqrt(0.25 / 3)
    )
    assert pm.mae([0.0, 0.5, 1.0], [0.0, 0.2, 0.6]) == pytest.approx(0.7 / 3)


def test_ranking_accuracy_counts_ties_half():
    # pairs of different truth: (0,1) right, (0,2) tied, (1,2) wrong
    assert pm.ranking_accuracy([1, 2, 1], [1, 2, 3]) == pytest.approx(0.5)
    assert pm.ranking_accuracy([1, 2, 3], [0, 0, 1]) == 1.0
    assert math.isnan(pm.ranking_accuracy([1, 2], [3, 3]))


def test_pairs_by_hop():
    value, truth = [0.0, 0.3, 0.2, 0.9], [0.0, 0.1, 0.15, 1.0]
    # hops: 0-1 .1 right, 0-2 .15 right, 1-2 .05 wrong, and three of more than .4, right
    accuracy, count = pm.pair_accuracy_by_hop(value, truth, [0.0, 0.06, 0.2, 0.4, 1.0])
    assert count.tolist() == [1, 2, 0, 3]
    assert accuracy[[0, 1, 3]].tolist() == [0.0, 1.0, 1.0] and math.isnan(accuracy[2])


def test_auroc_and_auprc_with_ties():
    label = [True, False, True, False]
    assert pm.auroc([0.9, 0.1, 0.8, 0.2], label) == 1.0
    assert pm.auroc([0.5, 0.5, 0.8, 0.2], label) == pytest.approx(3.5 / 4)
    assert pm.auroc([1, 1, 1, 1], label) == 0.5
    assert math.isnan(pm.auroc([1, 2], [True, True]))
    assert pm.auprc([0.9, 0.1, 0.8, 0.2], label) == 1.0
    # 1st a failure, then both successes at once, then a failure: precision 2/3 at recall 1
    assert pm.auprc([0.5, 0.9, 0.5, 0.1], label) == pytest.approx(2 / 3)
    # in order success, failure, success: 1/2 * 1 + 1/2 * 2/3
    assert pm.auprc([3, 2, 1], [True, False, True]) == pytest.approx(5 / 6)
    assert pm.auprc([1, 1, 1, 1], label) == 0.5
    assert math.isnan(pm.auprc([1, 2], [False, False]))


def test_opd_by_hand():
    path = [0.2, 0.6, 0.4, 0.8]
    assert pm.path_length_weighted(path) == pytest.approx(0.8**2 / (0.2 + 0.4 + 0.2 + 0.4))
    assert pm.path_length_weighted([0.0, 0.0]) == 0.0
    assert pm.path_length_weighted([0.5, 1.0]) == pytest.approx(1.0)
    assert pm.regret(path) == pytest.approx(0.2 / 4)
    assert pm.stalled([0.0, 0.2, 0.204, 0.3]) == pytest.approx(2 / 4)
    found = pm.opd([path, [0.1, 0.3]])
    assert (found["mc25"], found["mc50"], found["mc75"], found["mc100"]) == (1.0, 0.5, 0.5, 0.0)
    assert found["mp"] == pytest.approx((0.8 + 0.3) / 2)
    with pytest.raises(ValueError):
        pm.opd([])


def test_opd_clamps_and_cuts_at_the_first_success():
    assert pm.opd([[-0.5, -0.2]])["ppl"] == 0.0
    assert pm.opd([[0.5, 1.7]])["mc100"] == 1.0
    idle = [0.5, 1.0, 1.0, 1.0]
    done = np.array([False, True, True, True])
    assert pm.opd([idle])["str"] == 0.5
    assert pm.opd([idle], [done])["str"] == 0.0
    assert pm.opd([idle], [np.zeros(4, bool)])["str"] == 0.5


@given(paths)
def test_voc_heeds_the_order_alone(path):
    stretched = [2.0 * x**3 + x - 7.0 for x in path]
    assert pm.voc(stretched) == pytest.approx(pm.voc(path), abs=1e-9)
    assert pm.voc(path[::-1]) == pytest.approx(-pm.voc(path), abs=1e-9)
    assert -1.0 <= pm.voc(path) <= 1.0
    assert pm.kendall_tau(path[::-1], range(len(path))) == pytest.approx(
        -pm.kendall_tau(path, range(len(path))), abs=1e-9
    )


@given(scored)
def test_negated_scores_turn_auroc_round(rows):
    score, label = [x for x, _ in rows], [y for _, y in rows]
    there, back = pm.auroc(score, label), pm.auroc([-x for x in score], label)
    if len(set(label)) == 2:
        assert there == pytest.approx(1.0 - back)
        wins = [
            (a > b) + 0.5 * (a == b)
            for a, p in rows if p for b, q in rows if not q
        ]  # fmt: skip
        assert there == pytest.approx(np.mean(wins))
    else:
        assert math.isnan(there) and math.isnan(back)


@given(scored)
def test_auprc_is_the_rate_of_successes_at_least_where_all_scores_are_equal(rows):
    label = [y for _, y in rows]
    if any(label):
        assert pm.auprc([0.0] * len(label), label) == pytest.approx(np.mean(label))
        assert 0.0 < pm.auprc([x for x, _ in rows], label) <= 1.0 + 1e-12
        assert pm.auprc(np.asarray(label, float), label) == pytest.approx(1.0)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20))
def test_ranking_is_pairs_of_every_hop_together(rows):
    value, truth = zip(*rows, strict=True)
    accuracy, count = pm.pair_accuracy_by_hop(value, truth, [0.0, 5.0, 20.0, 101.0])
    if count.sum():
        whole = np.nansum(accuracy * count) / count.sum()
        assert pm.ranking_accuracy(value, truth) == pytest.approx(whole)
    assert pm.hesitation_rmse(value, truth) >= pm.mae(value, truth) - 1e-9


@given(unit)
def test_opd_stays_in_the_unit_interval(path):
    found = pm.opd([path])
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in found.values())
    assert found["mc25"] >= found["mc50"] >= found["mc75"] >= found["mc100"]
    rising = sorted(path)
    assert pm.opd([rising])["cra"] == 0.0
    assert pm.opd([rising])["ppl"] == pytest.approx(
        rising[-1] if rising[-1] > 1e-9 else 0.0, rel=1e-6
    )
