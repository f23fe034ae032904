"""Tool calls held against the calls that solve a task, part by part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.reward_model import Needs
from embodied.types import ABSTAINED, SCORED, Array, Carry, Moment, Score, Trajectory

Call = dict[str, Any]
"""{"name": text, "arguments": {...}}"""


class ToolCall:
    """Graded tool calls (ToolRL, Qian et al. 2025, arXiv 2504.13958): R = R_format + R_correct.

    R_correct is in [-3, 3] (see `correctness`). The paper grades one reply against its calls; an
    episode here has one call a turn, so it is paid on the last turn, for all of its calls. With
    `per_turn` it is paid as it changes: r_t = R_correct(calls up to t) - R_correct(calls before),
    which adds up to the whole less the -3 of having made no call.

    R_format, on the last turn, is 1 if the world could carry out every action (`world.valid`), else
    0; with `format_share` it is the share of turns in which it could. So a call that is written
    well but refused counts as malformed, which in the paper it does not.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True
    needs = Needs(
        readouts=frozenset({"world.valid", "world.calls", "world.gold_calls"}),
        privileged=frozenset({"world.calls", "world.gold_calls"}),
    )

    def __init__(self, per_turn: bool = False, format_share: bool = False) -> None:
        self.per_turn, self.format_share = per_turn, format_share
        most = 6.0 if per_turn else 3.0
        self.value_range = (-most, most + 1.0)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        kept = _started(_kept(carry, len(mask)), mask)
        return kept, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        kept = _kept(carry, traj.shape[1])
        valid = np.asarray(traj.readouts["world.valid"], bool)
        over = (traj.terminated | traj.truncated) & traj.valid
        asked = traj.valid if traj.due is None else traj.valid & traj.due
        value = np.zeros(traj.shape)
        status = np.full(traj.shape, SCORED, np.int8)
        for t, first in enumerate(traj.is_first):
            kept = _started(kept, first)
            kept["turns"] += traj.valid[t]
            kept["good"] += traj.valid[t] & valid[t]
            for n in np.flatnonzero(asked[t] if self.per_turn else over[t]):
                told = (traj.readouts[name][t, n] for name in ("world.calls", "world.gold_calls"))
                if (graded := grade(*told)) is None:
                    status[t, n] = ABSTAINED
                    continue
                value[t, n], none = graded
                if self.per_turn:
                    before = kept["correct"][n]
                    kept["correct"][n] = value[t, n]
                    value[t, n] -= none if np.isnan(before) else before
            value[t] += np.where(over[t], self._format(kept), 0.0)
        value[status == ABSTAINED] = 0.0
        return kept, Score(value.astype(np.float32), status)

    def _format(self, kept: Carry) -> Array:
        share = kept["good"] / np.maximum(kept["turns"], 1)
        return share if self.format_share else (share == 1.0).astype(np.float64)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def correctness(calls: Sequence[Call], gold: Sequence[Call]) -> float:
    """ToolRL's R_correct, from -3 to 3 (equal calls, in any order).

        R = 6 S / S_max - 3,   S = J(names) + sum over gold calls [J(keys) + equal values]
        S_max = 1 + sum over gold calls [1 + parameters]

    J is the Jaccard index, of the names as multisets; a gold call is compared with the call of the
    same name that scores most, and each call is taken once.
    """
    most = 1 + sum(1 + len(call["arguments"]) for call in gold)
    return 6.0 * (name_overlap(calls, gold) + agreement(calls, gold)) / most - 3.0


def name_overlap(calls: Sequence[Call], gold: Sequence[Call]) -> float:
    """The Jaccard index of the multisets of names; 1 where both are empty."""
    ours, theirs = (Counter(call["name"] for call in some) for some in (calls, gold))
    whole = (ours | theirs).total()
    return (ours & theirs).total() / whole if whole else 1.0


def agreement(calls: Sequence[Call], gold: Sequence[Call]) -> float:
    """What the parameters of matched calls have in common, over all gold calls.

    Matched greedily: the gold calls one after another, in the order of their text rather than as
    they are listed (where we differ), so that the order of calls and gold calls is of no matter.
    """
    left, total = sorted(calls, key=_text), 0.0
    for wanted in sorted(gold, key=_text):
        same = [k for k, call in enumerate(left) if call["name"] == wanted["name"]]
        if same:
            found = [_alike(left[k]["arguments"], wanted["arguments"]) for k in same]
            total += max(found)
            del left[same[found.index(max(found))]]
    return total


def _alike(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """The Jaccard index of the keys (1 for none and none), and the number of equal values."""
    shared, whole = given.keys() & wanted.keys(), given.keys() | wanted.keys()
    equal = sum(_text(given[key]) == _text(wanted[key]) for key in shared)
    return (len(shared) / len(whole) if whole else 1.0) + equal


def _text(value: Any) -> str:
    """JSON in one way: equal for equal values alone, so that true is not 1."""
    return json.dumps(value, sort_keys=True)


def grade(said: str, wanted: str) -> tuple[float, float] | None:
    """R_correct of the calls in a JSON text, and of no call at all; None for what is malformed."""
    try:
        calls, gold = read_calls(said), read_calls(wanted)
        return correctness(calls, gold), correctness([], gold)
    except (ValueError, RecursionError):
        return None


def read_calls(said: str) -> list[Call]:
    """The calls in a JSON text. Raises `ValueError` where it holds no list of calls."""
    calls = json.loads(said)
    if not isinstance(calls, list) or not all(_is_call(call) for call in calls):
        raise ValueError("no list of calls")
    return calls


def _is_call(call: Any) -> bool:
    return (
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), dict)
    )


def _kept(carry: Carry, worlds: int) -> Carry:
    """Of running episodes: the turns, those that were good, and R_correct (NaN before a turn)."""
    if carry:
        return {name: value.copy() for name, value in carry.items()}
    counts = {name: np.zeros(worlds, np.int64) for name in ("turns", "good")}
    return {**counts, "correct": np.full(worlds, np.nan)}


def _started(kept: Carry, mask: Array) -> Carry:
    """Episodes start in the worlds of `mask`."""
    new = _kept({}, len(mask))
    return {name: np.where(mask, new[name], value) for name, value in kept.items()}
