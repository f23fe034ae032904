"""The guard alone, tick by tick: a robot that does as it is told, and everything that can go wrong.

Ticks are 5 ms. A state is heard in the tick in which it was sent; a policy acts every ten ticks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from embodied.deploy.guard import Guard
from embodied.deploy.limits import Limiter
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import Flag, Floats, JointState
from embodied.deploy.requests import Mode, Request, Wish, read_state, request_row, slots
from tests.deploy.arms import body, robot
from tests.deploy.lockstep import pair

TICK_NS = 5_000_000
START = (-0.3, 0.2)
WITHIN = 20
"""Ticks in which the robot must be on its way to rest: 100 ms."""


class Station:
    """A guard, its robot's topics, and a policy that asks for `target`, with things to break."""

    def __init__(self, shadow: bool = False, with_body: bool = False, **map_is: Any) -> None:
        self.robot = robot(**map_is)
        self.ours, self.theirs = pair()
        self.theirs.subscribe("/commands", Floats)
        self.box = Mailbox(slots(2, 1, 1))
        shape = body([[-2, 2], [-2, 2], [-1, 1]]) if with_body else None
        self.limiter = Limiter(self.robot.joints, self.robot.safety, shape, TICK_NS * 1e-9)
        self.events: list[tuple[str, str]] = []
        self.record: list[tuple[str, Any]] = []
        self.guard = Guard(
            self.robot, self.limiter, self.ours, self.box, (1, 1), np.array([0.5, 1.0]),
            record=lambda topic, message, stamp: self.record.append((topic, message)),
            tell=lambda now, kind, what: self.events.append((kind, what)), shadow=shadow,
        )  # fmt: skip
        self.now = 10**9
        self.ticks = self.number = 0
        self.q = np.array(START)
        self.sent: list[np.ndarray] = []
        self.target: np.ndarray | None = None
        self.speaks = self.acts = True
        self.alter: Any = lambda state: [state]

    def go(self, ticks: int) -> Station:
        for _ in range(ticks):
            self.now += TICK_NS
            self.ours.now_ns = self.theirs.now_ns = self.now
            if self.speaks:
                state = JointState(self.now, ("left", "right"), tuple(self.q.tolist()), (0.0, 0.0))
                for one in self.alter(state):
                    self.theirs.publish("/joint_states", one)
            if self.target is not None and self.acts and self.ticks % 10 == 0:
                self.ask(Wish.RUN, self.target)
            self.guard.tick(self.now)
            for received in self.theirs.take():
                self.q = np.array(received.message.data)  # type: ignore[union-attr]
                self.sent.append(self.q)
            self.ticks += 1
        return self

    def ask(self, wish: Wish, target: Any = (0.0, 0.0)) -> None:
        self.number += 1
        state = read_state(self.box)
        seen = state.received_ns if state is not None else 0
        row = Request(self.number, wish, seen, np.array(target), np.zeros(1), np.zeros(1))
        self.box.write("request", request_row(row))

    def press(self, pressed: bool = True) -> None:
        self.theirs.publish("/stop", Flag(pressed))

    def reasons(self, kind: str) -> list[str]:
        return [what for said, what in self.events if said == kind]

    def assert_rests(self, ticks: int = WITHIN) -> None:
        """Within so many ticks it slows down all the time, comes to rest, and stays there."""
        self.go(ticks)
        steps = np.abs(np.diff(self.sent[-ticks:], axis=0)).max(axis=1) if self.sent else []
        assert not len(steps) or steps[-1] < 1e-12
        count = len(self.sent)
        self.go(5)
        assert all(np.array_equal(q, self.sent[count - 1]) for q in self.sent[count:])


def running(**given: Any) -> Station:
    """A station under way: both joints move at 1 rad/s."""
    station = Station(**given)
    station.go(10)
    assert station.guard.mode == Mode.IDLE
    station.target = station.q.copy()
    for _ in range(8):
        station.target = station.target + 0.05
        station.go(10)
    assert station.guard.mode == Mode.RUNNING
    if not given.get("shadow"):
        assert station.limiter.v == pytest.approx([1.0, 1.0], abs=0.05)
    return station


def test_it_waits_to_be_told_where_the_robot_is_and_holds_it_there() -> None:
    station = Station()
    station.speaks = False
    station.go(5)
    assert station.guard.mode == Mode.WAITING and not station.sent
    station.speaks = True
    station.go(10)
    assert station.guard.mode == Mode.IDLE
    np.testing.assert_allclose(station.sent[-1], START)


def test_an_action_is_followed_smoothly() -> None:
    station = running()
    steps = np.diff(station.sent, axis=0)
    assert np.abs(steps).max() <= 2.0 * 0.005 + 1e-9
    assert np.abs(np.diff(steps, axis=0)).max() <= 10.0 * 0.005**2 + 1e-9
    assert not station.events


STATE_FAULTS = {
    "stops": (lambda s: [], "observation stale"),
    "nan": (lambda s: [change(s, position=(math.nan, s.position[1]))], "stale: a number is not"),
    "missing": (
        lambda s: [JointState(s.stamp_ns, s.names[:1], s.position[:1])],
        "right is missing",
    ),
    "swapped": (lambda s: [change(s, names=s.names[::-1])], "stale: left jumped"),
    "backwards": (lambda s: [change(s, stamp_ns=10**9 - s.stamp_ns % 10**6)], "out of order"),
}


def change(state: JointState, **fields: Any) -> JointState:
    return JointState(**{**vars(state), **fields})


@pytest.mark.parametrize("fault", STATE_FAULTS)
def test_states_that_fail_hold_the_robot_and_then_trip(fault: str) -> None:
    alter, reason = STATE_FAULTS[fault]
    station = running()
    station.alter = alter
    station.go(11)  # 55 ms
    assert station.guard.mode == Mode.HOLDING
    assert reason in station.reasons("hold")[0]
    station.assert_rests(20)
    station.go(80)
    assert station.guard.mode == Mode.TRIPPED
    station.alter = lambda state: [state]
    station.go(40)
    assert station.guard.mode == Mode.TRIPPED, "a trip is latched"


def test_late_states_hold_the_robot() -> None:
    station = running()
    late: list[JointState] = []

    def delay(state: JointState) -> list[JointState]:
        late.append(state)
        return [late.pop(0)] if len(late) > 12 else []  # 60 ms

    station.alter = delay
    station.go(14)
    assert station.guard.mode == Mode.HOLDING
    station.assert_rests()
    assert "observation late" in [
        *station.reasons("hold"),
        station.guard.watch.problem(station.now),
    ]


@pytest.mark.parametrize("every", [4, 5])
def test_a_wrong_rate_holds_the_robot(every: int) -> None:
    station = running()
    count = [0]

    def thin(state: JointState) -> list[JointState]:
        count[0] += 1
        return [state] if count[0] % every == 0 else []

    station.alter = thin
    station.go(20)
    assert station.guard.mode == Mode.HOLDING
    assert station.reasons("hold")[0] == "observation rate"


def test_a_policy_that_stalls_holds_the_robot_until_it_is_back() -> None:
    station = running()
    station.acts = False
    station.go(17)
    assert station.guard.mode == Mode.HOLDING
    assert station.reasons("hold") == ["action late"]
    station.assert_rests()
    station.acts, station.target = True, station.q.copy()
    station.go(12)
    assert station.guard.mode == Mode.RUNNING
    assert station.reasons("resumed") == ["action late"]


def test_a_policy_that_stalls_for_long_trips_the_guard() -> None:
    station = running()
    station.acts = False
    station.go(17 + 101)
    assert station.guard.mode == Mode.TRIPPED
    assert station.reasons("trip") == ["action late"]


def test_a_policy_that_is_gone_trips_it_for_good() -> None:
    station = running()
    station.acts = False
    station.guard.abandon(station.now)
    assert station.guard.mode == Mode.TRIPPED
    station.assert_rests()
    station.theirs.publish("/arm", Flag(True))
    station.go(1)
    assert station.guard.mode == Mode.TRIPPED
    assert station.reasons("not armed") == ["policy process gone"]


def test_a_transport_that_dies_holds_the_robot_and_comes_back() -> None:
    station = running()
    station.ours.connected = False
    station.go(2)
    assert station.guard.mode == Mode.HOLDING
    assert station.reasons("hold") == ["transport down"]
    station.ours.connected = True
    station.go(12)
    assert station.guard.mode == Mode.RUNNING
    assert station.reasons("transport") == ["down", "up"]


def test_the_emergency_stop_trips_at_once_and_arming_waits_until_it_is_released() -> None:
    station = running()
    station.press()
    station.go(1)
    assert station.guard.mode == Mode.TRIPPED
    station.assert_rests()
    sent = len(station.sent)
    station.theirs.publish("/arm", Flag(True))
    station.go(2)
    assert station.guard.mode == Mode.TRIPPED and station.reasons("not armed")
    assert len(station.sent) == sent, "at rest, nothing more is sent"
    station.press(False)
    station.go(1)
    assert station.guard.mode == Mode.TRIPPED, "releasing does not arm"
    station.acts = False
    station.theirs.publish("/arm", Flag(True))
    station.go(1)
    assert station.guard.mode == Mode.IDLE and station.reasons("armed") == ["again"]


def test_after_arming_the_command_begins_where_the_robot_is() -> None:
    station = running()
    station.press()
    station.go(30)
    station.press(False)
    station.acts = False
    station.q = station.q + 0.2  # somebody moved it by hand
    station.guard.watch.forget()
    station.go(10)
    station.theirs.publish("/arm", Flag(True))
    before = station.q.copy()
    station.go(3)
    np.testing.assert_allclose(station.sent[-1], before)


def test_a_command_far_beyond_the_limits_is_clamped_and_said() -> None:
    station = running()
    station.target = np.array([50.0, -50.0])
    station.go(60)
    assert ("clamp", "step") in station.events
    steps = np.abs(np.diff(station.sent, axis=0))
    assert steps.max() <= 2.0 * 0.005 + 1e-9
    station.go(600)
    assert np.abs(station.sent[-1]).max() <= 3.0
    assert ("clamp", "position") in station.events


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_action_that_is_no_number_is_refused_and_then_late(bad: float) -> None:
    station = running()
    station.target = np.array([bad, 0.0])
    station.go(17)
    assert ("refused", "action is not finite") in station.events
    assert station.guard.mode == Mode.HOLDING
    assert np.isfinite(station.sent).all()


def test_an_action_from_an_old_observation_is_refused() -> None:
    station = running()
    station.acts = False
    old = station.now - 200_000_000
    row = Request(10_000, Wish.RUN, old, np.array([2.0, 2.0]), np.zeros(1), np.zeros(1))
    station.box.write("request", request_row(row))
    station.go(1)
    assert ("refused", "action late") in station.events


def test_a_robot_that_does_not_follow_trips_the_guard() -> None:
    station = running()
    stuck = station.q.copy()
    station.alter = lambda state: [change(state, position=tuple(stuck.tolist()))]
    for _ in range(12):
        assert station.target is not None
        station.target = station.target + 0.05
        station.go(10)
    assert station.guard.mode == Mode.TRIPPED
    assert "not where it was told to be" in station.reasons("trip")[0]


def test_the_first_motion_blends_in() -> None:
    station = Station(safety={"blend_s": 1.0})
    station.go(10)
    station.target = station.q + 0.1
    station.go(20)
    steps = np.abs(np.diff(station.sent, axis=0)).max(axis=1)
    assert steps.max() <= 2.0 * 0.005 * (0.02 + 0.1) + 1e-9
    assert station.sent[-1][0] > START[0]


def test_in_shadow_everything_is_recorded_and_nothing_is_sent() -> None:
    station = running(shadow=True)
    assert not station.sent
    topics = {topic for topic, _ in station.record}
    assert {"/joint_states", "/embodied/asked", "/embodied/clamped"} <= topics
    assert "/commands" not in topics
    asked = [m for topic, m in station.record if topic == "/embodied/asked"][-1]
    assert station.target is not None
    assert asked.position == pytest.approx(tuple(station.target))


def test_what_is_sent_is_in_the_record() -> None:
    station = running()
    sent = [m.data for topic, m in station.record if topic == "/commands"]
    assert np.array_equal(sent, station.sent)


def test_it_goes_somewhere_gently_and_home_at_the_end() -> None:
    station = Station()
    station.go(10)
    station.ask(Wish.MOVE, (1.0, -0.5))
    station.go(600)
    np.testing.assert_allclose(station.q, [1.0, -0.5], atol=1e-3)
    assert station.guard.mode == Mode.MOVING
    assert np.abs(np.diff(station.sent, axis=0)).max() <= 0.25 * 2.0 * 0.005 + 1e-9
    station.ask(Wish.HOME)
    station.go(900)
    assert station.guard.mode == Mode.DONE
    np.testing.assert_allclose(station.q, [0.5, 1.0], atol=5e-3)


def test_told_to_go_home_while_it_is_held_it_goes_there_afterwards() -> None:
    station = running()
    station.acts = False
    station.go(17)
    assert station.guard.mode == Mode.HOLDING
    station.ask(Wish.HOME)
    station.go(900)
    assert station.guard.mode == Mode.DONE
    np.testing.assert_allclose(station.q, [0.5, 1.0], atol=5e-3)


def test_a_simulated_robot_that_is_put_elsewhere_is_believed_again() -> None:
    station = running()
    station.acts = False
    station.ask(Wish.FORGET)
    station.go(1)
    assert station.guard.mode == Mode.WAITING
    station.q = np.array([-1.0, 1.0])
    station.go(10)
    assert station.guard.mode == Mode.IDLE
    np.testing.assert_allclose(station.sent[-1], [-1.0, 1.0])


def test_the_policy_is_told_what_the_guard_does() -> None:
    station = running()
    station.press()
    station.go(1)
    state = read_state(station.box)
    assert state is not None
    assert state.mode == Mode.TRIPPED and state.trips == 1 and state.holds == 0
    assert state.number == station.number
    np.testing.assert_allclose(state.command, station.sent[-1])
