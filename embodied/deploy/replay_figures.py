"""What is found in a record: what the policy answers now, delays, gaps, events, limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embodied.deploy.bag import Bag
from embodied.deploy.recorder import END, START
from embodied.deploy.replay_record import AT_ONCE_NS, SENT, Record, Step, plain

SLACK = 1e-6
"""How far (rad, m, or as a share of a speed) over a limit counts as rounding."""
LONG = 2.0
"""A pause this many times as long as most is a gap."""
MOST_DELAY_NS = 10**10
"""Of what is told of when the policy's observation came; more is no delay but another clock."""


@dataclass(frozen=True)
class Comparison:
    """What a policy answers now, beside what is in the record."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    steps: list[Step]
    """Those whose answer was recorded, `T` of them."""
    recorded: np.ndarray  # (T, A)
    answered: np.ndarray  # (T, A)
    difference: np.ndarray  # (T, A) as a share of each component's range
    tolerance: float

    @property
    def apart(self) -> np.ndarray:
        """How far `(T, A)` they are from each other, in the units of the action."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.abs(self.recorded - self.answered)

    @property
    def equal(self) -> np.ndarray:
        """Steps `(T,)` that are equal bit for bit."""
        return (self.difference == 0.0).all(axis=1)

    @property
    def first(self) -> int | None:
        """The first step that differs by more than the tolerance, else the first that differs."""
        for wrong in (self.difference > self.tolerance, self.difference > 0.0):
            if wrong.any():
                return int(np.argmax(wrong.any(axis=1)))
        return None

    @property
    def matches(self) -> bool:
        return bool((self.difference <= self.tolerance).all())


@dataclass(frozen=True)
class Spread:
    """Times in ms: how many, the middle one, one in a hundred, the longest."""

    count: int
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Excess:
    """By how much (rad, m, rad/s, m/s) what was sent went beyond a limit, at most, how often, and
    first when (ns)."""

    joint: str
    limit: str
    count: int
    most: float
    first_ns: int


@dataclass
class Figures:
    duration_s: float
    episodes: int
    delays: dict[str, Spread]
    gaps: dict[str, Spread]
    """Pauses in a stream that are longer than `LONG` times its usual one, within an episode."""
    events: Counter[tuple[str, str]]
    excesses: list[Excess] | None
    """None where the record has no limits, or nothing was sent."""


def figures(record: Record) -> Figures:
    steps = record.steps
    start, end = record.span_ns
    events = Counter(
        (event.kind, event.what) for event in record.events if event.kind not in (START, END)
    )
    return Figures(
        (end - start) * 1e-9,
        steps[-1].episode,
        _delays(record),
        _gaps(record),
        events,
        _excesses(record),
    )


def _delays(record: Record) -> dict[str, Spread]:
    answered = [step for step in record.steps if step.action is not None]
    acted = np.array([step.acted_ns for step in answered], np.int64)
    seen = np.array([_seen(step) for step in answered], np.int64)
    found = {"seen to action": np.maximum(acted - seen, 0)}
    if SENT in record.curves:
        sent = record.curves[SENT].times_ns
        following = np.searchsorted(sent, acted - AT_ONCE_NS)
        has = following < len(sent)
        command = sent[following[has]]
        found["action to command"] = np.maximum(command - acted[has], 0)
        found["seen to command"] = np.maximum(command - seen[has], 0)
    if np.all(acted - seen < AT_ONCE_NS):  # when it was seen is not told
        found = {name: ns for name, ns in found.items() if not name.startswith("seen")}
    return {name: spread for name, ns in found.items() if (spread := _spread(ns)) is not None}


def _seen(step: Step) -> int:
    """When what the policy saw had come; when it was recorded, where that is not told."""
    told = step.time_ns if step.seen_ns is None else step.seen_ns
    return min(told, step.time_ns) if step.acted_ns - told < MOST_DELAY_NS else step.time_ns


def _gaps(record: Record) -> dict[str, Spread]:
    steps = record.steps
    times = np.array([step.time_ns for step in steps], np.int64)
    within = np.array([not step.first for step in steps[1:]], bool)
    streams = {"observations": np.diff(times)[within]}
    for name, curve in record.curves.items():
        if name != "asked":
            streams[name] = np.diff(curve.times_ns)
    found = {}
    for name, pauses in streams.items():
        long = pauses[pauses > LONG * np.median(pauses)] if len(pauses) else pauses
        found[name] = _spread(long)
    return {name: spread for name, spread in found.items() if spread is not None}


def _spread(ns: np.ndarray) -> Spread | None:
    if not len(ns):
        return None
    p50, p99 = np.percentile(ns, [50, 99]) * 1e-6
    return Spread(len(ns), float(p50), float(p99), float(ns.max()) * 1e-6)


def _excesses(record: Record) -> list[Excess] | None:
    """Of positions that were sent, and of the speeds that the guard gave with them."""
    if record.robot is None or SENT not in record.curves:
        return None
    joints, sent = record.robot.joints, record.curves[SENT]
    found = []
    for j, joint in enumerate(joints):
        position = sent.values[:, j]
        over = np.maximum(position - joint.high, joint.low - position)
        found.append(_excess(joint.name, "position", over, SLACK, sent.times_ns))
        clamped = record.curves.get("clamped")
        if clamped is not None:
            over = np.abs(clamped.speeds[:, j]) - joint.velocity
            slack = SLACK * joint.velocity
            found.append(_excess(joint.name, "velocity", over, slack, clamped.times_ns))
    return [one for one in found if one is not None]


def _excess(
    joint: str, limit: str, over: np.ndarray, slack: float, times_ns: np.ndarray
) -> Excess | None:
    rows = np.flatnonzero(over > slack)  # NaN, where nothing was said, is not over
    if not len(rows):
        return None
    return Excess(joint, limit, len(rows), float(over[rows].max()), int(times_ns[rows[0]]))


def headline(compared: Comparison) -> str:
    """The verdict, as a sentence."""
    count, equal = len(compared.steps), int(compared.equal.sum())
    if equal == count:
        return f"MATCHES: all {count} actions are the same, bit for bit"
    most = compared.difference.max()
    share = f"{equal} of {count} actions are the same bit for bit"
    if compared.matches:
        return f"MATCHES: {share}, the others within {most:.2g} of the range"
    return f"DIFFERS: {share}, the largest difference is {most:.3g} of the range"


def remarks(
    bag: Bag, record: Record, name: str, compared: Comparison, found: Figures
) -> Iterator[str]:
    """What a reader must know beside it, as sentences."""
    steps, start = record.steps, record.steps[0].time_ns
    yield f"{len(steps)} steps in {found.episodes} episodes, {found.duration_s:.1f} s"
    if compared.first is not None:
        step = compared.steps[compared.first]
        worst = int(compared.difference[compared.first].argmax())
        yield (
            f"first different: step {steps.index(step)}, in episode {step.episode}, after "
            f"{(step.time_ns - start) * 1e-9:.2f} s: {compared.names[worst]} was "
            f"{compared.recorded[compared.first, worst]:.9g}, is now "
            f"{compared.answered[compared.first, worst]:.9g}"
        )
    known = plain(record.about.get("checkpoint", "a policy that it does not name"), 200)
    if known != name:
        yield f"recorded with {known}, replayed with {name}"
    unanswered = len(steps) - len(compared.steps)
    if unanswered:
        yield f"{unanswered} observations have no action in the record"
    if bag.truncated:
        yield "the end of the record is missing"
    if bag.rejected + record.odd:
        yield f"{bag.rejected + record.odd} messages could not be read"
    yield from _losses(record)
    if found.excesses is None:
        yield "limits were not checked: the record has none, or nothing was sent"
    elif not found.excesses:
        yield "everything that was sent is within the robot's limits"
    for one in found.excesses or ():
        when = (one.first_ns - start) * 1e-9
        yield (
            f"BEYOND LIMITS: {one.joint}, {one.limit}: {one.count} times, by up to {one.most:.3g}, "
            f"first after {when:.2f} s"
        )


def _losses(record: Record) -> Iterator[str]:
    ends = [event for event in record.events if event.kind == END]
    if not ends:
        yield "how many messages the recorder lost is not known: it did not come to its end"
    yield from (f"recorded: {event.what}" for event in ends if ", 0 lost" not in event.what)
