"""A guard, a simulated robot and a policy in one process, on a clock that only ticks when told.

Nothing here is real time, so that what the guard does can be tested to the tick.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from embodied.deploy.body import Body
from embodied.deploy.fit import body_settings, start_pose
from embodied.deploy.guard import Guard
from embodied.deploy.limits import Limiter
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import Message
from embodied.deploy.plant import Plant
from embodied.deploy.requests import Mode, Request, Wish, read_state, request_row, slots
from embodied.deploy.robot_map import RobotMap
from embodied.deploy.transport import Received


class Loop:
    """One end of a transport within a process; `peer` is the other, `now` the time of both."""

    name, rejected, lost = "loop", 0, 0
    connected = True

    def __init__(self) -> None:
        self.peer: Loop | None = None
        self.inbox: deque[Received] = deque()
        self.kinds: dict[str, type[Message]] = {}
        self.now_ns = 0

    def advertise(self, topic: str, kind: type[Message]) -> None:
        pass

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        self.kinds[topic] = kind

    def publish(self, topic: str, message: Message) -> bool:
        assert self.peer is not None
        if isinstance(message, self.peer.kinds.get(topic, ())):
            self.peer.inbox.append(Received(topic, message, self.peer.now_ns))
        return self.connected

    def take(self) -> list[Received]:
        taken = list(self.inbox)
        self.inbox.clear()
        return taken

    def close(self) -> None:
        pass


def pair() -> tuple[Loop, Loop]:
    one, other = Loop(), Loop()
    one.peer, other.peer = other, one
    return one, other


class Rehearsal:
    """Link of a `RobotSim` (see there) to a guard and a plant that tick together, in `env`."""

    def __init__(
        self, env: Any, robot: RobotMap, sizes: tuple[int, int], shadow: bool = False
    ) -> None:
        self.robot, self.task = robot, env.task
        self.ours, self.theirs = pair()
        self.plant = Plant(env, robot, self.theirs)  # type: ignore[arg-type]
        self.mailbox = Mailbox(slots(len(robot.joints), *sizes))
        self.sizes = sizes
        self.events: list[tuple[int, str, str]] = []
        self.sent: list[tuple[int, np.ndarray]] = []
        tick_s = 1.0 / robot.guard_hz
        body = Body(**body_settings(robot, env.task))
        self.limiter = Limiter(robot.joints, robot.safety, body, tick_s)
        self.guard = Guard(
            robot, self.limiter, self.ours, self.mailbox, sizes,  # type: ignore[arg-type]
            np.array(start_pose(robot, env.task)),
            tell=lambda *event: self.events.append(event), shadow=shadow,
        )  # fmt: skip
        self.now_ns, self.period_ns = 1_000_000_000, round(1e9 * tick_s)
        self.number = self.seed = 0

    def tick(self, count: int = 1) -> None:
        """Let the world, then the guard, go `count` ticks on."""
        for _ in range(count):
            self.now_ns += self.period_ns
            self.ours.now_ns = self.theirs.now_ns = self.now_ns
            self.plant.hear()
            self.plant.step()
            self.plant.speak(self.now_ns)
            self.guard.tick(self.now_ns)

    def ask(self, wish: Wish, target: np.ndarray | None = None) -> None:
        state = read_state(self.mailbox)
        self.number += 1
        seen_ns = 0 if state is None else state.received_ns
        where = np.zeros(len(self.robot.joints)) if target is None else target
        zeros = np.zeros(self.sizes[0]), np.zeros(self.sizes[1])
        request = Request(self.number, wish, seen_ns, where, *zeros)
        self.mailbox.write("request", request_row(request))

    # --- what a RobotSim is linked to ------------------------------------------------------------

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        state = read_state(self.mailbox)
        assert state is not None
        return state.q, state.v

    def objects(self) -> dict[str, np.ndarray]:
        sim = self.plant.sim
        free = [name for name in self.task.tracked]
        return {name: sim.qpos[0, sim.joint(name)[0]].copy() for name in free}

    def command(self, target: np.ndarray) -> None:
        self.ask(Wish.RUN, target)
        self.tick(round(self.robot.guard_hz / self.robot.rate_hz))

    def prepare(self, target: np.ndarray) -> None:
        self.ask(Wish.FORGET)
        self.tick()
        self.plant.reset(self.seed)
        self.tick(20)

    def failed(self) -> bool:
        return self.guard.mode == Mode.TRIPPED
