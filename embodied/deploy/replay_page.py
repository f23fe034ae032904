"""The page of a replayed record: one HTML file that needs nothing else, light and dark."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np

from embodied.deploy.bag import Bag
from embodied.deploy.recorder import END
from embodied.deploy.replay_figures import Comparison, Figures, Spread, headline, remarks
from embodied.deploy.replay_plots import action_plot, joint_plot
from embodied.deploy.replay_record import Event, Record
from embodied.report import STYLE

OWN = """
.plot .measured, .plot .asked, .plot .clamped, .plot .sent, .plot .recorded, .plot .answered {
  fill: none; stroke-width: 1.5; stroke-linejoin: round; }
.plot .measured { stroke: var(--truth); stroke-width: 3.5; opacity: 0.55; }
.plot .asked { stroke: var(--warn); stroke-dasharray: 5 3; }
.plot .clamped, .plot .recorded { stroke: var(--value); stroke-width: 2; }
.plot .sent { stroke: var(--ink); stroke-dasharray: 1 3; stroke-linecap: round; }
.plot .answered { stroke: var(--bad); stroke-width: 3.5; opacity: 0.6; }
.plot .event { stroke: var(--soft); opacity: 0.6; }
.plot .event.bad { stroke: var(--bad); opacity: 1; stroke-width: 1.5; }
.plot .event.warning { stroke: var(--warn); opacity: 0.8; }
td.text.any { word-break: break-word; }
"""
MEANS = {
    "measured": "what the robot said",
    "asked": "what the policy asked for",
    "clamped": "what the guard made of it",
    "sent": "what the robot was told",
}
TICKS = (("bad", "the guard tripped"), ("warning", "it clamped or held"), ("soft", "else"))
MOST_EVENTS = 200
"""Of which a row is shown, by kind."""


def render(bag: Bag, record: Record, name: str, compared: Comparison, found: Figures) -> str:
    """The page of a record that was replayed with the policy `name`."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Replay of {escape(bag.path.name)}</title>
<style>{STYLE.read_text()}{OWN}</style></head>
<body><main>
{_verdict(bag, record, name, compared, found)}
{_difference(record, compared)}
{_components(compared)}
{_joints(record)}
{_times(found)}
{_events(record, found)}
{_footer(bag, record)}
</main></body></html>
"""


def _verdict(bag: Bag, record: Record, name: str, compared: Comparison, found: Figures) -> str:
    state = "passed" if compared.matches else "failed"
    word, _, lead = headline(compared).partition(": ")
    items = "".join(
        f"<li{_tone(line)}>{escape(line)}</li>"
        for line in remarks(bag, record, name, compared, found)
    )
    return (
        f'<header class="verdict {state}" id="verdict"><h1>{word.title()}</h1>'
        f'<p class="lead">{escape(lead[:1].upper() + lead[1:])}.</p><ul>{items}</ul>'
        f'<p class="soft">Record <b>{escape(str(bag.path))}</b>, policy <b>{escape(name)}</b></p>'
        "</header>"
    )


def _tone(line: str) -> str:
    return ' class="bad"' if line.startswith("BEYOND") else ""


def _difference(record: Record, compared: Comparison) -> str:
    """The component that differs most at the first step that differs."""
    if compared.first is None:
        return ""
    worst = int(compared.difference[compared.first].argmax())
    times = np.array([step.time_ns for step in compared.steps], np.int64)
    plot = action_plot(
        times, compared.recorded[:, worst], compared.answered[:, worst], record.span_ns,
        int(times[compared.first]), compared.names[worst],
    )  # fmt: skip
    marks = _marks({"recorded": "in the record", "answered": "what the policy answers now"})
    return (
        f"<h2>What differs first</h2>{marks}"
        f"<figure><figcaption><b>{escape(compared.names[worst])}</b> "
        f'<span class="soft">{escape(compared.units[worst])}</span></figcaption>{plot}</figure>'
    )


def _components(compared: Comparison) -> str:
    rows = []
    for j, name in enumerate(compared.names):
        share = float(compared.difference[:, j].max())
        most = compared.apart[:, j].max()
        tone = ' class="bad"' if share > compared.tolerance else ""
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{escape(compared.units[j])}</td>"
            f"<td>{(compared.difference[:, j] == 0.0).mean():.1%}</td>"
            f"<td>{most:.3g}</td><td{tone}>{share:.2g}</td></tr>"
        )
    return (
        "<h2>Every component of the action</h2>"
        f'<p class="soft">They match within {compared.tolerance:g} of the range.</p>'
        '<div class="sheet"><table><tr><th>component</th><th>unit</th><th>the same, bit for bit'
        "</th><th>largest difference</th><th>as a share of the range</th></tr>"
        f"{''.join(rows)}</table></div>"
    )


def _joints(record: Record) -> str:
    curves = {name: record.curves[name] for name in MEANS if name in record.curves}
    if not curves or not record.joints:
        return ""
    figures = []
    events = [event for event in record.events if event.kind != END]
    for j, joint in enumerate(record.joints):
        limits = None
        if record.robot is not None:
            limits = record.robot.joints[j].low, record.robot.joints[j].high
        span = "" if limits is None else f"may be {limits[0]:.3g} to {limits[1]:.3g}"
        figures.append(
            f"<figure><figcaption><b>{escape(joint)}</b> "
            f'<span class="soft">{span.replace("-", "−")}</span></figcaption>'
            f"{joint_plot(curves, j, record.span_ns, events, limits)}</figure>"
        )
    marks = _marks({name: MEANS[name] for name in curves}, ticks=True)
    return (
        '<h2>Joints over time</h2><p class="soft">In rad or m. Over a tick, the browser says what '
        f'happened.</p>{marks}<div class="figures">{"".join(figures)}</div>'
    )


def _marks(curves: dict[str, str], ticks: bool = False) -> str:
    lines = [(name, "x1='0' x2='28' y1='4' y2='4'", text) for name, text in curves.items()]
    if ticks:
        lines += [(f"event {tone}", "x1='14' x2='14' y1='0' y2='8'", text) for tone, text in TICKS]
    spans = "".join(
        f'<span><svg class="plot mark" viewBox="0 0 28 8"><line class="{name}" {place}/></svg>'
        f"{text}</span>"
        for name, place, text in lines
    )
    return f'<p class="key">{spans}</p>'


def _times(found: Figures) -> str:
    rows = [_row(name, "", spread) for name, spread in found.delays.items()]
    rows += [_row(f"pauses in {name}", "gaps", spread) for name, spread in found.gaps.items()]
    if not rows:
        return ""
    return (
        '<h2>Delays and gaps</h2><p class="soft">In ms. A gap is a pause of more than twice the '
        'usual one.</p><div class="sheet"><table><tr><th>what</th><th>times</th><th>p50</th>'
        f"<th>p99</th><th>most</th></tr>{''.join(rows)}</table></div>"
    )


def _row(name: str, kind: str, spread: Spread) -> str:
    cells = "".join(f"<td>{x:.2f}</td>" for x in (spread.p50, spread.p99, spread.longest))
    return f"<tr><td>{escape(name)}</td><td>{spread.count} {kind}</td>{cells}</tr>"


def _events(record: Record, found: Figures) -> str:
    if not found.events:
        return ""
    start = record.steps[0].time_ns
    first: dict[tuple[str, str], Event] = {}
    for event in record.events:
        first.setdefault((event.kind, event.what), event)
    rows = []
    for (kind, what), count in found.events.most_common(MOST_EVENTS):
        when = (first[kind, what].time_ns - start) * 1e-9
        rows.append(
            f'<tr><td>{escape(kind)}</td><td class="text any">{escape(what)}</td><td>{count}</td>'
            f"<td>{when:.2f} s</td></tr>".replace(">-", ">−")
        )
    return (
        '<h2>What happened</h2><div class="sheet"><table><tr><th>event</th><th class="text">what'
        f"</th><th>times</th><th>first after</th></tr>{''.join(rows)}</table></div>"
    )


def _footer(bag: Bag, record: Record) -> str:
    told: dict[str, Any] = {k: v for k, v in record.about.items() if k != "robot_map"}
    topics = ", ".join(f"{topic} ({count:,})" for topic, count in sorted(bag.counts.items()))
    text = json.dumps(told, ensure_ascii=False)[:2000]
    return (
        f"<footer><p>It says of itself: <code>{escape(text)}</code></p>"
        f"<p>Topics: {escape(topics[:4000])}</p></footer>"
    )
