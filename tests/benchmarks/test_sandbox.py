"""Hostile programs are kept in, and would be seen if they were not."""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import Any

import pytest

from benchmarks.attacks import ATTACKS, EFFECTS, FAMILIES, Attack
from benchmarks.attacks_run import attempts
from benchmarks.sandbox import by_attack, corpus_figures
from embodied.jail import landlock_version

needs_landlock = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: no code is run"
)
CHOSEN = [a for k, a in enumerate(ATTACKS) if k % 5 == 0 or a.family == "forging"]
"""The benchmark runs all of them."""
SEEN = list({a.effect: a for a in reversed(ATTACKS) if a.effect not in ("", "namespace")}.values())
"""The first of each effect; to make namespaces is forbidden on some machines."""


@pytest.fixture(scope="module")
def kept_in() -> dict[str, dict[str, Any]]:
    return attempts(names=[a.name for a in CHOSEN])


@pytest.fixture(scope="module")
def set_free() -> dict[str, dict[str, Any]]:
    return attempts("--plain", names=[a.name for a in SEEN])


def test_the_corpus() -> None:
    names = Counter(a.name for a in ATTACKS)
    assert len(names) >= 120 and max(names.values()) == 1
    assert {a.family for a in ATTACKS} == set(FAMILIES)
    assert {a.effect for a in ATTACKS} - {""} == set(EFFECTS)
    assert all(a.verdicts for a in ATTACKS)


@needs_landlock
@pytest.mark.parametrize("attack", CHOSEN, ids=lambda a: a.name)
def test_it_is_kept_in(kept_in: dict[str, dict[str, Any]], attack: Attack) -> None:
    row = kept_in[attack.name]
    assert row["effects"] == []
    assert row["verdict"] in attack.verdicts, row


@pytest.mark.parametrize("attack", SEEN, ids=lambda a: a.effect)
def test_it_would_be_seen(set_free: dict[str, dict[str, Any]], attack: Attack) -> None:
    assert attack.effect in set_free[attack.name]["effects"], set_free[attack.name]


def test_what_does_nothing_has_no_effect() -> None:
    harmless = {"no_terms", "too_long", "unknown_readout", "counter"}
    for row in attempts("--plain", names=sorted(harmless)).values():
        assert row["effects"] == []


@needs_landlock
def test_one_layer_alone_lets_something_out() -> None:
    let_out = {"limits": "open", "landlock": "udp", "seccomp": "own_map"}
    for layer, name in let_out.items():
        assert attempts("--layers", layer, names=[name])[name]["effects"]


def test_figures_by_hand() -> None:
    fine = {a.name: {"verdict": min(a.verdicts), "effects": [], "text": ""} for a in ATTACKS}
    wrong = {**fine, ATTACKS[0].name: {"verdict": "fine", "effects": ["secret"], "text": "x"}}
    brought = {a.name: {"verdict": "fine", "effects": [a.effect]} for a in ATTACKS}
    told = {"root all": wrong, "root plain": brought, "user all": fine, "user plain": fine}
    figures = corpus_figures(told)
    assert figures["attacks"] == len(ATTACKS)
    assert (figures["outside_effects"], figures["unexpected_verdicts"]) == (1, 1)
    assert figures["effects_under_plain_exec"] == 0.0
    assert corpus_figures({k: told[k] for k in list(told)[:2]})["effects_under_plain_exec"] == 1.0
    row = by_attack(told)[ATTACKS[0].name]
    assert row["verdicts"] == {"root all": "fine", "user all": min(ATTACKS[0].verdicts)}
    assert row["unexpected root all"] == "x"
