"""One session with a robot: what a task's simulator, which is the robot, is linked to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from embodied.deploy.bench import Bench
from embodied.deploy.in_hand import InHand
from embodied.deploy.keeper import Keeper
from embodied.deploy.requests import Mode, State, Wish
from embodied.deploy.robot_map import RobotMap

THERE = 0.02
"""How near (rad or m) joints must come to where an episode starts."""
MOVE_S = 60.0
SETTLE_S, POLL_S = 10.0, 0.05
ON_THE_WAY_S = 0.1
"""In which what was sent before has come."""


class Tracker(Protocol):
    """What tells where objects are: `embodied.deploy.eyes.Eyes`."""

    def sightings(self) -> Mapping[str, tuple[int, np.ndarray]]:
        """By name, when an object was last seen (ns, the camera's clock), and where `(7,)`."""

    def define(self, half_m: Mapping[str, float]) -> None:
        """Say how large cubes are now, and that they were put anew."""

    def age_s(self) -> float:
        """How long ago the newest image came."""

    def wait(self, timeout_s: float) -> None:
        """Wait until every object was seen anew. Raises `UserError` after `timeout_s`."""


class Session:
    """The guard's keeper, the tracker of objects, and the bench where the robot is simulated.

    `in_hand` carries what the hand holds between one image and the next.

    `prepare` is what an operator does between episodes: a simulated world is put at the start of
    `seed`; a real robot is moved to its start by the guard, slowly, and its objects are waited for.
    """

    def __init__(
        self,
        robot: RobotMap,
        keeper: Keeper,
        tracker: Tracker | None = None,
        bench: Bench | None = None,
        shadow: bool = False,
        in_hand: InHand | None = None,
    ) -> None:
        self.robot, self.keeper, self.tracker, self.bench = robot, keeper, tracker, bench
        self.in_hand, self.shadow, self.seed = in_hand, shadow, 0
        self._measured = np.zeros(len(robot.joints)), 0
        self.blind = 0
        """Steps in which no action was asked for, since the camera was silent."""

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        state = self.keeper.state
        self.keeper.seen_ns = state.received_ns
        self._measured = state.q, state.stamp_ns
        return state.q, state.v

    def objects(self) -> Mapping[str, np.ndarray]:
        """Poses `(7,)` by name: as last seen, or as carried to where the joints last were."""
        if self.tracker is None:
            return {}
        seen = self.tracker.sightings()
        if self.in_hand is None:
            return {name: pose for name, (_, pose) in seen.items()}
        return self.in_hand.poses(seen, *self._measured)

    def command(self, target: np.ndarray) -> None:
        if self.tracker is not None and self.tracker.age_s() > self.robot.watchdog.image_s:
            self.blind += 1  # the guard, who hears of no action, holds the robot
            return
        self.keeper.ask(Wish.RUN, target)

    def failed(self) -> bool:
        return self.keeper.state.mode == Mode.TRIPPED

    def arm(self) -> None:
        """Arm the guard again, where it has tripped. Raises `UserError` where it cannot be."""
        number = self.keeper.ask(Wish.ARM)
        modes = (Mode.IDLE, Mode.WAITING)
        self.keeper.wait_for(number, modes, SETTLE_S, "the guard cannot be armed")

    def wait_armed(self) -> None:
        """Wait until somebody arms the guard, however long that takes."""
        while self.failed():
            time.sleep(POLL_S)

    def prepare(self, target: np.ndarray) -> None:
        keeper = self.keeper
        if self.bench is not None:
            self._forget()
            told = self.bench.reset(self.seed)
            if self.tracker is not None:
                self.tracker.define(told["half_m"])
                if self.in_hand is not None:
                    self.in_hand.define(told["half_m"])
            time.sleep(ON_THE_WAY_S)
            number = self._forget()
            if keeper.state.mode == Mode.TRIPPED:
                time.sleep(ON_THE_WAY_S)
                self.arm()
            keeper.wait_for(number, (Mode.IDLE,), SETTLE_S, self._silence())
        elif not self.shadow:
            if self.in_hand is not None:
                self.in_hand.forget()
            number = keeper.ask(Wish.MOVE, target)

            def there(state: State) -> bool:
                return bool(np.all(np.abs(state.q - target) < THERE))

            late = "the robot does not get to its start"
            keeper.wait_for(number, (Mode.MOVING,), MOVE_S, late, there)
            keeper.ask(Wish.NOTHING)
        if self.tracker is not None:
            self.tracker.wait(SETTLE_S)

    def _forget(self) -> int:
        """Have the guard believe where the robot says it is, wherever that is."""
        number = self.keeper.ask(Wish.FORGET)
        self.keeper.wait(lambda s: s.number >= number, SETTLE_S, "the guard does not answer")
        return number

    def _silence(self) -> str:
        return f"no joints are heard on {self.robot.state_topic}"
