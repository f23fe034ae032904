"""A page of talks: every turn with what it was paid beside it; one HTML file, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embodied.talk import Said, Talk

STYLE = Path(__file__).with_name("report.css")
OWN = """
.talk { margin-top: 22px; }
.talk > summary { cursor: pointer; font-size: 16px; padding: 4px 0; }
.turn { display: grid; grid-template-columns: minmax(0, 1fr) 280px; gap: 18px; padding: 12px 0;
  border-top: 1px solid var(--line); }
.turn pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.turn .said { color: var(--value); font-weight: 650; margin-top: 8px; }
.turn .said.invalid { color: var(--bad); }
.paid { display: grid; grid-template-columns: 1fr 84px 52px; gap: 3px 8px; font-size: 12.5px;
  align-items: center; align-content: start; }
.paid .n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { position: relative; height: 9px; background: var(--line); border-radius: 4px; }
.bar i { position: absolute; top: 0; bottom: 0; border-radius: 4px; background: var(--good); }
.bar i.minus { background: var(--bad); }
.bar i.share { background: var(--value); }
@media (max-width: 640px) { .turn { grid-template-columns: 1fr; } }
"""


def render(env: str, who: str, told: Sequence[Talk]) -> str:
    """The page of some talks in `env`; bars are as long as the most that any turn was paid."""
    won = sum(talk.success for talk in told)
    most = max((abs(v) for talk in told for t in talk.turns for v in t.paid.values()), default=0.0)
    title = f"{env}, {who}"
    shown = "\n".join(_talk(talk, most or 1.0, k == 0) for k, talk in enumerate(told))
    state = "passed" if told and 2 * won >= len(told) else "failed"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Talks: {escape(title)}</title>
<style>{STYLE.read_text()}{OWN}</style></head>
<body><main>
<header class="verdict {state}"><h1>{won} of {len(told)}</h1>
<p class="lead">episodes succeeded</p>
<p class="soft">{escape(title)}. Beside each turn: what it was paid, by reward model; what these
found after it (a belief, a progress, a credit); and how much of the task was done.</p></header>
{shown}
</main></body></html>
"""


def _talk(talk: Talk, most: float, opened: bool) -> str:
    word, tone = ("success", "good") if talk.success else ("no success", "bad")
    turns = "".join(turn_of(turn, most) for turn in talk.turns)
    end = f'<div class="turn"><pre>{escape(talk.last)}</pre></div>' if talk.last else ""
    return (
        f'<details class="talk sheet"{" open" * opened}><summary><b class="{tone}">{word}</b> '
        f'<span class="soft">task {talk.task}, {len(talk.turns)} turns, {talk.total:+.2f} in all'
        f"</span></summary>{turns}{end}</details>"
    )


def turn_of(turn: Said, most: float) -> str:
    """A turn with what it was paid beside it; bars are as long as `most`."""
    kind = "said" if turn.valid else "said invalid"
    said = escape(turn.said) or "(nothing)"
    rows = "".join(_row(name, value, most) for name, value in turn.paid.items())
    told = {name.partition("/")[2]: value for name, value in turn.told.items()}
    share = "".join(_share(name, value) for name, value in [*told.items(), ("done", turn.progress)])
    return (
        f'<div class="turn"><div><pre>{escape(turn.seen)}</pre>'
        f'<pre class="{kind}">&gt; {said}</pre></div><div class="paid">{rows}{share}</div></div>'
    )


def _share(name: str, value: float) -> str:
    """A belief, a progress, ...: from 0 to 1."""
    part = min(1.0, max(0.0, value))
    return (
        f'<span class="soft">{escape(name)}</span><span class="bar"><i class="share" '
        f'style="left:0;width:{part:.0%}"></i></span><span class="n">{value:.0%}</span>'
    )


def _row(name: str, value: float, most: float) -> str:
    share = min(1.0, abs(value) / most)
    sign = ' class="minus"' if value < 0 else ""
    return (
        f'<span>{escape(name)}</span><span class="bar"><i{sign} style="left:0;width:{share:.0%}">'
        f'</i></span><span class="n">{value:+.2f}</span>'
    )
