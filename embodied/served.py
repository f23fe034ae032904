"""What a server answers, without the server: a policy, or a reward model, asked by messages.

Every request carries all that its answer depends on, and is checked against what was declared
before policy or model sees it. `Refusal` says what is wrong with one; any other exception is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from embodied.agent import Policy
from embodied.errors import UserError
from embodied.packets import MOST_BYTES, BadPacket, take
from embodied.remote import PROTOCOL, describe_space
from embodied.reward_model import RewardModel
from embodied.spaces import vector_size
from embodied.trajectory_packets import unpack, unpack_moment
from embodied.types import Carry, Moment, Obs

Message = dict[str, Any]
Session = dict[str, Carry]
"""What is kept of a connection: its policy's carry, as "carry", where the client keeps none."""


class Refusal(Exception):
    """A request that is not served: `name` is too_large or unknown_session."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


class Served(Protocol):
    """What a server serves."""

    hello: Message
    """What it says of itself to whoever connects."""

    def answer(self, request: Message, session: Session) -> Message:
        """Raises `BadPacket`, `Refusal`, or what the policy or the model raised."""


class ServedPolicy:
    """A policy, asked `{"op": "act", "obs": ..., "greedy": ...}`.

    A client sends the carry along and gets the next one; or it sends none, and says in `reset`
    `(N,)` where episodes begin: then the carry stays here, as long as the connection.
    """

    def __init__(
        self, policy: Policy, space: gym.spaces.Dict, name: str, digest: str, most_worlds: int
    ) -> None:
        if getattr(policy, "speaks", False):
            raise UserError(f"{name}: a policy that speaks is not served")
        self.policy, self.most_worlds = policy, most_worlds
        spec = policy.action_spec
        self.obs = describe_space(space)
        self.carry = describe_carry(policy.carry(1))
        self.hello: Message = {
            "protocol": PROTOCOL,
            "kind": "policy",
            "name": name,
            "hash": digest,
            "obs": self.obs,
            "carry": self.carry,
            "action_spec": None if spec is None else spec.to_dict(),
            "rate_hz": None if spec is None else float(spec.rate_hz),
            "most": {"bytes": MOST_BYTES, "worlds": most_worlds},
        }

    def answer(self, request: Message, session: Session) -> Message:
        match request.get("op"):
            case "act":
                return self._act(request, session)
            case "carry":
                worlds = request.get("worlds")
                if type(worlds) is not int or worlds < 1:
                    raise BadPacket("worlds: a whole number >= 1 is wanted")
                self._check_worlds(worlds)
                return {"carry": self.policy.carry(worlds)}
        raise BadPacket("op: act or carry")

    def _act(self, request: Message, session: Session) -> Message:
        obs = read_obs(request, self.obs)
        worlds = len(next(iter(obs.values())))
        self._check_worlds(worlds)
        greedy = request.get("greedy", False)
        if type(greedy) is not bool:
            raise BadPacket("greedy: true or false")
        if "carry" in request:
            carry = read_carry(request, self.carry, worlds)
            after, action = self.policy.act(carry, obs, greedy)
            return {"carry": after, "action": np.asarray(action)}
        carry = self._kept(request, session, worlds)
        session["carry"], action = self.policy.act(carry, obs, greedy)
        return {"action": np.asarray(action)}

    def _kept(self, request: Message, session: Session, worlds: int) -> Carry:
        """The carry that was kept of a connection, begun anew where `reset` says so."""
        reset = np.zeros(worlds, bool)
        if "reset" in request:
            reset = take(request, "reset", (worlds,), "b")
        if not self.carry:
            return {}
        fresh, kept = self.policy.carry(worlds), session.get("carry")
        if reset.all():
            return fresh
        if kept is None or any(len(value) != worlds for value in kept.values()):
            raise Refusal("unknown_session", "nothing is known of these worlds: reset all of them")
        return {
            key: np.where(reset.reshape(-1, *(1,) * (value.ndim - 1)), fresh[key], value)
            for key, value in kept.items()
        }

    def _check_worlds(self, worlds: int) -> None:
        if worlds > self.most_worlds:
            raise Refusal("too_large", f"{self.most_worlds} worlds at most")


class ServedReward:
    """A reward model of states, asked as its contract says, as "begin" and "score".

    The carry travels: an answer depends on its request alone, so that a run that goes on from a
    checkpoint, or after the server was started anew, is told what it would have been told.
    """

    def __init__(self, model: RewardModel, space: gym.spaces.Dict, name: str, digest: str) -> None:
        for part, what in (("over", "combines other models"), ("learn", "learns as it is used")):
            if hasattr(model, part):
                raise UserError(f"reward_model={name} {what}: it is not served")
        self.model, self.space = model, space
        self.obs = describe_space(space)
        needs = model.needs
        self.carry = describe_carry(self._probe())
        low, high = model.value_range
        self.hello: Message = {
            "protocol": PROTOCOL,
            "kind": "reward",
            "name": name,
            "hash": digest,
            "obs": self.obs,
            "carry": self.carry,
            "model": model.kind,
            "scope": model.scope,
            "causal": bool(model.causal),
            "learned": bool(getattr(model, "learned", False)),
            "blind": bool(getattr(model, "blind", False)),
            "value_range": [float(low), float(high)],
            "needs": {
                "readouts": sorted(needs.readouts),
                "cameras": list(needs.cameras),
                "image_size": int(needs.image_size),
                "stride": int(needs.stride),
                "privileged": sorted(needs.privileged),
            },
            "most": {"bytes": MOST_BYTES},
        }

    def _probe(self) -> Carry:
        """What the model carries of a world, asked of one in which all is zero."""
        size = self.model.needs.image_size
        obs = {key: np.zeros((1, *row["shape"]), row["dtype"]) for key, row in self.obs.items()}
        images = {c: np.zeros((1, size, size, 3), np.uint8) for c in self.model.needs.cameras}
        return self.model.begin({}, np.ones(1, bool), Moment(obs, images, ("",)))[0]

    def answer(self, request: Message, session: Session) -> Message:
        match request.get("op"):
            case "begin":
                return self._begin(request)
            case "score":
                return self._score(request)
        raise BadPacket("op: begin or score")

    def _begin(self, request: Message) -> Message:
        mask = np.array(take(request, "mask", (None,), "b"))
        moment = unpack_moment(request, len(mask), int(mask.sum()), self.model.needs)
        self._check_obs(moment.obs, 1)
        carry = {}
        if request.get("carry"):
            carry = read_carry(request, self.carry, len(mask))
        after, value = self.model.begin(carry, mask, moment)
        return {"carry": after, "value": np.asarray(value, np.float32)}

    def _score(self, request: Message) -> Message:
        traj = unpack(request, self.model.needs)
        for obs, lead in ((traj.obs, 2), (traj.last_obs, 1), (traj.final_obs, 1)):
            self._check_obs(obs, lead)
        carry = read_carry(request, self.carry, traj.shape[1])
        after, score = self.model.score(carry, traj)
        return {
            "carry": after,
            "value": np.asarray(score.value, np.float32),
            "status": np.asarray(score.status, np.int8),
            "terms": {name: np.asarray(value) for name, value in score.terms.items()},
        }

    def _check_obs(self, obs: Obs, lead: int) -> None:
        """Observations are the env's, or, of a dataset, one vector `state`."""
        if not obs and self.hello["blind"]:
            return
        if obs.keys() == {"state"} and self.obs.keys() != {"state"}:
            check_obs(
                obs, {"state": {"shape": [vector_size(self.space)], "dtype": "float32"}}, lead
            )
        else:
            check_obs(obs, self.obs, lead)


def describe_carry(carry: Carry) -> Message:
    """Shape and dtype of one world's part of a carry, by name."""
    arrays = {name: np.asarray(value) for name, value in carry.items()}
    return {
        name: {"shape": list(value.shape[1:]), "dtype": value.dtype.name}
        for name, value in arrays.items()
    }


def read_carry(request: Message, declared: Mapping[str, Any], worlds: int) -> Carry:
    """The carry of a request, a copy. Raises `BadPacket` where it is not as declared."""
    row = request.get("carry")
    if not isinstance(row, dict) or row.keys() != declared.keys():
        raise BadPacket(f"carry: {sorted(declared)} are wanted")
    out = {}
    for name, want in declared.items():
        dtype = np.dtype(want["dtype"])
        value = take(row, name, (worlds, *want["shape"]), dtype.kind)
        if value.dtype != dtype:
            raise BadPacket(f"carry: {name} is of {value.dtype}, not {dtype}")
        out[name] = np.array(value)
    return out


def read_obs(request: Message, declared: Mapping[str, Any]) -> Obs:
    """The observations `(N, ...)` of a request, copies. Raises `BadPacket` where they are not as
    declared."""
    row = request.get("obs")
    if not isinstance(row, dict):
        raise BadPacket("obs: a map is wanted")
    check_obs(row, declared, 1)
    counts = {len(value) for value in row.values()}
    if len(counts) != 1 or counts == {0}:
        raise BadPacket("obs: as many rows of each, and one at least")
    return {key: np.array(value) for key, value in row.items()}


def check_obs(obs: Obs, declared: Mapping[str, Any], lead: int) -> None:
    """Raise `BadPacket` unless observations are as declared, behind `lead` axes. Where a float is
    declared any will do."""
    if obs.keys() != declared.keys():
        raise BadPacket(f"obs: {', '.join(sorted(declared))} are wanted")
    for key, want in declared.items():
        dtype = np.dtype(want["dtype"])
        value = take(obs, key, ((None,) * lead + tuple(want["shape"])), dtype.kind)
        if dtype.kind != "f" and value.dtype != dtype:
            raise BadPacket(f"obs: {key} is of {value.dtype}, not {dtype}")
