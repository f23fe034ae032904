"""Where a language policy's model comes from, and how it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied.causal_lm import CausalLM
from embodied.errors import UserError
from embodied.run import open_run
from embodied.tiny_lm import from_state, to_state


def begin_model(
    model: str | None, lora: Mapping[str, Any] | None, start: str | None, device: str,
    system: str | None,
) -> CausalLM:  # fmt: skip
    """A new run's model. Raises `UserError` where there is none, or two."""
    if (model is None) == (start is None):
        raise UserError(
            "agent: give agent.model=FOLDER, a checkpoint of a language model, or agent.start=RUN "
            "(embodied imitate agent=sft makes one, of a small model of its own too)"
        )
    if start is not None and lora is not None:
        raise UserError("agent.lora: the model that agent.start ended with has its own weights")
    if start is None:
        assert model is not None
        return CausalLM.load(model, device, lora, system)
    state = open_run(start).checkpoint.state["agent"]
    if "lm" not in state:
        raise UserError(f"agent.start={start}: its policy does not speak")
    return read_model(state["lm"], device, system)


def model_state(lm: CausalLM) -> dict[str, Any]:
    """Weights that were learned, and what the model is made of: a folder, or all there is."""
    made = to_state(lm.model, lm.tokenizer) if lm.origin is None else None
    return {"weights": lm.state_dict(), "origin": lm.origin, "made": made}


def read_model(state: Mapping[str, Any], device: str, system: str | None) -> CausalLM:
    """The model that `model_state` told of."""
    if state["made"] is not None:
        lm = CausalLM(*from_state(state["made"]), device, system)
    else:
        lm = CausalLM.load(state["origin"]["model"], device, state["origin"]["lora"], system)
    lm.load_state_dict(state["weights"])
    return lm
