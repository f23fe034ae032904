"""A causal language model that policies and reward models share: its replies, and how likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.chat import Chat
from embodied.errors import UserError
from embodied.nets import usable_device

IGNORED = -1
"""The target of a token that is nobody's reply."""


class CausalLM:
    """`model` is any of `transformers` that takes ids, a mask, positions and a cache.

    Where it has adapters (LoRA, through `peft`), these alone are trained and saved, and without
    them it is its own reference. `version` counts the changes of its weights.
    """

    def __init__(self, model: Any, tokenizer: Any, device: str = "cpu", system: str | None = None):
        self.device = usable_device(device)
        self.model: Any = model.to(self.device).eval()
        self.tokenizer, self.chat = tokenizer, Chat(tokenizer, system)
        self.system = system
        self.origin: dict[str, Any] | None = None
        """The folder and the adapters that it was loaded from and with."""
        self.version = 0
        self.pad = int(tokenizer.pad_token_id or 0)
        self._reference: Any = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "cpu",
        lora: Mapping[str, Any] | None = None,
        system: str | None = None,
    ) -> CausalLM:
        """The checkpoint in a folder, as `save_pretrained` writes it: safetensors alone, no code.

        `lora` are the settings of peft's `LoraConfig`. Raises `UserError` for a folder without a
        model.
        """
        from embodied.local_model import read_checkpoint

        model, tokenizer = read_checkpoint(path)
        if lora is not None:
            model = _with_adapters(model, dict(lora))
        lm = cls(model, tokenizer, device, system)
        lm.origin = {"model": str(path), "lora": None if lora is None else dict(lora)}
        return lm

    @property
    def context(self) -> int:
        """The most tokens it can look back on."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 20))

    @property
    def has_adapters(self) -> bool:
        return hasattr(self.model, "disable_adapter")

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that learn, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def logprobs(
        self, ids: Tensor, targets: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Of every token how likely it was, and the entropy there, `(B, L)` each.

        `ids` are `(B, L)`, and `targets` the same where a token is somebody's reply, `IGNORED`
        elsewhere: there both are 0.
        """
        return self.likelihood(self.hidden(ids), targets, temperature)

    def hidden(self, ids: Tensor) -> Tensor:
        """The last layer's states `(B, L, D)`, which a token's successor is read from.

        Rows are padded at their end, which no token before it sees.
        """
        body = self.model.get_base_model() if self.has_adapters else self.model
        return body.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def likelihood(
        self, hidden: Tensor, targets: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """`logprobs`, of states that are known. Only those before a reply's tokens go through the
        last layer."""
        wanted = targets[:, 1:] != IGNORED
        logits = self.model.get_output_embeddings()(hidden[:, :-1][wanted]).float() / temperature
        each = torch.log_softmax(logits, -1)
        chosen = each.gather(-1, targets[:, 1:][wanted][:, None]).squeeze(-1)
        entropy = -(each.exp() * each).sum(-1)
        out = [torch.zeros(targets.shape, device=targets.device) for _ in range(2)]
        for full, values in zip(out, (chosen, entropy), strict=True):
            full[:, 1:][wanted] = values
        return out[0], out[1]

    def reference(self, ids: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
        """How likely it was to the model that was remembered, `(B, L)`, or without its adapters."""
        with torch.no_grad():
            if self._reference is not None:
                return self._reference.logprobs(ids, targets, temperature)[0]
            if not self.has_adapters:
                raise RuntimeError("remember() what it is to stay near first")
            with self.model.disable_adapter():
                return self.logprobs(ids, targets, temperature)[0]

    def remember(self) -> None:
        """Keep the model as it is now, to be compared with later."""
        self._reference = self.clone()

    def reference_state(self) -> dict[str, Any] | None:
        return None if self._reference is None else self._reference.state_dict()

    def load_reference_state(self, state: Mapping[str, Any] | None) -> None:
        self._reference = None
        if state is not None:
            self._reference = self.clone()
            self._reference.load_state_dict(state)

    def clone(self) -> CausalLM:
        """A copy of its own, to be trained apart."""
        other = CausalLM(deepcopy(self.model), self.tokenizer, str(self.device), self.system)
        other.origin = self.origin
        return other

    def state_dict(self) -> dict[str, Any]:
        """What was learned; a model that brings its own weights (LoRA's base) keeps them."""
        return {name: p.detach() for name, p in self.trained().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `UserError` where the state is of another model."""
        own = self.trained()
        for name in sorted({*own, *state}):
            here, there = (tuple(w[name].shape) if name in w else None for w in (own, state))
            if here != there:
                raise UserError(f"the checkpoint is of another language model: {name} is {there}")
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(torch.as_tensor(state[name]))
        self.version += 1


def padded(rows: Sequence[np.ndarray], fill: int, device: Any = None) -> Tensor:
    """Rows of differing length as one `(B, L)` tensor, filled up at their ends."""
    longest = max((len(row) for row in rows), default=0)
    out = np.full((len(rows), longest), fill, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out).to(device or "cpu")


def _with_adapters(model: Any, settings: dict[str, Any]) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("agent.lora needs peft: pip install 'embodied-rl[lm]'") from error
    try:
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    except (TypeError, ValueError) as error:
        raise UserError(f"agent.lora: {' '.join(str(error).split())[:160]}") from error
