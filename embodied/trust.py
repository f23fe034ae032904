"""Whether a learned reward still means what it should, while a policy is trained on it.

A policy finds what its judge gets wrong. So the judge's word is held against the env's own truth,
which is never learned from: how many episodes it calls a success and how many are, and whether
what it says of an episode's states still goes with what the env would have paid.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.statistics import spearman
from embodied.types import Array, Trajectory

WINDOW = 256
"""Episodes that are looked back on."""
GAP, DROP = 0.2, 0.2
"""An alarm: so much more judged than true success, or so much correlation lost."""
ROWS = ("judged", "true", "proxy", "truth")


class Trust:
    """Judged against true success, and proxy against true return, of the last episodes.

    `add` takes labelled rollouts; `figures` says how things stand; `alarm` is one line, or "".
    """

    def __init__(self, num_worlds: int) -> None:
        self._running = {name: np.zeros(num_worlds) for name in ROWS}
        self._last: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in ROWS}
        self._best = (-1.0, 0.0, 0.0)  # the highest correlation so far, then proxy and truth

    def add(
        self, traj: Trajectory, judged: Array, success: Array, proxy: Array, truth: Array
    ) -> None:
        """A rollout, `(T, N)` each: where the judge said success and where it was one, what the
        judge says of the states reached, and what the env paid for them."""
        ended = traj.terminated | traj.truncated
        parts = {"judged": judged, "true": success, "proxy": proxy, "truth": truth}
        for t in range(len(ended)):
            for name, part in parts.items():
                if name in ("judged", "true"):
                    self._running[name] = np.maximum(self._running[name], part[t])
                else:
                    self._running[name] = self._running[name] + part[t]
            over = ended[t]
            if over.any():
                for name, running in self._running.items():
                    self._last[name].extend(running[over].tolist())
                    running[over] = 0.0

    def figures(self) -> dict[str, float]:
        """Shares of judged and true success, their gap, and the rank correlation of returns."""
        if not self._last["true"]:
            return {}
        judged, true = (float(np.mean(self._last[name])) for name in ("judged", "true"))
        correlation = spearman(np.array(self._last["proxy"]), np.array(self._last["truth"]))
        out = {"judge/success": judged, "judge/true_success": true, "judge/gap": judged - true}
        if np.isfinite(correlation):
            out["judge/correlation"] = correlation
        return out

    @property
    def judged(self) -> float:
        """The judged share of success, 0 until enough episodes have ended to say."""
        full = len(self._last["judged"]) == WINDOW
        return float(np.mean(self._last["judged"])) if full else 0.0

    def alarm(self) -> str:
        """What is wrong, or nothing. Call it once an update: it remembers the best correlation."""
        now = self.figures()
        if len(self._last["true"]) < WINDOW:
            return ""
        if now["judge/gap"] > GAP:
            judged, true = now["judge/success"], now["judge/true_success"]
            return f"REWARD ALARM: judged success {judged:.0%}, true {true:.0%}"
        proxy, truth = (float(np.mean(self._last[name])) for name in ("proxy", "truth"))
        correlation, (best, proxy_then, truth_then) = now.get("judge/correlation", 0.0), self._best
        if correlation >= best:
            self._best = correlation, proxy, truth
        elif correlation < best - DROP and proxy > proxy_then and truth <= truth_then:
            return (
                f"REWARD ALARM: it values more what is worth less, and its correlation with the "
                f"truth fell from {best:.2f} to {correlation:.2f}"
            )
        return ""

    def state_dict(self) -> dict[str, Any]:
        return {
            "running": {name: value.copy() for name, value in self._running.items()},
            "last": {name: np.array(values) for name, values in self._last.items()},
            "best": np.array(self._best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._running = {name: np.array(value) for name, value in state["running"].items()}
        for name, values in state["last"].items():
            self._last[name] = deque(np.asarray(values).tolist(), maxlen=WINDOW)
        correlation, proxy, truth = (float(x) for x in state["best"])
        self._best = correlation, proxy, truth
