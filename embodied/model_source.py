"""The model that a reward model asks: behind a server, in this process, or what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from embodied.endpoint import Endpoint, Prompt, Reply
from embodied.errors import UserError
from embodied.reply_cache import key_of
from embodied.types import ABSTAINED, FAILED

REMEMBERED = 20_000
"""Replies that are kept in memory; the oldest make room."""
OWN_FAULTS = {"cut_off", "empty", "refused", "too_long"}
"""Where the model was reached and gave no answer: it abstains. All others are failures."""


class Asked(Protocol):
    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]: ...


class Remembering:
    """Asks each question once, here as in a `source`'s own cache on disk; faults are forgotten."""

    def __init__(self, source: Asked) -> None:
        self.source = source
        self._known: dict[str, Reply] = {}

    def ask(self, prompts: Sequence[Prompt], deadline_s: float | None = None) -> list[Reply]:
        keys = [key_of(vars(prompt)) for prompt in prompts]
        told = {key: self._known[key] for key in keys if key in self._known}
        new = {key: p for key, p in zip(keys, prompts, strict=True) if key not in told}
        if new:
            told |= dict(zip(new, self.source.ask(list(new.values())), strict=True))
        self._known |= {key: told[key] for key in new if told[key].text is not None}
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return [told[key] for key in keys]


def model_source(
    where: str,
    source: Asked | None = None,
    url: str | None = None,
    model: str | None = None,
    local: str | None = None,
    revision: str = "",
    key_env: str = "",
    deadline_s: float = 120.0,
    cache: str | None = None,
    ledger: str | None = None,
    budget: float | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
) -> Any:
    """Whoever the options of the reward model `where` say; `source` is one that is there already.

    Options are those of `embodied write-reward`: `model` behind `url`, a checkpoint in the folder
    `local`, or, with neither, what `cache` remembers of `model`. Raises `UserError`.
    """
    if source is not None:
        return Remembering(source)
    if (url is None) == (local is None) and not (local is None and model and cache):
        raise UserError(
            f"{where}: say which model to ask, by {where}.url=http://... {where}.model=NAME, or "
            f"{where}.local=FOLDER"
        )
    if local is not None:
        from embodied.local_model import LocalModel

        return Remembering(LocalModel(local, deadline_s=deadline_s, cache=cache))
    if not model:
        raise UserError(f"{where}.model: say which model of the server to ask")
    return Remembering(
        Endpoint(
            url, model, revision, key_env, deadline_s, price=(price_in, price_out),
            budget=budget, ledger=ledger, cache=cache,
        )
    )  # fmt: skip


def unheard(reply: Reply) -> int:
    """The status of a question whose reply could not be used."""
    return FAILED if reply.text is None and reply.fault not in OWN_FAULTS else ABSTAINED
