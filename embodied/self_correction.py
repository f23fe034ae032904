"""Failed calls that a later try put right, taken out of an episode before it is learned from.

Similarity-aware adaptive rollback (SAAR of CLEANER, arXiv 2601.15141): where an action failed and
one of the next few succeeded, the episode is rewritten as if that had been said at once. Where we
differ: the tries are the policy's own next turns, in which it sees the error, rather than further
samples of the same turn, so a world need not be forked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch

from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.errors import check_range
from embodied.types import Trajectory

KEPT = ("context", "reply", "log_prob")
ROWS = 32
"""Contexts that are read at a time."""


class SelfCorrection:
    """Rewrites rollouts of a policy that speaks. `language` is its model, as it said them.

    A turn that failed (`world.valid` is False), and the up to `tries` that follow until one
    succeeds, are no longer `valid`, but for the last: in the contexts from there on it takes the
    place of the first. Where what was said is alike (`ratio` of matching characters, at least
    `alike`) only the action is replaced, and what was thought before it stays; else both. A turn
    whose tries all fail is left as it is.

    `log_prob` is then that of the rewritten turns by the same weights; what was really seen and
    said stays in `extras` as "original_context", "original_reply" and "original_log_prob".
    """

    readouts = frozenset({"world.valid"})

    def __init__(
        self,
        language: Callable[[], CausalLM],
        tries: int = 3,
        alike: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        check_range("agent.self_correction", 1, tries=tries)
        check_range("agent.self_correction", 0, 1, alike=alike)
        self.language, self.tries, self.alike = language, tries, alike
        self.temperature = temperature

    def __call__(self, traj: Trajectory) -> Trajectory:
        failed = traj.valid & ~np.asarray(traj.readouts["world.valid"], bool)
        extras: dict[str, Any] = {name: traj.extras[name].copy() for name in traj.extras}
        extras |= {f"original_{name}": traj.extras[name] for name in KEPT}
        valid = traj.valid.copy()
        changed: list[tuple[int, int]] = []
        moved: list[tuple[int, int, int]] = []
        for n in range(traj.shape[1]):
            for first, right in runs(failed[:, n], traj.valid[:, n], self.tries):
                valid[first:right, n] = False
                moved.append((first, right, n))
                changed += self._rewrite(extras, traj, n, first, right)
        self._likelihood(extras, changed)
        obs = {**traj.obs, "text": traj.obs["text"].copy()}
        for first, right, n in moved:  # it was said where the first of them was
            obs["text"][right, n] = traj.obs["text"][first, n]
        due = valid if traj.due is None else traj.due & (valid | ~traj.valid)
        return replace(traj, obs=obs, valid=valid, due=due, extras=extras)

    def _rewrite(
        self, extras: dict[str, Any], traj: Trajectory, n: int, first: int, right: int
    ) -> list[tuple[int, int]]:
        """Say in the turn `right` what succeeded, in the context of `first`; what this changes."""
        chat, context, reply = self.language().chat, extras["context"], extras["reply"]
        told = np.concatenate([context[right, n], reply[right, n]])
        before, after = chat.text(reply[first, n]), chat.text(reply[right, n])
        if SequenceMatcher(None, before, after).ratio() >= self.alike:
            said = rewritten(before, after)
            reply[right, n] = reply[right, n] if said == after else chat.reply(said)
        context[right, n] = context[first, n]
        head, changed = np.concatenate([context[right, n], reply[right, n]]), [(right, n)]
        for t in range(right + 1, traj.shape[0]):
            if not traj.valid[t, n] or not np.array_equal(context[t, n][: len(told)], told):
                break  # it is over, or what was rewritten has been forgotten there
            context[t, n] = np.concatenate([head, context[t, n][len(told) :]])
            changed.append((t, n))
        return changed

    def _likelihood(self, extras: dict[str, Any], changed: list[tuple[int, int]]) -> None:
        """Of the turns that were rewritten, how likely they were."""
        lm = self.language()
        for start in range(0, len(changed), ROWS):
            part = changed[start : start + ROWS]
            turns = [(extras["context"][at], extras["reply"][at]) for at in part]
            ids = padded([np.concatenate(turn) for turn in turns], lm.pad, lm.device)
            targets = torch.full_like(ids, IGNORED)
            for row, (context, reply) in enumerate(turns):
                own = slice(len(context), len(context) + len(reply))
                targets[row, own] = ids[row, own]
            with torch.no_grad():
                each = lm.logprobs(ids, targets, self.temperature)[0].cpu().numpy()
            for row, (at, (context, reply)) in enumerate(zip(part, turns, strict=True)):
                extras["log_prob"][at] = each[row, len(context) : len(context) + len(reply)]


def runs(failed: np.ndarray, valid: np.ndarray, tries: int) -> list[tuple[int, int]]:
    """Of a world's turns `(T,)`: each first failure with the success that put it right, if one of
    the next `tries` turns did."""
    out, t = [], 0
    while t < len(failed):
        right = t
        while right < len(failed) and valid[right] and failed[right]:
            right += 1
        if t < right < len(failed) and valid[right] and right - t <= tries:
            out.append((t, right))
        t = right + 1
    return out


def rewritten(before: str, after: str) -> str:
    """The reply `before` with the action of `after`: what <action> marks, or the whole."""
    if "<action>" not in before or "<action>" not in after:
        return after
    thought = before.partition("<action>")[0]
    return f"{thought}<action>{after.partition('<action>')[2]}"
