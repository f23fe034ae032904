"""From where joints should be to where they may be told to be, one tick of the guard later.

A tick moves joints within their limits of position, speed and acceleration. Then the margins of
the robot's body (`embodied.deploy.body`) may not shrink faster than in proportion to what is left
of them, which is the condition of a discrete-time control barrier function (Agrawal and Sreenath,
RSS 2017): they shrink ever slower and never become negative. At the walls of the workspace the
motion is bent along them; near self-collision or a singularity all of it is scaled down. Where
they solve a quadratic program, this takes the nearest point on one wall at a time and then the
largest share of the motion that fits, which takes as long in the worst case as in any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from embodied.deploy.body import MARGINS, Body
from embodied.deploy.robot_map import Joint, Safety

HALVINGS = 6
"""Of the search for the share of a motion that fits."""
TINY = 1e-9


class Limiter:
    """The command of now: `q` and `v` `(A,)`, in rad and m and a second, and what follows it."""

    def __init__(
        self, joints: Sequence[Joint], safety: Safety, body: Body | None, tick_s: float
    ) -> None:
        self.low = np.array([joint.low for joint in joints])
        self.high = np.array([joint.high for joint in joints])
        self.speed = np.array([joint.velocity for joint in joints])
        self.rise = np.array([joint.acceleration for joint in joints])
        self.safety, self.body, self.tick_s = safety, body, tick_s
        self.q = np.zeros(len(joints))
        self.v = np.zeros(len(joints))
        self._fall = np.zeros(len(joints))

    def start(self, q: np.ndarray) -> None:
        """Begin at rest where the robot is: `q` `(A,)`, brought inside the limits."""
        self.q = np.clip(q, self.low, self.high)
        self.v = np.zeros_like(self.q)

    def follow(
        self, target: np.ndarray, speed: np.ndarray | float = 0.0, pace: float = 1.0
    ) -> list[str]:
        """Move to where `target` `(A,)`, which itself moves at `speed` `(A,)`, is after this tick.

        As fast as the limits let it catch up, and no faster than `pace` times the joints' speeds.
        Returns what kept it from being there: "position", "velocity", "acceleration", or names of
        `MARGINS`.
        """
        inside = np.clip(target, self.low, self.high)
        held = ["position"] if np.any(np.abs(inside - target) > TINY) else []
        away = inside - speed * self.tick_s - self.q
        closing = np.minimum(np.abs(away) / self.tick_s, self._braking(np.abs(away)))
        wanted = speed + np.sign(away) * closing
        v = np.clip(wanted, -self.speed * pace, self.speed * pace)
        if np.any(np.abs(v - wanted) > TINY):
            held.append("velocity")
        reach = self.rise * self.tick_s
        eased = np.clip(v, self.v - reach, self.v + reach)
        if np.any(np.abs(eased - v) > TINY):
            held.append("acceleration")
        eased = np.minimum(eased, self._braking(self.high - self.q))
        return held + self._move(np.maximum(eased, -self._braking(self.q - self.low)))

    def brake(self) -> None:
        """From now on `stop` comes to rest within `stop_s`."""
        self._fall = np.abs(self.v) / max(1.0, math.floor(self.safety.stop_s / self.tick_s))

    def stop(self) -> None:
        """Go on slowing down, in the direction of now."""
        v = np.sign(self.v) * np.maximum(np.abs(self.v) - self._fall, 0.0)
        self._move(np.where(np.abs(v) < TINY, 0.0, v))

    def _braking(self, distance: np.ndarray) -> np.ndarray:
        """The speed from which, tick by tick, one can still stop within `distance` `(A,)`."""
        half = 0.5 * self.rise * self.tick_s
        return np.sqrt(half * half + 2.0 * self.rise * np.maximum(distance, 0.0)) - half

    def _move(self, v: np.ndarray) -> list[str]:
        """Move for a tick at `v`, or as much of that as the margins let through."""
        step = np.clip(self.q + v * self.tick_s, self.low, self.high) - self.q
        held: list[str] = []
        if self.body is not None and step.any():
            step, held = self._fitting(self.body, step)
        self.q = self.q + step
        self.v = step / self.tick_s
        return held

    def _fitting(self, body: Body, step: np.ndarray) -> tuple[np.ndarray, list[str]]:
        now = body.margins(self.q)
        least = np.where(now > 0.0, -self.safety.approach * now, 0.0)
        floor = np.where(now > 0.0, (1.0 - self.safety.approach) * now, now)
        step, held = self._along_walls(step, body.slopes(), least)
        if self._fits(body, step, floor):
            return step, held
        low, high = 0.0, 1.0
        broken = body.margins(self.q + step) < floor - TINY
        held += [
            name for name, bad in zip(MARGINS, broken, strict=True) if bad and name not in held
        ]
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._fits(body, middle * step, floor) else (low, middle)
        return low * step, held

    def _fits(self, body: Body, step: np.ndarray, floor: np.ndarray) -> bool:
        return bool(np.all(body.margins(self.q + step) >= floor - TINY))

    def _along_walls(
        self, step: np.ndarray, slopes: np.ndarray, least: np.ndarray
    ) -> tuple[np.ndarray, list[str]]:
        """The nearest motion to `step` that the walls let through, in joints' own speeds.

        `slopes` `(3, A)` are the tool's, `least` `(8,)` how the margins may change.
        """
        held = []
        weight = self.speed * self.speed  # fast joints do more of it
        for i, name in enumerate(MARGINS[2:], 2):
            if not math.isfinite(least[i]):
                continue
            slope = slopes[(i - 2) // 2] * (1.0 if i % 2 == 0 else -1.0)
            lacks = least[i] - float(slope @ step)
            if lacks > TINY:
                held.append(name)
                step = step + weight * slope * (lacks / (float(slope @ (weight * slope)) + TINY))
        share = np.max(np.abs(step) / (self.speed * self.tick_s), initial=0.0)
        return step / max(1.0, float(share)), held
