"""The contracts of a policy and of the agent that trains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from embodied.types import ActionSpec, Array, Carry, Obs, Trajectory


class Policy(Protocol):
    """Maps observations to actions in physical units, and owns all it needs to do so.

    Normalisers are its own buffers; `action_spec` travels with it. What it remembers between
    steps is the carry, which the collector masks at episode starts and saves. One that has more to
    tell of its last actions (tokens, how likely they were) has it in `extras`, `(N,)` each, which
    become those of the trajectory. One that plans ahead (a VLA) also has `horizon`, above 1, and
    `chunk(carry, obs, greedy) -> (carry, actions (N, horizon, A))`; one that can be exported has
    `keys`, those of its observation, and `greedy_layers()`, from these to its mode.
    """

    action_spec: ActionSpec | None

    def carry(self, num_worlds: int) -> Carry:
        """The carry at an episode's start, `(N, ...)` each (empty without memory)."""

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        """Actions `(N, A)` float32 for NumPy observations `(N, ...)`; the mode where `greedy`.

        A policy that speaks gives texts `(N,)`."""


class Agent(Protocol):
    """Learns a policy from trajectories.

    All that a resumed run needs is in `state_dict`. An off-policy agent also has
    `relabel(step_ids, channels)` for labels that arrive late; one whose library owns the loop
    has `learn(env, total_steps, on_update)` and no use for `update`.
    """

    gamma: float
    rollout_steps: int | None
    """None: one whole episode of every world."""
    progress: float
    """Share of the run that is done, 0 to 1, set before every update."""

    @property
    def policy(self) -> Policy: ...

    def update(self, traj: Trajectory) -> dict[str, float]:
        """Learn from a rollout `(T, N)`; figures for the log."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
