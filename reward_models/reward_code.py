"""Reward code, written by a language model or by hand, as a reward model with named terms."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import UserError, check_range, unknown
from embodied.reward_folder import read_reward
from embodied.reward_graph import RewardGraph
from embodied.types import ABSTAINED, SCORED, Array, Carry, Moment, Score, Trajectory

TIERS = ("graph", "worker", "bubblewrap")
MOST = 4096
"""Rows of one call to a sandbox."""
CHECKED_EVERY = 100
"""Calls of a sandbox from one check of purity to the next."""
_log = logging.getLogger(__name__)


class RewardCode:
    """What the code in the folder `path` pays: the sum of its terms.

    `tier=graph` replays its operations and runs none of its lines; `tier=worker` runs the code
    itself, in a sandbox, with `deadline_s` for a call of up to 4,096 steps; `tier=bubblewrap` puts
    that into namespaces of its own. A step that it pays nothing finite for, or more than `bound`,
    is not judged (`abstained`); so are all steps of a call that fails.

    `value` is `(T, N)`; `terms` are the code's own. Raises `UserError` for a folder that holds no
    reward, code that was changed since it was checked or that cannot be traced (`tier=graph`),
    readouts of another env, and, while running, for code that turns out to be impure.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True
    learned = True

    def __init__(
        self,
        path: str | None = None,
        tier: str = "graph",
        bound: float = 100.0,
        deadline_s: float = 1.0,
    ) -> None:
        if path is None:
            raise UserError(
                "reward_model.reward_code.path: give a folder that `embodied write-reward` wrote"
            )
        if tier not in TIERS:
            raise unknown("reward_model.reward_code.tier", tier, TIERS)
        check_range("reward_model.reward_code", 1e-3, bound=bound, deadline_s=deadline_s)
        self.path, self.tier, self.bound, self.deadline_s = path, tier, bound, deadline_s
        self.file = read_reward(path)
        self.value_range = (-bound, bound)
        self.needs = self.file.needs
        self._calls, self._said = 0, set[str]()
        self._sandbox: Any = None
        if tier == "graph":
            if self.file.graph is None:
                raise UserError(f"{path}: this code cannot be traced: give tier=worker")
            self._graph = RewardGraph(self.file.graph)

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        flat = self.file.rows(traj)
        parts = self._graph(flat) if self.tier == "graph" else self._run(flat)
        if not parts:  # every call failed
            value = np.full(traj.shape, np.nan, np.float32)
        else:
            value = np.stack([*parts.values()]).sum(0, dtype=np.float32).reshape(traj.shape)
        with np.errstate(invalid="ignore"):
            good = np.abs(value) <= self.bound
        status = np.where(good, SCORED, ABSTAINED).astype(np.int8)
        terms = {name: np.reshape(term, traj.shape) for name, term in parts.items()}
        return carry, Score(np.where(good, value, np.float32(0.0)), status, terms)

    def _run(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The terms by the sandbox; NaN for rows of a call that failed."""
        from embodied.jail import JailError
        from embodied.sandbox import CodeFault, Sandbox

        if self._sandbox is None:
            file = self.file
            wrap = self.tier == "bubblewrap"
            self._sandbox = Sandbox(
                file.inputs, MOST, file.dt, self.deadline_s, bound=1e30, bubblewrap=wrap
            )
            try:
                self._sandbox.load(file.source)
            except (CodeFault, JailError) as fault:
                raise UserError(f"{self.path}: {fault}") from fault
        count = len(flat["action"])
        told: list[tuple[slice, dict[str, np.ndarray]]] = []
        for at in range(0, count, MOST):
            rows = slice(at, min(count, at + MOST))
            part = {name: value[rows] for name, value in flat.items()}
            try:
                told.append((rows, self._sandbox(part)))
                self._check_purity(part)
            except CodeFault as fault:
                self._warn(fault)
        out: dict[str, np.ndarray] = {}
        for rows, terms in told:
            for name, term in terms.items():
                out.setdefault(name, np.full(count, np.nan, np.float32))[rows] = term
        return out

    def _check_purity(self, part: Mapping[str, np.ndarray]) -> None:
        """Once in a while: whether it still says what it said, of each world alone."""
        from embodied.sandbox import CodeFault

        self._calls += 1
        if self._calls % CHECKED_EVERY != 1:
            return
        order = np.random.default_rng(self._calls).permutation(len(part["action"]))
        try:
            self._sandbox.check_purity(part, order)
        except CodeFault as fault:
            if fault.name != "impure":
                raise
            raise UserError(f"reward_model.reward_code: {fault}") from fault

    def _warn(self, fault: Exception) -> None:
        """Say what went wrong, each thing once: the steps are counted as not judged."""
        if str(fault) not in self._said:
            self._said.add(str(fault))
            _log.warning("reward code: %s", fault)

    def close(self) -> None:
        """End the sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._sandbox = None

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self.file.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("fingerprint") != self.file.fingerprint:
            raise UserError(f"{self.path}: this is not the reward code that the run began with")
