"""A remote policy whose server is not what it says; of one that is: `tests/test_serve.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embodied.agents.remote import RemotePolicy

from embodied import remote
from embodied.errors import UserError
from embodied.remote import PROTOCOL, Overdue, RemoteFault, describe_space
from tests.servers import Fake, Talk
from tests.toys import reach

ENV = reach(2)
assert ENV.action_spec is not None
HELLO = {
    "protocol": PROTOCOL,
    "kind": "policy",
    "name": "fake@0",
    "hash": "0",
    "obs": describe_space(ENV.observation_space),
    "carry": {"count": {"shape": [], "dtype": "int64"}},
    "action_spec": ENV.action_spec.to_dict(),
    "rate_hz": 10.0,
}
OBS, CARRY = {"state": np.zeros((2, 4))}, {"count": np.zeros(2, np.int64)}
GOOD = {"action": np.ones((2, 2), np.float32), "carry": {"count": np.ones(2, np.int64)}}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)


def answering(*answers: Any) -> Any:
    """A server that gives these answers, one after the other, and nothing for None."""

    def behave(talk: Talk, number: int) -> None:
        for answer in answers:
            asked = talk.hear()
            if answer is not None:
                talk.say({"id": asked["id"], **answer})
        talk.hear()

    return behave


WRONG: dict[str, dict[str, Any]] = {
    "no action": {"action": None},
    "action in words": {"action": "left"},
    "actions of fewer worlds": {"action": np.ones((1, 2), np.float32)},
    "too few numbers": {"action": np.ones((2, 1), np.float32)},
    "too many axes": {"action": np.ones((2, 2, 1), np.float32)},
    "truths": {"carry": {"count": np.ones(2, bool)}},
    "no carry": {"carry": None},
    "another carry": {"carry": {"other": np.ones(2, np.int64)}},
    "a carry of more worlds": {"carry": {"count": np.ones(3, np.int64)}},
}


def test_wrong_answers_are_faults_and_the_next_is_heard() -> None:
    wrong = [{**GOOD, **parts} for parts in WRONG.values()]
    with Fake(HELLO, answering(*wrong, GOOD)) as fake:
        policy = RemotePolicy(fake.url, 10.0)
        for name in WRONG:
            with pytest.raises(RemoteFault, match="malformed"):
                pytest.fail(f"{name}: {policy.act(CARRY, OBS)}")
        carry, action = policy.act(CARRY, OBS)
        assert (action == 1).all() and (carry["count"] == 1).all()
        assert fake.connections == 1


def test_what_comes_back_may_be_written_to() -> None:
    with Fake(HELLO, answering(GOOD, GOOD)) as fake:
        policy = RemotePolicy(fake.url, 10.0)
        fresh = policy.carry(2)
        fresh["count"][:] = 5
        assert (policy.carry(2)["count"] == 1).all()  # asked once
        carry, action = policy.act(fresh, OBS)
        action[:], carry["count"][:] = 2, 2


def test_an_action_that_does_not_come_is_overdue_and_the_next_is_heard() -> None:
    with Fake(HELLO, answering(None, GOOD)) as fake:
        policy = RemotePolicy(fake.url, 0.2)
        with pytest.raises(Overdue):
            policy.act(CARRY, OBS)
        policy.link.deadline_s = 20.0
        assert (policy.act(CARRY, OBS)[1] == 1).all()


@pytest.mark.parametrize(
    "parts",
    [
        {"action_spec": 3},
        {"action_spec": {"names": 1}},
        {"action_spec": {}},
        {"obs": None},
        {"carry": [1]},
        {"carry": {"count": {}}},
        {"carry": {"count": {"shape": "x", "dtype": "int64"}}},
        {"carry": {"count": {"shape": [], "dtype": "nonsense"}}},
    ],
    ids=str,
)
def test_a_greeting_that_says_nothing_is_the_users_to_fix(parts: dict[str, Any]) -> None:
    with Fake({**HELLO, **parts}, answering()) as fake:
        with pytest.raises(UserError, match="does not say what its policy is"):
            RemotePolicy(fake.url, 10.0)


def test_worlds_of_another_rate_are_refused() -> None:
    spec = {**HELLO["action_spec"], "rate_hz": 50.0, "units": ["rad", "rad"]}
    with Fake({**HELLO, "action_spec": spec}, answering()) as fake:
        policy = RemotePolicy(fake.url, 10.0)
        with pytest.raises(UserError, match="action rate_hz: 10.0 here, 50.0 there; action units"):
            policy.check(ENV.observation_space, ENV.action_spec)
