"""Policies of text worlds that learned nothing: the gold actions, and a person at a terminal."""

from __future__ import annotations

import numpy as np

from embodied.errors import UserError
from embodied.text_env import TextEnv
from embodied.text_space import texts
from embodied.types import ActionSpec, Carry, Obs


class Gold:
    """Says the actions that solve each episode, and nothing more once they are said."""

    action_spec: ActionSpec | None = None
    speaks = True

    def __init__(self, env: TextEnv) -> None:
        self.env = env
        self._plans: list[list[str]] = [[] for _ in range(env.num_worlds)]

    def carry(self, num_worlds: int) -> Carry:
        return {"turn": np.zeros(num_worlds, np.int64), "world": np.arange(num_worlds)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        new = carry["world"][carry["turn"] == 0]
        if len(new):
            for world, plan in zip(new, self.env.gold(new), strict=True):
                self._plans[world] = plan
        said = [
            plan[turn] if turn < len(plan := self._plans[world]) else ""
            for world, turn in zip(carry["world"], carry["turn"], strict=True)
        ]
        return {**carry, "turn": carry["turn"] + 1}, texts(said)


class Human:
    """Asks a person at the terminal what to say. Raises `UserError` at the end of the input."""

    action_spec: ActionSpec | None = None
    speaks = True

    def carry(self, num_worlds: int) -> Carry:
        return {"world": np.arange(num_worlds)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        said = []
        for text in obs["text"].tolist():
            print(text)
            try:
                said.append(input("> "))
            except EOFError:
                raise UserError("nothing more is said: the talk ends here") from None
        return carry, texts(said)
