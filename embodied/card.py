"""The card of a judge of progress: how well it tells, what it falls for, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied import progress_metrics as pm
from embodied.checks import CHECK, CHECKS, Clip, Finding
from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.probes import Bench, run_probes
from embodied.reward_model import Needs, RewardModel

EXPERTS = ("expert", "varied")
CHANCE = ("random", "idle")
SHORTEST = 4
"""Frames; a shorter episode is left out."""
THRESHOLD = 0.9
"""From where on a model says success, where its configuration does not say."""


@dataclass
class Card:
    """What an audit found. Rates and values are in [0, 1]."""

    findings: list[Finding]
    sources: list[dict[str, Any]]
    """A row of figures for each source, successes first."""
    metrics: dict[str, Any]
    clips: list[Clip]
    threshold: float
    rollouts: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[Finding]:
        """What decides against it."""
        return [f for f in self.findings if f.check.gates and f.passed is False]

    @property
    def warnings(self) -> list[Finding]:
        return [f for f in self.findings if not f.check.gates and f.passed is False]

    @property
    def gate(self) -> str:
        return "failed" if self.failed else "passed"

    @property
    def verdict(self) -> str:
        """One sentence: what it comes to, and the reason."""
        if not self.failed:
            return f"no check that decides fails; {self.weakness}"
        return "; ".join(finding.sentence for finding in self.failed)

    @property
    def weakness(self) -> str:
        """In words, the flaw that it falls for most."""
        finding = next(f for f in self.findings if f.check.name == "flaw_accepted")
        return finding.says

    def to_dict(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "verdict": self.verdict,
            "weakness": self.weakness,
            "threshold": self.threshold,
            "checks": [finding.to_dict() for finding in self.findings],
            "sources": self.sources,
            "metrics": self.metrics,
            "rollouts": self.rollouts,
        }


def measure(
    model: RewardModel,
    dataset: Dataset,
    others: Sequence[Dataset] = (),
    rollouts: Dataset | None = None,
    threshold: float | None = None,
    every: int = 1,
) -> Card:
    """Audit a model of kind potential or success on episodes of its task, good and bad.

    `others` are episodes of other tasks, `rollouts` those of a policy trained on this reward.
    `threshold` is the value from which on the model says success. Raises `UserError` where the
    model or the episodes do not allow a verdict.
    """
    low, high = model.value_range
    if model.kind not in ("potential", "success") or not np.isfinite([low, high]).all():
        raise UserError(
            f"the audit judges models of kind potential or success, this one is {model.kind!r}"
        )
    width = high - low
    limit = THRESHOLD if threshold is None else (threshold - low) / width

    def ask(episodes: Sequence[Episode]) -> list[Clip]:
        return [
            Clip(e, np.nan_to_num((j.value - low) / width, nan=0.0, posinf=0.0), j.status)
            for e, j in zip(episodes, judge(model, episodes, every), strict=True)
        ]

    usable = [e for e in dataset.episodes if len(e) >= SHORTEST]
    if every >= min(map(len, usable), default=1):
        every = 1  # asked at the end alone, it is asked here as if each frame were the end
    clips = ask(usable) if usable else []
    bench = _bench(clips, ask, limit, others, model.needs)
    metrics = _accuracy(bench, clips)
    told = _told(bench, clips, metrics["auroc"])
    probed = run_probes(bench)
    backwards = next(f.value for f in probed if f.check.name == "reversed")
    assert backwards is not None
    metrics["vroc"] = -backwards
    metrics["voc_f1"] = pm.harmonic(metrics["voc"], metrics["vroc"])
    findings = [*told, *probed]
    seen: dict[str, Any] = {}
    if rollouts is not None:
        seen, gap = _policy(ask([e for e in rollouts.episodes if len(e) >= SHORTEST]), limit)
        findings.append(gap)
    else:
        findings.append(Finding(CHECK["policy_gap"], None, "no rollouts of a policy (rollouts=)"))
    names = [check.name for check in CHECKS]
    findings.sort(key=lambda finding: names.index(finding.check.name))
    return Card(findings, _sources(clips, limit), metrics, clips, limit, seen)


def kind(clip: Clip) -> str:
    """What an episode is an example of: "expert", "success", "failure" or "chance"."""
    episode = clip.episode
    if episode.source.partition(":")[0] in CHANCE:
        return "chance"
    if not episode.success[-1]:
        return "failure"
    return "expert" if episode.source in EXPERTS else "success"


def accepted(clip: Clip, threshold: float) -> bool:
    """Whether a failed episode is called a success: at any frame, if it never was one, else (it
    was undone) at the last."""
    called = clip.value >= threshold
    return bool(called[-1] if clip.episode.succeeded else called.any())


def _bench(
    clips: list[Clip], ask: Any, threshold: float, others: Sequence[Dataset], needs: Needs
) -> Bench:
    by_kind: dict[str, list[Clip]] = {}
    for clip in clips:
        by_kind.setdefault(kind(clip), []).append(clip)
    experts = by_kind.get("expert") or by_kind.get("success", [])
    failures = by_kind.get("failure", [])
    if not experts or not failures:
        want = "failed" if experts else "successful"
        raise UserError(
            f"no {want} episode among {len(clips)}: an audit needs successes of the expert and "
            "its flaws: embodied collect ... sources=[expert*12,expert:near_miss*12,random*6]"
        )
    chance, cameras = by_kind.get("chance", []), tuple(needs.cameras)
    return Bench(ask, threshold, experts, failures, chance, others, cameras, needs.stride > 0)


def _accuracy(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """Figures of how well the values agree with time on successes, and with the truth."""
    experts = bench.experts
    told = [clip for clip in clips if kind(clip) != "chance"]
    final, success = [c.value[-1] for c in told], np.array([kind(c) != "failure" for c in told])
    known = [clip for clip in clips if np.isfinite(clip.episode.progress).all()]
    out: dict[str, Any] = {
        "voc": _average([pm.voc(c.value) for c in experts]),
        "negative_rate": _average([pm.negative_rate(c.value) for c in experts]),
        "auroc": pm.auroc(final, success),
        "auprc": pm.auprc(final, success),
        "abstained": _average([c.abstained for c in clips]),
        "opd": pm.opd([c.value for c in experts], [c.episode.success for c in experts]),
    }
    if known:
        pairs = [(clip.value, clip.episode.progress) for clip in known]
        hops = [pm.pair_accuracy_by_hop(v, p) for v, p in pairs]
        count = np.sum([n for _, n in hops], axis=0)
        right = np.sum([np.nan_to_num(a) * n for a, n in hops], axis=0)
        out |= {
            "truth_spearman": _average([pm.spearman(v, p) for v, p in pairs]),
            "truth_pearson": _average([pm.pearson(v, p) for v, p in pairs]),
            "kendall_tau": _average([pm.kendall_tau(v, p) for v, p in pairs]),
            "ranking_accuracy": _average([pm.ranking_accuracy(v, p) for v, p in pairs]),
            "mae": _average([pm.mae(v, p) for v, p in pairs]),
            "hop_edges": list(pm.HOPS),
            "hop_accuracy": (right / np.maximum(count, 1)).tolist(),
            "hop_pairs": count.tolist(),
        }
    return out


def _told(bench: Bench, clips: list[Clip], auroc: float) -> list[Finding]:
    """The checks that need no altered episode."""
    order = [pm.voc(c.value) for c in bench.experts]
    worst = [bench.experts[i] for i in np.argsort(order)[:2]]
    failures = sorted(bench.failures, key=lambda c: -c.value[-1])
    against = f"{len(failures)} failures against the successes"
    return [
        Finding(CHECK["expert_voc"], float(np.mean(order)), f"{len(order)} episodes", worst),
        Finding(CHECK["success_auroc"], auroc, against, failures[:2]),
        _worst_flaw(failures, bench.threshold),
        _against_truth("retry_voc", "retries", clips, pm.retry_voc, -1),
        _against_truth("hesitation_rmse", "hesitates", clips, pm.hesitation_rmse, 1),
    ]


def _worst_flaw(failures: list[Clip], threshold: float) -> Finding:
    by_source = _by_source(failures)
    taken = {
        source: [clip for clip in theirs if accepted(clip, threshold)]
        for source, theirs in by_source.items()
    }
    rates = {source: len(taken[source]) / len(theirs) for source, theirs in by_source.items()}
    order = sorted(rates, key=lambda source: (-rates[source], source))
    parts = [
        f"{rates[source]:.0%} of {flaw(source)} episodes ({len(taken[source])} of {len(theirs)})"
        for source in order
        if taken[source] and (theirs := by_source[source])
    ]
    says = f"it accepts {', '.join(parts)}"
    if not parts:
        says = f"it accepts no episode of {', '.join(map(flaw, order))}"
    worst = order[0]
    examples = sorted(taken[worst], key=lambda clip: -clip.value.max())[:2]
    return Finding(CHECK["flaw_accepted"], rates[worst], f"worst: {flaw(worst)}", examples, says)


def _by_source(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    out: dict[str, list[Clip]] = {}
    for clip in clips:
        out.setdefault(clip.episode.source, []).append(clip)
    return out


def flaw(source: str) -> str:
    """The name of a source in a sentence: "near_miss" for "expert:near_miss"."""
    return source.removeprefix("expert:")


def _against_truth(name: str, wanted: str, clips: list[Clip], figure: Any, sign: int) -> Finding:
    theirs = [
        c for c in clips
        if flaw(c.episode.source) == wanted and np.isfinite(c.episode.progress).all()
    ]  # fmt: skip
    if not theirs:
        return Finding(CHECK[name], None, f"no episodes of expert:{wanted} with true progress")
    each = [figure(clip.value, clip.episode.progress) for clip in theirs]
    worst = sorted(range(len(theirs)), key=lambda i: -sign * each[i])[:2]
    count = f"{len(theirs)} episodes"
    return Finding(CHECK[name], float(np.mean(each)), count, [theirs[i] for i in worst])


def _sources(clips: list[Clip], threshold: float) -> list[dict[str, Any]]:
    """A row of figures for each source."""
    order = ("expert", "success", "failure", "chance")
    clips = sorted(clips, key=lambda c: (order.index(kind(c)), c.episode.source))
    rows = []
    for source, theirs in _by_source(clips).items():
        called = [clip.value >= threshold for clip in theirs]
        known = [c for c in theirs if np.isfinite(c.episode.progress).all()]
        pairs = [(c.value, c.episode.progress) for c in known]
        rows.append(
            {
                "source": source,
                "episodes": len(theirs),
                "true_success": _average([float(c.episode.success[-1]) for c in theirs]),
                "accepted_at_end": _average([float(a[-1]) for a in called]),
                "accepted_ever": _average([float(a.any()) for a in called]),
                "final_value": _average([float(c.value[-1]) for c in theirs]),
                "voc": _average([pm.voc(c.value) for c in theirs]),
                "truth_spearman": _average([pm.spearman(v, p) for v, p in pairs]),
                "rmse": _average([pm.hesitation_rmse(v, p) for v, p in pairs]),
                "negative_rate": _average([pm.negative_rate(c.value) for c in theirs]),
            }
        )
    return rows


def _policy(clips: list[Clip], threshold: float) -> tuple[dict[str, Any], Finding]:
    """Judged against true success of the policy that was trained on this reward."""
    if not clips:
        raise UserError("rollouts: no episode of 4 frames or more")
    success = np.array([c.episode.succeeded for c in clips])
    judged = np.array([bool((c.value >= threshold).any()) for c in clips])
    gap = float(judged.mean() - success.mean())
    fooled = sorted(
        (c for c, a, b in zip(clips, judged, success, strict=True) if a and not b),
        key=lambda c: -c.value.max(),
    )
    row = {
        "episodes": len(clips),
        "judged_success": float(judged.mean()),
        "true_success": float(success.mean()),
        "gap": gap,
        "auroc": pm.auroc([c.value[-1] for c in clips], [c.episode.success[-1] for c in clips]),
    }
    return row, Finding(CHECK["policy_gap"], gap, f"{len(clips)} episodes", fooled[:2])


def _average(values: Sequence[float]) -> float:
    """Their mean without those that are undefined; NaN for none."""
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else math.nan
