"""A conversation as tokens that only ever grow: each turn appends, nothing before it changes.

So what a model has read once is not read again, and what it said keeps the very tokens it was said
in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_HERE, _SAID = "\ue000here\ue001", "\ue002said\ue003"  # for private use: in no template


class Chat:
    """How a tokenizer's chat template puts the world's texts before and between replies.

    Without a template, texts follow "World:" and replies "Agent:". What a world says is never read
    as a special token, whatever is in it: it cannot end its own message or begin another's.
    """

    def __init__(self, tokenizer: Any, system: str | None = None) -> None:
        self.tokenizer = tokenizer
        asked = {"role": "user", "content": _HERE}
        before = [{"role": "system", "content": system}] if system else []
        if tokenizer.chat_template:
            stop = tokenizer.eos_token
            whole = self._render([*before, asked])
            reply = {"role": "assistant", "content": _SAID}
            earlier = {"role": "user", "content": "."}
            more = self._render([*before, earlier, reply, asked])
            following = more[more.index(_SAID) + len(_SAID) :].removeprefix(stop)
        else:
            stop = tokenizer.eos_token or "\n"
            intro = f"{system}\n" if system else ""
            whole = f"{intro}World: {_HERE}\nAgent:"
            following = f"\nWorld: {_HERE}\nAgent:"
        self._first, self._next = self._parts(whole), self._parts(following)
        self.stop = self._ids(stop)
        """Tokens that end a reply; they are part of it."""

    def first(self, text: str) -> np.ndarray:
        """Tokens of an episode's start, up to where the reply begins, `(L,)` int32."""
        return self._around(self._first, text)

    def following(self, text: str) -> np.ndarray:
        """Tokens between a reply, with its stop, and where the next one begins, `(L,)` int32."""
        return self._around(self._next, text)

    def text(self, reply: np.ndarray) -> str:
        """What was said, without what ended it."""
        return str(self.tokenizer.decode(np.asarray(reply).tolist(), skip_special_tokens=True))

    def encode(self, text: str) -> np.ndarray:
        """Tokens of what somebody says, none of them special, `(L,)` int32."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return np.array(ids["input_ids"], np.int32)

    def reply(self, text: str) -> np.ndarray:
        """Tokens of a whole reply, its stop included, `(L,)` int32."""
        lead = "" if self.tokenizer.chat_template else " "
        return np.concatenate([self.encode(lead + text), self.stop])

    def _around(self, parts: tuple[np.ndarray, np.ndarray], text: str) -> np.ndarray:
        return np.concatenate([parts[0], self.encode(text), parts[1]])

    def _parts(self, template: str) -> tuple[np.ndarray, np.ndarray]:
        before, _, after = template.partition(_HERE)
        return self._ids(before), self._ids(after)

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _render(self, messages: list[dict[str, str]]) -> str:
        render = self.tokenizer.apply_chat_template
        return str(render(messages, tokenize=False, add_generation_prompt=True))
