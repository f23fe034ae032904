"""What is saved of a policy whose actions are drawn with noise of its own, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from embodied.errors import UserError
from embodied.nets import load_weights


def policy_state(policy: Any) -> dict[str, Any]:
    """The policy's part of an agent's state, with what its numbers mean."""
    return {
        "observations": list(policy.keys),
        "action_spec": policy.action_spec.to_dict(),
        "policy": policy.state_dict(),
        "noise": policy.noise.get_state(),
    }


def load_policy_state(policy: Any, state: Mapping[str, Any]) -> None:
    """Load it. Raises `UserError` for another shape, or another meaning of what goes in or out."""
    load_weights(policy, state["policy"])
    there, spec = state["action_spec"], policy.action_spec
    for what, theirs, ours in (
        ("observations", state["observations"], list(policy.keys)),
        ("actions", there["names"], list(spec.names)),
        ("kind of action", there["kind"], spec.kind),
    ):
        if theirs != ours:
            raise UserError(f"the checkpoint does not fit: {what} {theirs} there, {ours} here")
    noise = torch.as_tensor(state["noise"])
    if noise.shape == policy.noise.get_state().shape:  # else of another kind of device
        policy.noise.set_state(noise)
