"""Whether what a robot says of its joints can be believed, and is new enough to act on."""

from __future__ import annotations

from collections import deque

import numpy as np

from embodied.deploy.messages import JointState, Malformed
from embodied.deploy.robot_map import RobotMap

INTERVALS = 3
"""Between messages, over which their rate is judged."""
RATE_FACTOR = 2.0
"""By how much that may differ from what the map says."""
CLOCK_WINDOW = 400
"""Messages from which the offset of the robot's clock is learned."""
SETTLING = 5
"""Messages before the rate and the clock are judged: the first come as the transport wakes up."""


class StateWatch:
    """The newest joint state that was believed: `q` and `v` `(A,)`, when it came, what is wrong.

    A state is left out where a joint is missing or a number is none, where its stamp is not after
    the last one's, or where a joint would have had to move too fast to get there. The two clocks
    need not agree: what counts as late is a delay beyond the least one seen.
    """

    def __init__(self, robot: RobotMap) -> None:
        self.robot = robot
        count = len(robot.joints)
        self.q, self.v = np.zeros(count), np.zeros(count)
        self.received_ns: int | None = None
        self.stamp_ns = 0
        self.accepted = 0
        self.refused: dict[str, int] = {}
        self.last_refusal = ""
        self._speed = np.array([joint.velocity for joint in robot.joints])
        self._stamps: deque[int] = deque(maxlen=INTERVALS + 1)
        self._offsets: deque[int] = deque(maxlen=CLOCK_WINDOW)
        self._strikes = 0

    def see(self, state: JointState, received_ns: int) -> str | None:
        """Take in a message; why it was left out, if it was."""
        reason = self._refusal(state, received_ns)
        if reason is not None:
            self.refused[reason] = self.refused.get(reason, 0) + 1
            self.last_refusal = reason
        return reason

    def problem(self, now_ns: int) -> str | None:
        """What is wrong at this time, if anything is."""
        if self.received_ns is None:
            return "no observation"
        limit = self.robot.watchdog.observation_s
        age = (now_ns - self.received_ns) * 1e-9
        if age > limit:
            why = f": {self.last_refusal}" if self.last_refusal else ""
            return f"observation stale{why}"
        if self.accepted < SETTLING:
            return "observations have just begun"
        delay = (self._offsets[-1] - min(self._offsets)) * 1e-9
        if delay + age > limit:
            return "observation late"
        rate = 1e9 * (len(self._stamps) - 1) / max(1, self._stamps[-1] - self._stamps[0])
        wanted = self.robot.state_hz
        if not wanted / RATE_FACTOR <= rate <= wanted * RATE_FACTOR:
            return "observation rate"
        return None

    def forget(self) -> None:
        """Believe the next state wherever it is: the robot was moved while nobody looked."""
        self.received_ns, self.accepted, self._strikes = None, 0, 0
        self._stamps.clear()
        self._offsets.clear()

    def _refusal(self, state: JointState, received_ns: int) -> str | None:
        try:
            position, velocity = self.robot.read(state)
        except Malformed as error:
            return str(error)
        if self.accepted and state.stamp_ns <= self.stamp_ns:
            return "out of order"
        q = np.array(position)
        if self.received_ns is not None and (joint := self._jumped(q, state.stamp_ns)):
            return f"{joint} jumped"
        self.q, self.v = q, np.array(velocity)
        self.received_ns, self.stamp_ns = received_ns, state.stamp_ns
        self.accepted += 1
        self.last_refusal = ""
        self._stamps.append(state.stamp_ns)
        self._offsets.append(received_ns - state.stamp_ns)
        return None

    def _jumped(self, q: np.ndarray, stamp_ns: int) -> str | None:
        """The joint that cannot have got to `q` since the last state."""
        passed_s = max((stamp_ns - self.stamp_ns) * 1e-9, 1.0 / self.robot.state_hz)
        most = self.robot.safety.jump * self._speed * passed_s + 0.01
        far = np.flatnonzero(np.abs(q - self.q) > most)
        return self.robot.joints[far[0]].theirs if len(far) else None
