"""Replies of a language model to many growing conversations at once, each token read once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied.causal_lm import CausalLM
from embodied.errors import check_range


@dataclass
class Replies:
    """What was said in some conversations, row by row."""

    ids: list[np.ndarray]  # (L,) int32 each, the stop included where it came in time
    log_probs: list[np.ndarray]  # (L,) float32 each, under the model that said it


class Generation:
    """Samples replies, with the keys and values of what was read before kept from call to call.

    A conversation is a row with a number of its own. Where its tokens continue what was kept of it,
    only the new ones are read; else (another episode, changed weights) it is read anew. Rows that
    are no longer asked for are forgotten.
    """

    def __init__(self, lm: CausalLM, max_tokens: int = 32, temperature: float = 1.0) -> None:
        check_range("agent", 1, max_tokens=max_tokens)
        check_range("agent", 1e-3, temperature=temperature)
        self.lm, self.max_tokens, self.temperature = lm, max_tokens, temperature
        taken = inspect.signature(getattr(lm.model, "get_base_model", lambda: lm.model)().forward)
        self._cache_name = "cache" if "cache" in taken.parameters else "past_key_values"
        self.forget()

    def forget(self) -> None:
        self._cache: object = None
        self._rows = np.empty(0, np.int64)
        self._known: list[np.ndarray] = []  # of each row, the tokens that were read
        self._mask = np.empty((0, 0), bool)  # (B, S): which columns of the cache are its tokens
        self._version = -1

    @torch.inference_mode()
    def reply(
        self,
        contexts: Sequence[np.ndarray],
        rows: np.ndarray,
        noise: torch.Generator,
        greedy: bool = False,
    ) -> Replies:
        """Replies to conversations `contexts`, which are the rows numbered `rows`."""
        new = self._continue(contexts, rows)
        logits = self._read(new)
        live = np.ones(len(rows), bool)
        ids: list[list[int]] = [[] for _ in rows]
        logs: list[list[float]] = [[] for _ in rows]
        stop = int(self.lm.chat.stop[-1])
        for k in range(self.max_tokens):
            chosen, log_prob = self._choose(logits, noise, greedy)
            for i in np.flatnonzero(live):
                ids[i].append(int(chosen[i]))
                logs[i].append(float(log_prob[i]))
            live &= chosen != stop
            if not live.any() or k + 1 == self.max_tokens:
                break
            logits = self._read([chosen[i : i + 1] if live[i] else _NONE for i in range(len(rows))])
        return Replies(
            [np.array(row, np.int32) for row in ids], [np.array(row, np.float32) for row in logs]
        )

    def _choose(
        self, logits: Tensor, noise: torch.Generator, greedy: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        each = torch.log_softmax(logits.float() / self.temperature, -1)
        if greedy:
            chosen = each.argmax(-1)
        else:
            chosen = torch.multinomial(each.exp(), 1, generator=noise).squeeze(-1)
        log_prob = each.gather(-1, chosen[:, None]).squeeze(-1)
        return chosen.cpu().numpy(), log_prob.cpu().numpy()

    def _continue(self, contexts: Sequence[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """What is to be read of each conversation beyond what is kept; keeps just these rows."""
        place = {int(row): k for k, row in enumerate(self._rows)}
        kept = [place.get(int(row), -1) for row in rows]
        fresh = self._cache is None or self._version != self.lm.version or min(kept) < 0
        if not fresh:
            known = [self._known[k] for k in kept]
            fresh = any(
                len(had) >= len(now) or not np.array_equal(now[: len(had)], had)
                for had, now in zip(known, contexts, strict=True)
            )
        if fresh:
            from transformers import DynamicCache

            self.forget()
            self._cache, self._version = DynamicCache(), self.lm.version
            self._known = [_NONE for _ in rows]
            self._mask = np.zeros((len(rows), 0), bool)
        elif kept != list(range(len(self._rows))):
            self._cache.batch_select_indices(  # type: ignore[attr-defined]
                torch.tensor(kept, device=self.lm.device)
            )
            self._known, self._mask = [self._known[k] for k in kept], self._mask[kept]
        self._rows = np.array(rows)
        return [now[len(had) :] for had, now in zip(self._known, contexts, strict=True)]

    def _read(self, new: Sequence[np.ndarray]) -> Tensor:
        """Read further tokens of every row (of some none); the logits after each row's last."""
        longest = max(len(part) for part in new)
        ids = np.full((len(new), longest), self.lm.pad, np.int64)
        real = np.zeros((len(new), longest), bool)
        position = np.zeros((len(new), longest), np.int64)
        for i, part in enumerate(new):
            if len(part):  # at the right edge, so that the last column is every row's last
                ids[i, -len(part) :], real[i, -len(part) :] = part, True
                start = len(self._known[i])
                position[i, -len(part) :] = np.arange(start, start + len(part))
                self._known[i] = np.concatenate([self._known[i], part])
        self._mask = np.concatenate([self._mask, real], axis=1)
        device = self.lm.device
        out = self.lm.model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(self._mask.astype(np.int64)).to(device),
            position_ids=torch.from_numpy(position).to(device),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: self._cache},
        )
        return out.logits[:, -1]


_NONE = np.empty(0, np.int32)
