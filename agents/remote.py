"""A policy that another process runs, or another machine: see `embodied serve`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from embodied.errors import UserError
from embodied.remote import (
    TOKEN_ENV,
    Carried,
    Link,
    describe_space,
    differences,
    printable,
    taken,
)
from embodied.types import ActionSpec, Array, Carry, Obs


class RemotePolicy:
    """The policy behind `url` (`ws://HOST:PORT`, or `wss://`), which acts as it would here.

    Its carry is the served policy's own and goes with every request, so that nothing is lost with
    a connection. `act` raises `Overdue` where no action has come after `deadline_s` seconds, and
    another `RemoteFault` where none will: whoever moves a robot holds it then. The next call tries
    again. The environment variable `token_env` holds the token, if there is one; `ca` is a file
    with the certificates to trust (the system's by default). Raises `UserError` where no policy is
    served there.
    """

    action_spec: ActionSpec | None

    def __init__(
        self, url: str, deadline_s: float = 2.0, token_env: str = TOKEN_ENV, ca: str | None = None
    ) -> None:
        self.link = Link(url, "policy", deadline_s, token_env, ca)
        hello = self.link.hello
        try:
            spec = hello["action_spec"]
            self.action_spec = None if spec is None else ActionSpec.from_dict(spec)
            self.name = printable(hello["name"], 80)
            self.obs: dict[str, Any] = dict(hello["obs"])
            self._carried = Carried(hello["carry"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{url} does not say what its policy is: {error}") from error
        self._fresh: dict[int, Carry] = {}

    def check(self, space: gym.spaces.Dict, action_spec: ActionSpec | None) -> None:
        """Raise `UserError`, which lists them, where it sees or does other things than these."""
        here = {} if action_spec is None else action_spec.to_dict()
        there = {} if self.action_spec is None else self.action_spec.to_dict()
        wrong = differences("observation", describe_space(space), self.obs)
        wrong += differences("action", here, there)
        if wrong:
            raise UserError(f"{self.link.url} serves a policy of other worlds: {'; '.join(wrong)}")

    def carry(self, num_worlds: int) -> Carry:
        if not self._carried:
            return {}
        if num_worlds not in self._fresh:
            answer = self.link.ask({"op": "carry", "worlds": num_worlds})
            self._fresh[num_worlds] = self._carried.read(answer, num_worlds)
        return {name: value.copy() for name, value in self._fresh[num_worlds].items()}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        worlds = len(next(iter(obs.values())))
        request = {"op": "act", "obs": dict(obs), "carry": dict(carry), "greedy": greedy}
        answer = self.link.ask(request)
        action = answer.get("action")
        axes = action.ndim if isinstance(action, np.ndarray) else 1
        rest = (None,) * (axes - 1) if self.action_spec is None else (self.action_spec.size,)
        after = self._carried.read(answer, worlds)
        return after, np.array(taken(answer, "action", (worlds, *rest), "biuf"))
