"""The contract of a reward model, and of a channel that uses one.

A model judges; the core shapes. How several of them become one learning signal: `embodied.rewards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from embodied.errors import UserError, check_range
from embodied.shaping import SHAPINGS
from embodied.types import (
    Array,
    Carry,
    Moment,
    Score,
    Trajectory,
)

KINDS = ("potential", "delta", "success", "reward", "preference")


@dataclass(frozen=True)
class Needs:
    """What a model must be given. A privileged need is declared, never silent.

    `readouts` are names a stepper supplies ("reward", "success", "term/NAME", or a task's own);
    `cameras` are rendered at `image_size` square when the model is due; `privileged` names the
    readouts among them that a real robot has not got. A model that remembers states remembers
    those `stride` steps apart, so it must be asked at least then (0: it remembers none).
    """

    readouts: frozenset[str] = frozenset()
    cameras: tuple[str, ...] = ()
    image_size: int = 64
    stride: int = 0
    privileged: frozenset[str] = frozenset()


class RewardModel(Protocol):
    """Scores steps. `score(...).value[t]` judges the *true successor* of step t.

    `kind` says what a value means: "potential" (how far, higher is better), "delta" (signed
    progress of the step), "success" (probability that it is done), "reward" (learn from it as it
    is), "preference". `value_range` bounds it: an abstaining judge scores the lowest, so that
    breaking the judge never pays. A causal model looks at no later step. Where `traj.due` is
    given, only the steps it marks are asked about. Scoring a trajectory in chunks, the carry
    handed on, equals scoring it whole, bit for bit.

    A model that looks at readouts alone, never at observations, says `blind = True`: a rollout on a
    GPU then leaves those where they are.

    A combiner looks at what other models of the run pay rather than at states: it has `over`, their
    names, is asked after them, and finds their terms in `traj.reward_terms`. These count through it
    alone.

    A model that learns has `fit(dataset, others)`, `save(path)` and a `path` it was loaded from;
    one that must not be trained on before it is audited says so by `learned = True`. One that
    learns while a policy is trained has `learn(traj) -> figures`, which is given every rollout
    after the policy has learned from it; what it keeps is part of its state.
    """

    kind: str
    scope: str  # "step" or "episode"
    causal: bool
    needs: Needs
    value_range: tuple[float, float]

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        """Episodes start in the worlds of `mask` (N,): new carry, and values of `moment` (N,).

        `moment.images` show the worlds of `mask` alone, in order.
        """

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def due(every: int, episode_step: Array, done: Array) -> Array:
    """Whether a model is asked about a step: every k-th of its episode, and always the last.

    `episode_step` counts from 0 and `done` says that the step ended its episode; same shapes.
    """
    return ((episode_step + 1) % every == 0) | done


def start(traj: Trajectory, t: int) -> Moment:
    """What `begin` is given of the episodes that start at row t of a trajectory."""
    mask = traj.is_first[t]
    return Moment(
        {key: value[t] for key, value in traj.obs.items()},
        {name: frames.image[frames.first[t, mask]] for name, frames in traj.frames.items()},
        traj.instructions,
    )


@dataclass
class Channel:
    """A model and how its values are used.

    `shaping` is one of `embodied.shaping.SHAPINGS`. With `threshold`, the model's own
    `1[value >= threshold]` is added as a base reward, scaled by `bonus`. With `late`, its labels
    are known so many steps after the step they judge: see `embodied.late`.
    """

    name: str
    model: RewardModel
    weight: float = 1.0
    shaping: str = "none"
    every: int = 1
    late: int = 0
    threshold: float | None = None
    bonus: float = 1.0
    clip: float = 1.0
    whole: bool = False  # rollouts are whole episodes, whose limits of turns are true ends
    carry: Carry = field(default_factory=dict)
    last: Array | None = None  # (N,) the value held from the last query

    def __post_init__(self) -> None:
        key, model = f"reward_model.{self.name}", self.model
        if self.shaping not in SHAPINGS:
            raise UserError(f"{key}.shaping={self.shaping!r}: one of {', '.join(SHAPINGS)}")
        check_range(key, weight=self.weight, bonus=self.bonus)
        check_range(key, 1, every=self.every)
        check_range(key, 0, clip=self.clip, late=self.late)
        if model.kind not in KINDS:
            raise UserError(f"{key}: kind {model.kind!r} is none of {', '.join(KINDS)}")
        if not self.whole and (not model.causal or model.scope != "step"):
            raise UserError(
                f"{key}: only a causal, step-wise model can be learned from online "
                "(an agent that speaks learns from whole episodes)"
            )
        if model.needs.stride % self.every:
            raise UserError(
                f"{key}.every={self.every}: it remembers states {model.needs.stride} steps apart, "
                "so give a divisor of that"
            )
        if self.shaping != "none":
            if model.kind not in ("potential", "success"):
                raise UserError(f"{key}: a model of kind {model.kind!r} gives no potential")
            if self.shaping == "override" and self.threshold is None:
                raise UserError(f"{key}.shaping=override: give the threshold of a success too")
        elif model.kind == "potential" and self.threshold is None:
            raise UserError(f"{key}: a potential needs shaping=potential, delta, held or override")

    @property
    def gives_base(self) -> bool:
        """Whether it rewards anything by itself; a potential alone teaches nothing."""
        pays_bonus = self.threshold is not None and self.bonus != 0
        return self.weight != 0 and (pays_bonus or self.shaping != "potential")
