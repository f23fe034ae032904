"""What is in the hand moves with the hand, whether or not a camera sees it.

An image is late by the time it is tracked, and fingers hide what they hold. But a cube that the
fingers have closed on goes where they go: from where it was last seen, or was when they closed, it
is carried along by the robot's own kinematics, until the next image that shows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

GRIP_M = 0.006
"""How far the opening of fingers that hold a cube may be from its edge."""
NEAR_M = 0.04
"""How far from the tool the middle of what is held may be."""
KEPT = 20
"""Measurements that are remembered: an image may be as old as they are."""

Sighting = tuple[int, np.ndarray]
"""When it was taken, in ns by the robot's clock, and the pose `(7,)` that it showed."""


class InHand:
    """Poses of cubes with `half_m` half their edges, seen by a camera and carried by `robot`.

    `robot` is a task's (`embodied.envs.tasks.robot.Robot`); `joints` names the measured ones, in
    their order. The camera's clock and the robot's have to agree to some ms, or be far apart: an
    image that seems older than all that is remembered, or not yet taken, counts as taken now.
    """

    def __init__(self, robot: Any, joints: Sequence[str], half_m: Mapping[str, float]) -> None:
        self._chain = robot.kinematics(np)
        self._arm = [joints.index(name) for name in robot.joints]
        self._fingers = [joints.index(name) for name in robot.fingers]
        self._measured: deque[tuple[int, np.ndarray]] = deque(maxlen=KEPT)
        self._shown: dict[str, int] = {}
        self._poses: dict[str, np.ndarray] = {}
        self.define(half_m)

    def define(self, half_m: Mapping[str, float]) -> None:
        """Say how large cubes are now; they are others, or were put anew."""
        self._edges = {name: 2.0 * half for name, half in half_m.items() if half > 0.0}
        self.forget()

    def forget(self) -> None:
        """Forget where everything was, the robot included."""
        self._measured.clear()
        self._shown.clear()
        self._poses.clear()

    def poses(
        self, seen: Mapping[str, Sighting], q: np.ndarray, stamp_ns: int
    ) -> dict[str, np.ndarray]:
        """Where everything that was ever seen is, with the joints at `q` `(A,)` at `stamp_ns`."""
        before = self._measured[-1][1] if self._measured else q
        self._measured.append((stamp_ns, np.array(q)))
        for name, (shown_ns, pose) in seen.items():
            if shown_ns != self._shown.get(name):
                self._shown[name], start = shown_ns, self._at(shown_ns)
            else:
                pose, start = self._poses[name], before
            self._poses[name] = self._carried(self._edges.get(name), pose, start, q)
        return dict(self._poses)

    def _at(self, stamp_ns: int) -> np.ndarray:
        """The joints `(A,)` at that time."""
        times = [stamp for stamp, _ in self._measured]
        if not times[0] <= stamp_ns <= times[-1]:
            return self._measured[-1][1]
        rows = np.stack([q for _, q in self._measured])
        since = np.array(times) - stamp_ns
        return np.array([np.interp(0.0, since, column) for column in rows.T])

    def _carried(
        self, edge: float | None, pose: np.ndarray, start: np.ndarray, q: np.ndarray
    ) -> np.ndarray:
        """The pose after the hand has moved from `start` to `q`, if it holds the cube."""
        if edge is None or not (self._holds(edge, start) and self._holds(edge, q)):
            return pose
        tool, hand = self._hand(start)
        offset = hand.T @ (pose[:3] - tool)
        if np.linalg.norm(offset) > NEAR_M:
            return pose
        to, turned = self._hand(q)
        turn, out = np.zeros(4), np.zeros(4)
        mujoco.mju_mat2Quat(turn, (turned @ hand.T).ravel())
        mujoco.mju_mulQuat(out, turn, pose[3:])
        return np.concatenate([to + turned @ offset, out])

    def _holds(self, edge: float, q: np.ndarray) -> bool:
        return bool(abs(q[self._fingers].sum() - edge) < GRIP_M)

    def _hand(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tool, hand = self._chain.fk(q[self._arm][None])
        return tool[0], hand[0]
