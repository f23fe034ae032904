"""A policy that speaks, over any causal language model: its context only grows."""

from __future__ import annotations

import numpy as np

from embodied.causal_lm import CausalLM
from embodied.errors import UserError
from embodied.generation import Generation
from embodied.nets import seeded
from embodied.text_space import texts
from embodied.types import ActionSpec, Array, Carry, Obs


class LanguagePolicy:
    """Reads what a world says, with all that was said before, and replies.

    Its context only grows, so that what was read once is kept; where it would not fit in `context`
    tokens, or has more than `memory` past turns, the oldest turns but the first text are left out.
    The action is the first line of the reply (between <action> and </action> where it has them); a
    reply without one, or one that does not end within `max_tokens`, is malformed.
    """

    action_spec: ActionSpec | None = None
    speaks = True

    def __init__(
        self, lm: CausalLM, max_tokens: int, temperature: float, context: int,
        memory: int | None, seed: int,
    ) -> None:  # fmt: skip
        self.lm, self.memory = lm, memory
        self.max_tokens, self.context = max_tokens, min(context, lm.context) - max_tokens
        if self.context < 32:
            raise UserError(
                f"agent.context={context}: too few tokens beside max_tokens={max_tokens}"
            )
        self.generation = Generation(lm, max_tokens, temperature)
        self.noise = seeded(seed, lm.device)
        self.extras: dict[str, Array] = {}

    def carry(self, num_worlds: int) -> Carry:
        """Of every world the tokens so far, the turn that each is of, and their number."""
        shape = (num_worlds, self.context + self.max_tokens + len(self.lm.chat.stop))
        return {
            "ids": np.zeros(shape, np.int32),
            "turn": np.zeros(shape, np.int16),
            "length": np.zeros(num_worlds, np.int64),
            "turns": np.zeros(num_worlds, np.int64),
            "world": np.arange(num_worlds),
        }

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        carry = {key: value.copy() for key, value in carry.items()}
        seen = obs["text"].tolist()
        for i, text in enumerate(seen):
            self._hear(carry, i, text)
        contexts = [
            ids[:length].copy() for ids, length in zip(carry["ids"], carry["length"], strict=True)
        ]
        said = self.generation.reply(contexts, carry["world"], self.noise, greedy)
        actions, malformed = [], []
        for i, reply in enumerate(said.ids):
            ended = reply[-1] == self.lm.chat.stop[-1]
            action = spoken(self.lm.chat.text(reply))
            actions.append(action)
            malformed.append(not (ended and action))
            self._append(carry, i, reply if ended else np.append(reply, self.lm.chat.stop))
            carry["turns"][i] += 1
        self.extras = {
            "context": _objects(contexts),
            "reply": _objects(said.ids),
            "log_prob": _objects(said.log_probs),
            "malformed": np.array(malformed),
        }
        return carry, texts(actions)

    def _hear(self, carry: Carry, i: int, text: str) -> None:
        chat, started = self.lm.chat, carry["length"][i] > 0
        heard = chat.following(text) if started else chat.first(text)
        room = (self.context - self.max_tokens - len(chat.stop)) // 2  # beside the first turn
        if len(heard) > room:  # the middle of a long text is left out, its frame stays
            heard = np.concatenate([heard[: room - 16], heard[-16:]])
        self._forget(carry, i, self.context - len(heard))
        self._append(carry, i, heard)

    def _forget(self, carry: Carry, i: int, room: int) -> None:
        """Leave out the oldest turns but the first text, until the rest fits."""
        length, now = carry["length"][i], carry["turns"][i]
        turn = carry["turn"][i, :length]
        oldest = 1 if self.memory is None else max(1, now - self.memory)
        if length > room:  # half of it at once, so that this is not done at every turn
            while oldest < now and (turn >= oldest).sum() + (turn == 0).sum() > room // 2:
                oldest += 1
        keep = (turn == 0) | (turn >= oldest)
        if not keep.all():
            count = int(keep.sum())
            for key in ("ids", "turn"):
                carry[key][i, :count] = carry[key][i, :length][keep]
            carry["length"][i] = count

    def _append(self, carry: Carry, i: int, ids: np.ndarray) -> None:
        start = carry["length"][i]
        carry["ids"][i, start : start + len(ids)] = ids
        carry["turn"][i, start : start + len(ids)] = carry["turns"][i]
        carry["length"][i] = start + len(ids)


def spoken(reply: str) -> str:
    """The action in a reply: its first line that is not empty, or what <action> marks."""
    before, tag, rest = reply.partition("<action>")
    if tag:
        reply = rest.partition("</action>")[0]
    return next((line.strip() for line in reply.splitlines() if line.strip()), "")


def _objects(rows: list[np.ndarray]) -> np.ndarray:
    out = np.empty(len(rows), object)
    out[:] = rows
    return out
