"""How good a judge of progress is: published metrics, as pure functions of values and truth.

`value` `(T,)` is what a model says of the T frames of an episode, `truth` `(T,)` the true
progress. A correlation with something constant is 0: what does not vary orders nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodied.statistics import ranks

Floats = Sequence[float] | np.ndarray
HOPS = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Edges of the bins of hop sizes: a hop is in (HOPS[k], HOPS[k + 1]]."""
STALL = 0.005
"""Steps of less progress than this are stalled (STR)."""


def pearson(x: Floats, y: Floats) -> float:
    """Linear correlation, in [-1, 1]."""
    a, b = (np.asarray(v, np.float64) for v in (x, y))
    if len(a) < 2 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation: Pearson's of the ranks."""
    return pearson(ranks(np.asarray(x)), ranks(np.asarray(y)))


def kendall_tau(x: Floats, y: Floats) -> float:
    """Kendall's tau-b: (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)."""
    a, b = (_signs(np.asarray(v, np.float64)) for v in (x, y))
    untied = np.sqrt(float(np.count_nonzero(a)) * np.count_nonzero(b))
    return float((a * b).sum() / untied) if untied else 0.0


def _signs(x: np.ndarray) -> np.ndarray:
    """The sign of x_j - x_i of all pairs i < j."""
    i, j = np.triu_indices(len(x), 1)
    return np.sign(x[j] - x[i])


# --- the order of an episode's frames


def voc(value: Floats) -> float:
    """Value-order correlation (GVL, arXiv 2411.04549): Spearman of value and time."""
    return spearman(value, np.arange(len(value)))


def vroc(value_of_reversed: Floats) -> float:
    """Of the *reversed* video (VLAC, arXiv 2509.15937): -Spearman of value and time, so that 1
    means that it falls all the way."""
    return -voc(value_of_reversed)


def voc_f1(value: Floats, value_of_reversed: Floats) -> float:
    """Harmonic mean of VOC and VROC (VLAC); 0 where one of them is not positive."""
    return harmonic(voc(value), vroc(value_of_reversed))


def harmonic(a: float, b: float) -> float:
    """The harmonic mean; 0 where one of them is not positive."""
    return 2 * a * b / (a + b) if min(a, b) > 0.0 else 0.0


def negative_rate(value: Floats) -> float:
    """NR (VLAC): the share of steps at which the value falls."""
    steps = np.diff(np.asarray(value, np.float64))
    return float((steps < 0).mean()) if len(steps) else 0.0


def retry_voc(value: Floats, truth: Floats) -> float:
    """On episodes that lose progress and regain it: Spearman of value and *true* progress.

    Retry-VOC of arXiv 2606.24742; on such an episode a clock scores low.
    """
    return spearman(value, truth)


def hesitation_rmse(value: Floats, truth: Floats) -> float:
    """On episodes that pause: root mean square of value - true progress (arXiv 2606.24742)."""
    error = np.asarray(value, np.float64) - np.asarray(truth, np.float64)
    return float(np.sqrt((error**2).mean()))


def mae(value: Floats, truth: Floats) -> float:
    """Mean absolute difference from the true progress."""
    return float(np.abs(np.asarray(value, np.float64) - np.asarray(truth, np.float64)).mean())


def ranking_accuracy(value: Floats, truth: Floats) -> float:
    """Share of pairs of different truth that the value puts in the right order.

    Equal values count half. NaN where all truths are equal.
    """
    told, true = (_signs(np.asarray(v, np.float64)) for v in (value, truth))
    return _agreement(told[true != 0], true[true != 0])


def pair_accuracy_by_hop(
    value: Floats, truth: Floats, edges: Floats = HOPS
) -> tuple[np.ndarray, np.ndarray]:
    """`ranking_accuracy` of pairs by how far apart in true progress they are.

    The micro-resolution of arXiv 2603.21669. Returns accuracies (NaN for no pairs) and numbers of
    pairs, both `(len(edges) - 1,)`; bin k holds the hops in (edges[k], edges[k + 1]].
    """
    v, p = (np.asarray(x, np.float64) for x in (value, truth))
    i, j = np.triu_indices(len(v), 1)
    hop = p[j] - p[i]
    told, size = np.sign(v[j] - v[i]), np.abs(hop)
    accuracy, count = [], []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        mine = (size > low) & (size <= high)
        accuracy.append(_agreement(told[mine], np.sign(hop[mine])))
        count.append(int(mine.sum()))
    return np.array(accuracy), np.array(count)


def _agreement(told: np.ndarray, true: np.ndarray) -> float:
    """How often two signs agree; a tie on our side counts half."""
    return float((0.5 + 0.5 * told * true).mean()) if len(true) else float("nan")


# --- success from failure


def auroc(score: Floats, label: Sequence[bool] | np.ndarray) -> float:
    """P(score of a success > score of a failure) + P(equal) / 2; NaN if a class is missing."""
    y = np.asarray(label, bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    if not positives or not negatives:
        return float("nan")
    above = ranks(np.asarray(score))[y].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def auprc(score: Floats, label: Sequence[bool] | np.ndarray) -> float:
    """Average precision: sum over thresholds of (recall - recall before) * precision.

    Equal scores pass a threshold together. NaN if there is no success.
    """
    x, y = np.asarray(score, np.float64), np.asarray(label, bool)
    if not y.any():
        return float("nan")
    order = np.argsort(-x, kind="stable")
    x, hits = x[order], np.cumsum(y[order])
    ends = np.flatnonzero(np.append(x[1:] != x[:-1], True))  # the last of each run of equals
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


# --- OPD: how an episode went, as its judge tells it (PRM-as-a-Judge, arXiv 2603.21669)


def opd(paths: Sequence[Floats], success: Sequence[np.ndarray] | None = None) -> dict[str, float]:
    """Means over episodes of the OPD metrics of progress paths p_1..p_T (each `(T,)`), p_0 = 0.

    mc25 .. mc100: share of episodes with max p >= .25 .. 1 (mc100 is success as the *judge* sees
    it); mp: max p; ppl: `path_length_weighted`; cra: `regret`; str: share of steps with
    |dp| < .005. Unlike the paper we clamp p to [0, 1] first (else ppl may be negative), and with
    `success` `(T,)` bool of each episode we cut it after its first success, so that the idle tail
    does not count as stalled. Raises `ValueError` for no paths.
    """
    if not paths:
        raise ValueError("no paths")
    cut = [
        np.clip(until_success(path, None if success is None else success[i]), 0.0, 1.0)
        for i, path in enumerate(paths)
    ]
    peak = np.array([path.max() for path in cut])
    out = {f"mc{level}": float((peak >= level / 100).mean()) for level in (25, 50, 75, 100)}
    return out | {
        "mp": float(peak.mean()),
        "ppl": float(np.mean([path_length_weighted(path) for path in cut])),
        "cra": float(np.mean([regret(path) for path in cut])),
        "str": float(np.mean([stalled(path) for path in cut])),
    }


def until_success(path: Floats, success: np.ndarray | None) -> np.ndarray:
    """The path up to and with its first success (all of it where there is none)."""
    path = np.asarray(path, np.float64)
    if success is None or not np.any(success):
        return path
    return path[: int(np.argmax(success)) + 1]


def path_length_weighted(path: Floats) -> float:
    """PPL: p_T * p_T / sum |dp|, in [0, 1]; 0 for a path that never moves."""
    p = np.asarray(path, np.float64)
    length = float(np.abs(np.diff(p, prepend=0.0)).sum())
    return float(p[-1] ** 2 / length) if length > 1e-9 else 0.0


def regret(path: Floats) -> float:
    """CRA: the mean of how far p is below the highest it has been."""
    p = np.asarray(path, np.float64)
    return float((np.maximum.accumulate(np.maximum(p, 0.0)) - p).mean())


def stalled(path: Floats) -> float:
    """STR: the share of the T steps p_0 = 0, p_1, .., p_T with |dp| < .005."""
    return float((np.abs(np.diff(np.asarray(path, np.float64), prepend=0.0)) < STALL).mean())
