"""A policy that was exported: onnxruntime acts with it, on one thread and without torch."""

from __future__ import annotations

from pathlib import Path

from embodied.env import Stepper
from embodied.errors import UserError
from embodied.exported import read_exported
from embodied.types import ActionSpec, Array, Carry, Obs


class OnnxPolicy:
    """The policy in a folder that `embodied export` wrote.

    It knows greedy actions alone, clamped to their limits; an observation that is not a number
    gives actions that are none. Raises `UserError` for a folder that holds no such policy or one
    that was changed, and where onnxruntime is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        exported = read_exported(folder)
        self.name = exported.name
        self.action_spec: ActionSpec = exported.action_spec
        self.session = exported.session()

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        """Raises `UserError` unless `greedy`: how it would explore was not exported."""
        if not greedy:
            raise UserError(f"{self.name} was exported and knows greedy actions alone: greedy=true")
        return carry, self.session(obs)


def load_onnx(folder: Path | str, env: Stepper) -> OnnxPolicy:
    """The exported policy for the worlds of `env`. Raises `UserError` where these are others."""
    policy = OnnxPolicy(folder)
    theirs, ours = policy.action_spec, env.action_spec
    here = {key: box.shape for key, box in env.observation_space.items()}
    lacking = {k: shape for k, shape in policy.session.inputs.items() if here.get(k) != shape}
    for what, there, now in (
        ("observations", lacking, {key: here.get(key) for key in lacking}),
        ("actions", theirs.names, ours and ours.names),
        ("kind of action", theirs.kind, ours and ours.kind),
    ):
        if there != now:
            raise UserError(
                f"{policy.name} does not fit {env.name}: {what} {there} there, {now} here"
            )
    return policy
