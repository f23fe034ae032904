"""The page of an audit in a world of text: one HTML file, for light and dark screens."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from embodied.plots import gauge
from embodied.talk import Said
from embodied.talk_page import OWN, STYLE
from embodied.talk_page import turn_of as turn_row
from embodied.text_card import LENGTHS, Family, Judged, TextCard
from embodied.text_pairs import Play
from embodied.types import Array

MOST_SHOWN = 900
"""Characters of a text that are shown."""
WORDS = {
    "injection": ("as it was", "with a text planted"),
    "repetition": ("once", "repeated"),
    "rest": ("one", "the same"),
}
"""What the two of a pair are called where neither is worse."""


def render(card: TextCard, record: Mapping[str, Any]) -> str:
    """The page of `card`. `record` names model, kind, env, date and hash."""
    title = f"{record['model']} on {record['env']}: {card.gate}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {escape(title)}</title>
<style>{STYLE.read_text()}{OWN}</style></head>
<body><main>
{_verdict(card, record)}
{_tiles(card)}
{_table(card)}
{_examples(card, record)}
{_footer(record)}
</main></body></html>
"""


def _verdict(card: TextCard, record: Mapping[str, Any]) -> str:
    deciding = [one for one in card.families if one.check.gates and one.value is not None]
    if card.failed:
        plural = "s" * (len(card.failed) == 1)
        lead = f"Do not train on this reward: {len(card.failed)} of {len(deciding)} deciding "
        lead += f"families fail{plural}."
    else:
        lead = f"All {len(deciding)} deciding families pass."
    said = [one for one in card.families if one.passed is False]
    items = "".join(f"<li>{escape(_sentence(one.sentence))}</li>" for one in said)
    return (
        f'<header class="verdict {card.gate}" id="verdict"><h1>{card.gate.title()}</h1>'
        f'<p class="lead">{escape(lead)}</p><ul>{items}</ul>'
        f'<p class="soft">Reward model <b>{escape(str(record["model"]))}</b> on '
        f"<b>{escape(str(record['env']))}</b>, pairs of {record['episodes']} tasks, "
        f"{escape(str(record['date'])[:10])}</p></header>"
    )


def _tiles(card: TextCard) -> str:
    """The numbers that decide."""
    tiles = []
    for one in card.families:
        if one.check.gates and one.value is not None:
            state = "passed" if one.passed else "failed"
            share = one.accuracy if one.check.sense == ">=" else 1.0 - one.accuracy
            tiles.append(
                f'<div class="tile {state}" title="{escape(one.check.means)}">'
                f'<div class="name">{escape(one.check.title)}</div>'
                f'<div class="number">{_found(one)} <span class="want">{_want(one)}</span></div>'
                f"{gauge(one.check, share)}</div>"
            )
    return (
        '<h2>What decides</h2><p class="soft">The tick is the limit.</p>'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


def _table(card: TextCard) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("pairs", "right", *LENGTHS, "found", "wanted"))
    rows = []
    for one in card.families:
        if one.value is None:
            continue
        shares = [one.accuracy, *card.by_length(one).values()]
        cells = "".join(f"<td>{'–' if x is None else f'{x:.0%}'}</td>" for x in shares)
        rows.append(
            f"<tr><td>{escape(one.check.name)}</td>"
            f'<td class="text wide soft">{escape(one.check.means)}</td><td>{len(one.judged)}</td>'
            f"{cells}<td>{_found(one)}</td><td>{_want(one)}</td><td>{_pill(one)}</td></tr>"
        )
    left_out = [one.check.name for one in card.families if one.value is None]
    more = f" Does not apply here: {', '.join(left_out)}." if left_out else ""
    low, high = card.edges
    return (
        "<h2>Every family</h2>"
        '<p class="soft">Right: the share of pairs judged right, of all and by how many actions '
        f"solve the task (short: up to {low:g}, long: more than {high:g}).{escape(more)}</p>"
        '<div class="sheet"><table><tr><th>family</th><th class="text">what is counted</th>'
        f"{head}<th></th></tr>{''.join(rows)}</table></div>"
    )


def _examples(card: TextCard, record: Mapping[str, Any]) -> str:
    """Of every family that fails the first pair that is wrong, turn by turn."""
    wrong = [one for one in card.families if one.passed is False]
    parts = [_example(card, one, one.wrong[0], str(record["model"])) for one in wrong]
    if not parts:
        return ""
    return (
        "<h2>What fails, and what it looks like</h2>"
        '<p class="soft">Of every failed family one pair. Beside each turn: what it was paid (of a '
        "model that values states: the value after it), and how much of the task was done.</p>"
        f"{''.join(parts)}"
    )


def _example(card: TextCard, family: Family, one: Judged, model: str) -> str:
    most = max((float(abs(row).max()) for row in one.paid if len(row)), default=0.0) or 1.0
    words = WORDS.get(one.pair.family, ("the better", "the worse"))
    good, bad = (
        _episode(card, play, row, total, word, model, most)
        for play, row, total, word in (
            (one.pair.better, one.paid[0], one.totals[0], words[0]),
            (one.pair.worse, one.paid[1], one.totals[1], words[1]),
        )
    )
    note = f"; {one.note}" if one.note else ""
    return (
        f'<section class="pair" id="{escape(family.check.name)}"><p class="after">{_pill(family)} '
        f"<b>{escape(_sentence(family.sentence))}</b> "
        f'<span class="soft">{escape(family.check.name)}, {escape(one.pair.name)}, task '
        f"{one.pair.better.task}{escape(note)}</span></p>{good}{bad}</section>"
    )


def _episode(
    card: TextCard, play: Play, paid: Array, total: float, word: str, model: str, most: float
) -> str:
    traj = card.played.shown([play], [0])
    turns = []
    for t in range(traj.shape[0]):
        read = {name: value[t, 0] for name, value in traj.readouts.items()}
        seen, said = _clipped(str(traj.obs["text"][t, 0])), _clipped(str(traj.action[t, 0]))
        done = float(read["world.progress"])
        turn = Said(seen, said, bool(read["world.valid"]), done, {model: float(paid[t])})
        turns.append(turn_row(turn, most))
    last = escape(_clipped(str(traj.final_obs["text"][0])))
    won = bool(traj.readouts["success"][-1, 0])
    state, tone = ("success", "good") if won else ("no success", "bad")
    return (
        f'<details class="talk sheet" open><summary>{word}: <b class="{tone}">{state}</b> '
        f'<span class="soft">{len(turns)} turns, {total:+.2f} in all</span></summary>'
        f'{"".join(turns)}<div class="turn"><pre>{last}</pre></div></details>'
    )


def _footer(record: Mapping[str, Any]) -> str:
    judged = "{turns_asked} turns asked about, {turns_abstained} abstained from, "
    judged = (judged + "{turns_failed} failed").format(**record)
    return (
        f"<footer>Model <code>{escape(str(record['fingerprint']))}</code> of kind "
        f"{escape(str(record['kind']))}, {judged}, {escape(str(record['date']))}. The "
        "episodes were played in the world itself; none is taken from a policy. The verdict holds "
        "for this model as it is and this env.</footer>"
    )


def _pill(one: Family) -> str:
    if one.passed:
        return '<span class="pill good">pass</span>'
    kind, word = ("bad", "fails") if one.check.gates else ("warning", "warning")
    return f'<span class="pill {kind}">{word}</span>'


def _found(one: Family) -> str:
    counted = one.check.sense == "<="
    return f"{len(one.wrong)} of {len(one.judged)}" if counted else f"{one.accuracy:.2f}"


def _want(one: Family) -> str:
    return f"{'≤' if one.check.sense == '<=' else '≥'} {one.check.limit:g}"


def _clipped(text: str) -> str:
    if len(text) <= MOST_SHOWN:
        return text
    half = MOST_SHOWN // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters more]\n{text[-half:]}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
