"""The page of an audit: one HTML file that needs nothing else, for light and dark screens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from embodied.card import Card, flaw, kind
from embodied.checks import Clip, Finding
from embodied.plots import curve, gauge

STYLE = Path(__file__).with_name("report.css")
MARKS = (
    ("line", "value", "what the model says"),
    ("line", "truth", "true progress"),
    ("line", "limit", "from here on it says success"),
    ("band", "right", "says success, rightly"),
    ("band", "wrong", "says success, wrongly"),
    ("band", "silent", "abstains"),
)
KEY = "".join(
    f'<span><svg class="plot mark" viewBox="0 0 28 8"><{shape} class="{name}"/></svg>{text}</span>'
    for shape, name, text in (
        ("line x1='0' x2='28' y1='4' y2='4'" if form == "line" else
         "rect width='28' height='8' rx='3'", name, text)
        for form, name, text in MARKS
    )
)  # fmt: skip
KEY = f'<p class="key">{KEY}</p>'


def render(card: Card, record: Mapping[str, Any], cameras: Sequence[str] = ()) -> str:
    """The page of `card`. `record` names model, env, dataset, date and hashes; film strips show
    the first of `cameras` that the episodes have, or any."""
    title = f"{record['model']} on {record['env']}: {card.gate}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {escape(title)}</title>
<style>{STYLE.read_text()}</style></head>
<body><main>
{_verdict(card, record)}
{_tiles(card)}
{_failures(card, cameras)}
{_episodes(card, cameras)}
{_sources(card)}
{_checks(card)}
{_figures(card)}
{_footer(card, record)}
</main></body></html>
"""


def _verdict(card: Card, record: Mapping[str, Any]) -> str:
    word = "Passed" if card.gate == "passed" else "Failed"
    deciding = [f for f in card.findings if f.check.gates and f.value is not None]
    if card.failed:
        lead = f"Do not train on this reward: {len(card.failed)} of {len(deciding)} deciding checks"
        lead += " fail." if len(card.failed) > 1 else " fails."
        reasons = [finding.sentence for finding in card.failed]
    else:
        lead = f"All {len(deciding)} deciding checks pass."
        reasons = []
    warned = len(card.warnings)
    reasons.append(card.weakness)
    items = "".join(f"<li>{escape(_sentence(text))}</li>" for text in reasons)
    more = f" {warned} warning{'s' * (warned != 1)}." if warned else ""
    return (
        f'<header class="verdict {card.gate}" id="verdict"><h1>{word}</h1>'
        f'<p class="lead">{escape(lead)}{more}</p><ul>{items}</ul>'
        f'<p class="soft">Reward model <b>{escape(str(record["model"]))}</b> on '
        f"<b>{escape(str(record['env']))}</b>, {len(card.clips)} episodes, "
        f"{escape(str(record['date'])[:10])}</p></header>"
    )


def _tiles(card: Card) -> str:
    """The numbers that decide."""
    tiles = []
    for finding in card.findings:
        if not finding.check.gates or finding.value is None:
            continue
        state = "passed" if finding.passed else "failed"
        tiles.append(
            f'<div class="tile {state}" title="{escape(finding.check.means)}">'
            f'<div class="name">{escape(finding.check.title)}</div>'
            f'<div class="number">{_number(finding.value)} '
            f'<span class="want">{_want(finding)}</span></div>'
            f"{gauge(finding.check, finding.value)}</div>"
        )
    return f'<h2>What decides</h2><p class="soft">The tick is the limit.</p>' \
           f'<div class="tiles">{"".join(tiles)}</div>'  # fmt: skip


def _failures(card: Card, cameras: Sequence[str]) -> str:
    """Every probe that failed, with an episode that shows it."""
    shown = [finding for finding in (*card.failed, *card.warnings) if finding.examples]
    if not shown:
        return ""
    figures = []
    for finding in shown:
        clip = finding.examples[0]
        pill = _pill(finding)
        figures.append(
            f"<figure><figcaption>{pill} <b>{escape(_sentence(finding.sentence))}</b><br>"
            f'<span class="soft">{escape(finding.check.title)}: {_number(finding.value)}, wanted '
            f"{_want(finding)}. Shown: {escape(_who(clip))}.</span></figcaption>"
            f"{curve(clip, card.threshold, _camera(clip, cameras))}</figure>"
        )
    return (
        "<h2>What fails, and what it looks like</h2>"
        f'{KEY}<div class="figures">{"".join(figures)}</div>'
    )


def _episodes(card: Card, cameras: Sequence[str]) -> str:
    """For each source the episode that speaks most against the model."""
    worst: dict[str, Clip] = {}
    for row in card.sources:
        theirs = [clip for clip in card.clips if clip.episode.source == row["source"]]
        good = kind(theirs[0]) in ("expert", "success")
        worst[row["source"]] = (min if good else max)(theirs, key=lambda clip: clip.value[-1])
    figures = [
        f"<figure><figcaption><b>{escape(source)}</b> "
        f'<span class="soft">{"succeeds" if clip.episode.success[-1] else "fails"}, '
        f"seed {clip.episode.seed}</span></figcaption>"
        f"{curve(clip, card.threshold, _camera(clip, cameras))}</figure>"
        for source, clip in worst.items()
    ]
    return (
        "<h2>How it judges</h2>"
        '<p class="soft">Of each source the episode that speaks most against the model: the '
        "success it values least, the failure it values most.</p>"
        f'{KEY}<div class="figures">{"".join(figures)}</div>'
    )


COLUMNS = (
    ("true_success", "true success", "{:.0%}"),
    ("accepted_at_end", "accepted at end", "{:.0%}"),
    ("accepted_ever", "accepted ever", "{:.0%}"),
    ("final_value", "final value", "{:.2f}"),
    ("voc", "VOC", "{:.2f}"),
    ("truth_spearman", "with truth", "{:.2f}"),
    ("rmse", "RMSE", "{:.2f}"),
    ("negative_rate", "falling steps", "{:.0%}"),
)


def _sources(card: Card) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("source", "episodes", *(c[1] for c in COLUMNS)))
    rows = []
    for row in card.sources:
        cells = [f"<td>{escape(row['source'])}</td><td>{row['episodes']}</td>"]
        for key, _, form in COLUMNS:
            wrong = key == "accepted_at_end" and row[key] > row["true_success"] + 0.1
            text = "–" if math.isnan(row[key]) else form.format(row[key]).replace("-", "−")
            cells.append(f'<td class="bad"><b>{text}</b></td>' if wrong else f"<td>{text}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<h2>By source</h2><p class="soft">VOC: rank correlation of value and time. With truth: '
        "of value and true progress.</p>"
        f'<div class="sheet"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def _checks(card: Card) -> str:
    rows: list[str] = []
    skipped: dict[str, list[str]] = {}
    for finding in card.findings:
        if finding.value is None:
            skipped.setdefault(finding.note, []).append(finding.check.title)
            continue
        rows.append(
            f"<tr><td>{escape(finding.check.title)}</td>"
            f'<td class="text wide soft">{escape(finding.check.means)}</td>'
            f"<td>{_number(finding.value)}</td><td>{_want(finding)}</td>"
            f'<td class="text soft">{escape(finding.note)}</td><td>{_pill(finding)}</td></tr>'
        )
    left_out = "".join(
        f"<li>{escape(_sentence(why))} {escape(', '.join(titles))}.</li>"
        for why, titles in skipped.items()
    )
    return (
        "<h2>Every check</h2>"
        '<p class="soft">A check that decides fails the model; the others warn. A spliced ending '
        "only warns: a judge that sees one state after another cannot know that one was not "
        "reached.</p>"
        '<div class="sheet"><table><tr><th>check</th><th class="text">what is measured</th>'
        '<th>found</th><th>wanted</th><th class="text">on</th><th></th></tr>'
        f"{''.join(rows)}</table></div>"
        f'<p class="soft after">What does not apply:</p><ul class="soft">{left_out}</ul>'
    )


NAMES = {
    "voc": "VOC on successes", "vroc": "VROC, reversed", "voc_f1": "VOC-F1",
    "negative_rate": "steps at which the value falls (NR)", "auroc": "success AUROC",
    "auprc": "success AUPRC", "abstained": "frames abstained from",
    "truth_spearman": "Spearman with true progress", "truth_pearson": "Pearson with true progress",
    "kendall_tau": "Kendall's tau-b with true progress",
    "ranking_accuracy": "pairs of frames ranked right", "mae": "MAE against true progress",
}  # fmt: skip


def _figures(card: Card) -> str:
    metrics = card.metrics
    rows = [(label, metrics[name]) for name, label in NAMES.items() if name in metrics]
    if "hop_edges" in metrics:
        edges = metrics["hop_edges"]
        for k, (right, pairs) in enumerate(
            zip(metrics["hop_accuracy"], metrics["hop_pairs"], strict=True)
        ):
            if pairs:
                rows.append((f"pairs {edges[k]:g} to {edges[k + 1]:g} apart ranked right", right))
    rows += [(f"OPD on successes: {name.upper()}", x) for name, x in metrics["opd"].items()]
    rows += [
        (f"its own policy: {name.replace('_', ' ')}", x)
        for name, x in card.rollouts.items() if name != "episodes"
    ]  # fmt: skip
    cells = [f'<td class="text">{escape(label)}</td><td>{_number(x)}</td>' for label, x in rows]
    half = (len(cells) + 1) // 2
    left, right = cells[:half], cells[half:] + ["<td></td><td></td>"]
    lines = [f"<tr>{a}{b}</tr>" for a, b in zip(left, right[:half], strict=True)]
    return f'<h2>Figures</h2><div class="sheet"><table>{"".join(lines)}</table></div>'


def _footer(card: Card, record: Mapping[str, Any]) -> str:
    data = record["dataset"]
    note = f" {record['note']}." if "note" in record else ""
    return (
        f"<footer>Success is a value of {card.threshold:.2f} or more.{escape(note)} "
        f"Model <code>{escape(str(record['fingerprint']))}</code>, dataset "
        f"<code>{escape(str(data['path']))}</code> (<code>{escape(str(data['fingerprint']))}"
        f"</code>), {escape(str(record['date']))}. The verdict holds for these weights and this "
        "env: a model that is fitted again must be audited again.</footer>"
    )


def _camera(clip: Clip, cameras: Sequence[str]) -> str | None:
    """The camera of a film strip."""
    images = clip.episode.images
    return next((name for name in (*cameras, *sorted(images)) if name in images), None)


def _who(clip: Clip) -> str:
    episode = clip.episode
    text = f", told “{episode.instruction}”" if episode.instruction else ""
    return f"{flaw(episode.source)}, seed {episode.seed}{text}"


def _pill(finding: Finding) -> str:
    if finding.passed:
        return '<span class="pill good">pass</span>'
    return (
        '<span class="pill bad">fails</span>' if finding.check.gates
        else '<span class="pill warning">warning</span>'
    )  # fmt: skip


def _want(finding: Finding) -> str:
    sense = "≤" if finding.check.sense == "<=" else "≥"
    return f"{sense} {finding.check.limit:g}".replace("-", "−")


def _number(x: float | None) -> str:
    if x is None or math.isnan(x):
        return "–"
    return f"{x + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
