"""The guard: the only one that speaks to the robot, a fixed number of times a second.

It says what a policy asks for as far as that is safe, and holds the robot where it is when it is
not: at once, and until somebody arms it again where that is called for. It runs in a process of
its own (`embodied.deploy.guard_process`); what it needs to know of time is handed in, so that all
of it can be tested without a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from embodied.deploy.limits import Limiter
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import Flag, Floats, JointState, Message, Text
from embodied.deploy.recorder import ACTION, ASKED, CLAMPED, OBSERVATION
from embodied.deploy.requests import Mode, Request, Wish, read_request, state_row
from embodied.deploy.robot_map import COMMANDS, RobotMap
from embodied.deploy.transport import Transport
from embodied.deploy.watch import StateWatch

GENTLE = 0.25
"""Share of the joints' speeds at which the guard goes somewhere by itself."""
RESUME_S = 0.2
"""How long after a hold until full speed."""
AT_REST = 2e-3
"""How near (rad or m) a command must be to a place to be there."""
GOING = (Mode.IDLE, Mode.RUNNING, Mode.MOVING, Mode.HOLDING)
"""What it may be doing when it is told to go somewhere; held, it goes there afterwards."""
Record = Callable[[str, Message, int], None]


class Guard:
    """One robot's guard; `tick` is called `guard_hz` times a second.

    `record(topic, message, stamp_ns)` keeps what was seen, asked, clamped and sent; `tell(kind,
    what)` is told what happens. In `shadow` everything is done but nothing is sent, and commands
    begin at every tick where the robot is.
    """

    def __init__(
        self,
        robot: RobotMap,
        limiter: Limiter,
        transport: Transport,
        mailbox: Mailbox,
        sizes: tuple[int, int],
        home: np.ndarray,
        record: Record = lambda topic, message, stamp_ns: None,
        tell: Callable[[int, str, str], None] = lambda now_ns, kind, what: None,
        shadow: bool = False,
    ) -> None:
        self.robot, self.limiter, self.transport, self.mailbox = robot, limiter, transport, mailbox
        self.record, self.shadow, self._home = record, shadow, home
        self._tell_them = tell
        self.watch = StateWatch(robot)
        self.mode = Mode.WAITING
        self.reason = ""
        self.stopped = False
        """Whether the emergency stop is pressed."""
        self.trips = self.holds = self.armed = 0
        self._sizes = sizes
        self._names = tuple(joint.name for joint in robot.joints)
        self._number = 0
        self._wish = Wish.NOTHING
        self._since_ns = self._held_ns = self._acted_ns = 0
        self._blend_s = robot.safety.blend_s
        count = len(robot.joints)
        self._from, self._target = np.zeros(count), np.zeros(count)
        self._held_back: frozenset[str] = frozenset()
        self._connected = True
        self._orphaned = False
        transport.subscribe(robot.state_topic, JointState)
        transport.subscribe(robot.stop_topic, Flag)
        transport.subscribe(robot.arm_topic, Flag)
        transport.advertise(robot.status_topic, Text)
        if not shadow:
            transport.advertise(robot.command_topic, COMMANDS[robot.command_kind])

    def tick(self, now_ns: int) -> None:
        """One round: hear, judge, move, send, tell."""
        self._hear(now_ns)
        self._obey(now_ns)
        self._judge(now_ns)
        self._move(now_ns)
        self._share()

    def abandon(self, now_ns: int) -> None:
        """The policy's process is gone: stop for good."""
        if not self._orphaned:
            self._orphaned = True
            if self.mode != Mode.DONE:
                self._trip(now_ns, "policy process gone")

    @property
    def at_rest(self) -> bool:
        return not self.limiter.v.any()

    # --- hearing ---------------------------------------------------------------------------------

    def _hear(self, now_ns: int) -> None:
        for received in self.transport.take():
            topic, message = received.topic, received.message
            self.record(topic, message, received.received_ns)
            if isinstance(message, JointState) and topic == self.robot.state_topic:
                reason = self.watch.see(message, received.received_ns)
                if reason is not None:
                    self._say(now_ns, "refused", reason)
            elif isinstance(message, Flag) and topic == self.robot.stop_topic:
                self._press(now_ns, message.data)
            elif isinstance(message, Flag) and topic == self.robot.arm_topic and message.data:
                self._arm(now_ns)
        if self.transport.connected != self._connected:
            self._connected = self.transport.connected
            self._say(now_ns, "transport", "up" if self._connected else "down")

    def _press(self, now_ns: int, pressed: bool) -> None:
        if pressed and not self.stopped:
            self._trip(now_ns, "emergency stop")
        elif self.stopped and not pressed:
            self._say(now_ns, "released", "emergency stop")
        self.stopped = pressed

    # --- what the policy asks for ----------------------------------------------------------------

    def _obey(self, now_ns: int) -> None:
        request = read_request(self.mailbox, len(self._names), *self._sizes)
        if request is None or request.number == self._number:
            return
        self._number, wish = request.number, request.wish
        if wish == Wish.RUN:
            self._take_action(request, now_ns)
        elif wish == Wish.ARM:
            self._arm(now_ns)
        elif wish == Wish.FORGET:
            self.watch.forget()
            self._idle(now_ns)
            self.mode = Mode.WAITING if self.mode == Mode.IDLE else self.mode
        elif wish == Wish.NOTHING:
            self._idle(now_ns)
        elif np.isfinite(request.target).all() and self.mode in GOING:
            self._target = self._home if wish == Wish.HOME else request.target
            self._enter(now_ns, Mode.MOVING if self.mode != Mode.HOLDING else self.mode, wish)

    def _take_action(self, request: Request, now_ns: int) -> None:
        stamp_ns = now_ns
        if request.observation.size:
            self.record(OBSERVATION, Floats(tuple(request.observation.tolist())), stamp_ns)
        self.record(ACTION, Floats(tuple(request.action.tolist())), stamp_ns)
        seen_ns = time.time_ns() - time.monotonic_ns() + request.seen_ns
        asked = JointState(seen_ns, self._names, tuple(request.target.tolist()))
        self.record(ASKED, asked, stamp_ns)
        age = (now_ns - request.seen_ns) * 1e-9
        if not np.isfinite(request.target).all():
            self._say(now_ns, "refused", "action is not finite")
            return
        if age > self.robot.watchdog.action_s + self.robot.watchdog.observation_s:
            self._say(now_ns, "refused", "action late")
            return
        if self.mode not in (Mode.IDLE, Mode.MOVING, Mode.RUNNING, Mode.HOLDING):
            return
        if self.mode != Mode.RUNNING:
            self._from = self._target = self.limiter.q
        reach = self.robot.safety.step * self.limiter.speed / self.robot.rate_hz
        target = np.clip(request.target, self._target - reach, self._target + reach)
        if np.any(np.abs(target - request.target) > 1e-9):
            self._say(now_ns, "clamp", "step")
        self._from, self._target, self._acted_ns = self._target, target, now_ns
        if self.mode in (Mode.IDLE, Mode.MOVING):
            self._enter(now_ns, Mode.RUNNING, Wish.RUN)

    # --- judging ---------------------------------------------------------------------------------

    def _judge(self, now_ns: int) -> None:
        if self.mode in (Mode.TRIPPED, Mode.DONE):
            return
        problem = self.watch.problem(now_ns)
        if self.mode == Mode.WAITING:
            if problem is None:
                self.limiter.start(self.watch.q)
                self.armed += 1
                self._idle(now_ns, force=True)
            return
        far = np.abs(self.watch.q - self.limiter.q)
        if not self.shadow and np.any(far > self.robot.safety.tracking):
            joint = self._names[int(np.argmax(far))]
            self._trip(now_ns, f"{joint} is not where it was told to be")
            return
        if problem is None and not self._connected:
            problem = "transport down"
        idle_s = (now_ns - self._acted_ns) * 1e-9 if self._wish == Wish.RUN else 0.0
        if problem is None and idle_s > self.robot.watchdog.action_s:
            problem = "action late"
        if problem is not None:
            self._hold(now_ns, problem)
        elif self.mode == Mode.HOLDING:
            self._say(now_ns, "resumed", self.reason)
            self._blend_s, self._since_ns = RESUME_S, now_ns
            self.mode = Mode.RUNNING if self._wish == Wish.RUN else Mode.MOVING
            if self._wish == Wish.NOTHING:
                self.mode = Mode.IDLE

    def _hold(self, now_ns: int, problem: str) -> None:
        if self.mode != Mode.HOLDING:
            self.mode, self._held_ns, self.reason = Mode.HOLDING, now_ns, problem
            self.holds += 1
            self._say(now_ns, "hold", problem)
            self.limiter.brake()
        elif (now_ns - self._held_ns) * 1e-9 > self.robot.watchdog.patience_s:
            self._trip(now_ns, problem)

    def _trip(self, now_ns: int, reason: str) -> None:
        if self.mode == Mode.TRIPPED:
            return
        if self.mode != Mode.HOLDING:
            self.limiter.brake()
        self.mode, self.reason = Mode.TRIPPED, reason
        self.trips += 1
        self._say(now_ns, "trip", reason)

    def _arm(self, now_ns: int) -> None:
        if self.mode != Mode.TRIPPED:
            return
        problem = "emergency stop" if self.stopped else self.watch.problem(now_ns)
        if problem is None and self._orphaned:
            problem = "policy process gone"
        if problem is not None:
            self._say(now_ns, "not armed", problem)
            return
        self.armed += 1
        self._say(now_ns, "armed", "again")
        self.limiter.start(self.watch.q)
        self._blend_s = self.robot.safety.blend_s
        self._idle(now_ns, force=True)

    def _idle(self, now_ns: int, force: bool = False) -> None:
        if force or self.mode in (Mode.RUNNING, Mode.MOVING, Mode.HOLDING):
            if self.limiter.v.any():
                self.limiter.brake()
            self.mode, self._wish, self._since_ns = Mode.IDLE, Wish.NOTHING, now_ns

    def _enter(self, now_ns: int, mode: Mode, wish: Wish) -> None:
        if mode == Mode.RUNNING and self.mode != Mode.RUNNING:
            self._since_ns, self._blend_s = now_ns, self.robot.safety.blend_s
        self.mode, self._wish = mode, wish

    # --- moving ----------------------------------------------------------------------------------

    def _move(self, now_ns: int) -> None:
        if self.mode == Mode.WAITING or self.mode == Mode.DONE:
            return
        if self.shadow:
            self.limiter.start(self.watch.q)
        resting = self.at_rest
        held: list[str] = []
        if self.mode == Mode.RUNNING:
            held = self.limiter.follow(*self._reference(now_ns), self._pace(now_ns))
        elif self.mode == Mode.MOVING:
            held = self.limiter.follow(self._target, pace=GENTLE)
            if self._wish == Wish.HOME and np.all(np.abs(self.limiter.q - self._home) < AT_REST):
                self.mode = Mode.DONE
                self._say(now_ns, "done", "at home")
        else:
            self.limiter.stop()
        self._report(now_ns, frozenset(held))
        if not (self.mode == Mode.TRIPPED and resting):
            self._send(now_ns)

    def _reference(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the command should be after this tick, and its speed: on a straight line from the
        last target to this one, which it reaches when the next action is due."""
        way = self._target - self._from
        passed = ((now_ns - self._acted_ns) * 1e-9 + 1.0 / self.robot.guard_hz) * self.robot.rate_hz
        if passed > 1.0 + 1e-6:
            return self._target, np.zeros_like(way)
        return self._from + way * passed, way * self.robot.rate_hz

    def _pace(self, now_ns: int) -> float:
        if self._blend_s <= 0.0:
            return 1.0
        return min(1.0, 0.02 + (now_ns - self._since_ns) * 1e-9 / self._blend_s)

    def _send(self, now_ns: int) -> None:
        limiter, stamp_ns = self.limiter, time.time_ns()
        clamped = JointState(
            stamp_ns, self._names, tuple(limiter.q.tolist()), tuple(limiter.v.tolist())
        )
        self.record(CLAMPED, clamped, now_ns)
        if self.shadow:
            return
        message = self.robot.command(limiter.q.tolist(), limiter.v.tolist(), stamp_ns)
        if self.transport.publish(self.robot.command_topic, message):
            self.record(self.robot.command_topic, message, now_ns)

    # --- telling ---------------------------------------------------------------------------------

    def _report(self, now_ns: int, held: frozenset[str]) -> None:
        """Say what bends or stops the motion, when that begins; that it is slowed is no news."""
        held -= {"velocity", "acceleration"}
        for name in sorted(held - self._held_back):
            self._say(now_ns, "clamp", name)
        self._held_back = held

    def _say(self, now_ns: int, kind: str, what: str) -> None:
        self._tell_them(now_ns, kind, what)

    def _share(self) -> None:
        watch, limiter = self.watch, self.limiter
        head = (
            watch.received_ns or 0,
            watch.stamp_ns,
            self.mode,
            self._number,
            self.trips,
            self.holds,
            sum(watch.refused.values()),
            self.armed,
        )
        self.mailbox.write("state", state_row(head, watch.q, watch.v, limiter.q))
