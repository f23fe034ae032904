"""A reward model that another process runs, or another machine: see `embodied serve`.

What one can keep on a machine of its own: a judge that needs a GPU, or packages that conflict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from embodied.errors import UserError
from embodied.remote import (
    TOKEN_ENV,
    Carried,
    Link,
    RemoteFault,
    describe_space,
    differences,
    printable,
    taken,
)
from embodied.reward_model import Needs
from embodied.trajectory_packets import pack_moment, parts
from embodied.types import (
    ABSTAINED,
    FAILED,
    SCORED,
    SILENT,
    Array,
    Carry,
    Moment,
    Score,
    Trajectory,
)

STATUSES = (SCORED, SILENT, ABSTAINED, FAILED)

LOST = "remote.lost"
"""What is carried beside what the model carries: worlds `(N,)` whose memory is not what it should
be, since an answer did not come. They fail until their next episode."""


class Remote:
    """The reward model behind `url` (`ws://HOST:PORT`, or `wss://`), which judges as it would here.

    Its carry goes with every request. What has no answer `deadline_s` seconds after it was asked
    has failed, as have the further steps of the episode where the model remembers its states;
    nothing is raised. The environment variable `token_env` holds the token, if there is one; `ca`
    is a file with the certificates to trust (the system's by default). `path` is where its audit
    is kept. Raises `UserError` where no reward model is served there, or one of other worlds.
    """

    def __init__(
        self,
        url: str | None = None,
        deadline_s: float = 30.0,
        token_env: str = TOKEN_ENV,
        ca: str | None = None,
        path: str | None = None,
        observation_space: gym.spaces.Dict | None = None,
    ) -> None:
        if url is None:
            raise UserError(
                "reward_model.remote.url: say where it is served, as ws://127.0.0.1:8765"
            )
        self.path = path
        self.link = Link(url, "reward", deadline_s, token_env, ca)
        hello = self.link.hello
        try:
            self._take_hello(hello)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{url} does not say what its model is: {error}") from error
        if observation_space is not None and not self.blind:
            wrong = differences("observation", describe_space(observation_space), hello["obs"])
            if wrong:
                raise UserError(f"{url} serves a model of other worlds: {'; '.join(wrong)}")

    def _take_hello(self, hello: Mapping[str, Any]) -> None:
        self.kind, self.scope = str(hello["model"]), str(hello["scope"])
        self.causal, self.learned = bool(hello["causal"]), bool(hello["learned"])
        self.blind = bool(hello["blind"])
        low, high = hello["value_range"]
        self.value_range = float(low), float(high)
        needs = hello["needs"]
        self.needs = Needs(
            frozenset(map(str, needs["readouts"])),
            tuple(map(str, needs["cameras"])),
            int(needs["image_size"]),
            int(needs["stride"]),
            frozenset(map(str, needs["privileged"])),
        )
        self.served = {"name": printable(hello["name"], 80), "hash": printable(hello["hash"], 80)}
        self._most = int(hello["most"]["bytes"]) * 15 // 16
        self._carried = Carried(hello["carry"])

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        worlds = len(mask)
        carry, lost = self._split(carry, worlds)
        mask = np.asarray(mask)
        request = {
            "op": "begin",
            "carry": carry,
            "mask": mask,
            **pack_moment(moment, self.needs, self.blind),
        }
        try:
            answer = self.link.ask(request)
            value = np.array(taken(answer, "value", (worlds,), "f"), np.float32)
            return self._join(self._carried.read(answer, worlds), lost & ~mask), value
        except RemoteFault:
            # Without a memory the further steps are judged: no value was known before the first.
            unknown = self.value_range[0] if self._carried else np.nan
            return self._join(carry, lost | mask), np.full(worlds, unknown, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        worlds = traj.shape[1]
        carry, lost = self._split(carry, worlds)
        value = np.full(traj.shape, self.value_range[0], np.float32)
        status = np.full(traj.shape, FAILED, np.int8)
        terms: dict[str, np.ndarray] = {}
        until, at, broken = time.monotonic() + self.link.deadline_s, 0, False
        try:
            for part in parts(traj, self.needs, self.blind, self._most) if not lost.all() else ():
                lead = part["terminated"].shape
                answer = self.link.ask({"op": "score", "carry": carry, **part}, until)
                told, after = _read_score(answer, lead), self._carried.read(answer, worlds)
                rows = slice(at, at + lead[0])
                value[rows], status[rows] = told.value, told.status
                for name, some in told.terms.items():
                    terms.setdefault(name, np.full(traj.shape, np.nan, np.float32))[rows] = some
                carry, at = after, at + lead[0]
        except RemoteFault:
            broken = bool(self._carried)
        status[:, lost] = FAILED
        return self._join(carry, lost | broken), Score(value, status, terms)

    def state_dict(self) -> dict[str, Any]:
        """Which model it is: its weights are with whoever serves it."""
        return dict(self.served)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if dict(state) != self.served:
            then, now = (f"{row.get('name')}@{row.get('hash')}" for row in (state, self.served))
            raise UserError(
                f"{self.link.url} serves {now}, but the checkpoint was made with {then}"
            )

    def _split(self, carry: Carry, worlds: int) -> tuple[Carry, Array]:
        """The model's own carry, and which worlds are lost."""
        own = {name: value for name, value in carry.items() if name != LOST}
        return own, np.asarray(carry.get(LOST, np.zeros(worlds, bool)))

    def _join(self, carry: Carry, lost: Array) -> Carry:
        return {**carry, LOST: lost} if self._carried else {}


def _read_score(answer: Mapping[str, Any], lead: tuple[int, ...]) -> Score:
    value, status = taken(answer, "value", lead, "f"), taken(answer, "status", lead, "i")
    terms = answer.get("terms")
    if not isinstance(terms, dict) or not np.isin(status, STATUSES).all():
        raise RemoteFault("malformed", "a score without terms, or of unknown status")
    return Score(value, status, {name: taken(terms, name, lead, "biuf") for name in terms})
