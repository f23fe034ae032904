"""Action chunks on a clock of our own: what is executed when replies are late, lost or broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.deploy.chunks import ChunkPlayer
from embodied.errors import UserError

RATE_HZ = 50.0
STEP_NS = 20_000_000
SIZE = 2


def player(
    horizon: int = 8, blend: int = 1, deadline: float | None = None, delta: bool = False
) -> ChunkPlayer:
    """`deadline` in steps; by default it is as long as a chunk."""
    deadline_s = (horizon if deadline is None else deadline) / RATE_HZ
    return ChunkPlayer(horizon, SIZE, RATE_HZ, blend, deadline_s, delta)


def chunk(number: int, horizon: int) -> np.ndarray:
    """What the policy says when it is asked for the number-th time."""
    return np.random.default_rng(number).normal(size=(horizon, SIZE))


@dataclass
class Loop:
    """A control loop. `latency(id)` is how many steps a reply takes; None: it never comes."""

    player: ChunkPlayer
    latency: Callable[[int], float | None]
    chunk: Callable[[int], Any] | None = None
    jitter: Callable[[int], float] = lambda step: 0.0
    coming: list[tuple[float, int]] = field(default_factory=list)
    asked: dict[int, int] = field(default_factory=dict)
    """In which step each id was asked for."""
    arrived: list[tuple[int, int]] = field(default_factory=list)
    """The step and id of each reply that was used."""
    executed: list[np.ndarray | None] = field(default_factory=list)
    before: dict[int, ChunkPlayer] = field(default_factory=dict)
    """The player as it was before a reply was used, by step."""

    def says(self, id: int) -> Any:
        return chunk(id, self.player.horizon) if self.chunk is None else self.chunk(id)

    def run(self, steps: int) -> Loop:
        for _ in range(steps):
            step = len(self.executed)
            now_ns = 10**15 + round((step + self.jitter(step)) * STEP_NS)
            for due, id in sorted(one for one in self.coming if one[0] <= step):
                self.coming.remove((due, id))
                self._reply(step, id, now_ns)
            id = self.player.request(now_ns)
            if id is not None:
                self.asked[id] = step
                latency = self.latency(id)
                if latency == 0.0:
                    self._reply(step, id, now_ns)
                elif latency is not None:
                    self.coming.append((step + latency, id))
            self.executed.append(self.player.action(now_ns))
        return self

    def _reply(self, step: int, id: int, now_ns: int) -> None:
        was = copy.deepcopy(self.player)
        if self.player.reply(id, self.says(id), now_ns):
            self.arrived.append((step, id))
            self.before[step] = was

    def meant(self, step: int) -> tuple[int, np.ndarray | None]:
        """How long ago the newest chunk came, and what it says of a step (None: nothing)."""
        came, id = max(one for one in self.arrived if one[0] <= step)
        index = step - self.asked[id]
        return step - came, self.says(id)[index] if index < self.player.horizon else None


def same(one: list[np.ndarray | None], other: list[np.ndarray | None]) -> bool:
    return [None if x is None else x.tolist() for x in one] == [
        None if x is None else x.tolist() for x in other
    ]


@pytest.mark.parametrize("delta", [False, True])
@given(horizon=st.integers(1, 12))
def test_without_latency_chunks_are_played_one_after_the_other(delta: bool, horizon: int) -> None:
    loop = Loop(player(horizon, delta=delta), lambda id: 0.0).run(4 * horizon)
    assert np.array_equal(loop.executed, np.concatenate([chunk(k, horizon) for k in range(4)]))
    counts = loop.player.counts
    assert counts["requested"] == counts["used"] == 4
    assert sum(counts.values()) == 8


@pytest.mark.parametrize("delta", [False, True])
@given(
    horizon=st.integers(16, 24),
    blend=st.integers(1, 4),
    latency=st.floats(0.0, 4.0),
    wobble=st.floats(0.0, 0.45),
)
def test_every_action_is_the_one_meant_for_its_time(
    delta: bool, horizon: int, blend: int, latency: float, wobble: float
) -> None:
    def jitter(step: int) -> float:
        return 0.0 if step == 0 else wobble * np.cos(7.0 * step)

    loop = Loop(player(horizon, blend, delta=delta), lambda id: latency, jitter=jitter).run(60)
    plain = 0
    for step, action in enumerate(loop.executed):
        if not loop.arrived or step < loop.arrived[0][0]:
            assert action is None
            continue
        ago, meant = loop.meant(step)
        first = loop.arrived[0][0] == step - ago
        if first or ago >= blend - 1:
            plain += 1
            assert action is not None and meant is not None and (action == meant).all()
    assert plain > 10
    counts = loop.player.counts
    assert counts["late"] == counts["malformed"] == counts["stray"] == 0
    if wobble == 0.0:
        assert counts["dry"] == 0


def counterfactual(was: ChunkPlayer, from_step: int, steps: int, delta: bool) -> np.ndarray:
    """What would have been executed had no reply come; where nothing is planned, what holds."""
    rows: list[np.ndarray] = []
    held = was._given
    for step in range(from_step, from_step + steps):
        action = was.action(10**15 + step * STEP_NS)
        held = action if action is not None else np.zeros(SIZE) if delta else held
        assert held is not None
        rows.append(held)
    return np.array(rows)


REPLIES = st.lists(
    st.one_of(st.none(), st.floats(0.0, 9.0), st.just(30.0)), min_size=1, max_size=12
)


@pytest.mark.parametrize("delta", [False, True])
@given(horizon=st.integers(4, 12), blend=st.integers(1, 6), latencies=REPLIES)
def test_a_seam_never_jumps_further_than_it_may(
    delta: bool, horizon: int, blend: int, latencies: list[float | None]
) -> None:
    """|x_t - x_(t-1)| <= the largest step of old and new + |old - new| / blend, old the plan
    without the reply and held where it is at its end."""
    blend = min(blend, horizon)
    loop = Loop(player(horizon, blend, delta=delta), lambda id: latencies[id % len(latencies)])
    loop.run(60)
    executed = loop.executed
    ends = [*[came for came, _ in loop.arrived], len(executed)][1:]
    for (came, id), end in zip(loop.arrived, ends, strict=True):
        if loop.before[came]._given is None:
            continue
        old = counterfactual(loop.before[came], came, end - came, delta)
        new = loop.says(id)[came - loop.asked[id] :][: end - came]
        previous = loop.before[came]._given
        if came and executed[came - 1] is None and delta:
            previous = np.zeros(SIZE)
        for k in range(min(len(new), blend)):
            now = executed[came + k]
            last, past = (executed[came + k - 1], old[k - 1]) if k else (previous, previous)
            assert now is not None and last is not None
            steps = [np.abs(old[k] - past)] + ([np.abs(new[k] - new[k - 1])] if k else [])
            apart = np.abs(new[max(0, k - 1)] - old[max(0, k - 1)])
            assert (np.abs(now - last) <= np.max(steps, axis=0) + apart / blend + 1e-12).all()
            low, high = np.minimum(old[k], new[k]), np.maximum(old[k], new[k])
            assert (low - 1e-12 <= now).all() and (now <= high + 1e-12).all()


@given(
    horizon=st.integers(4, 12),
    blend=st.integers(1, 4),
    deadline=st.floats(0.5, 4.0),
    latencies=REPLIES,
)
def test_late_replies_change_nothing(
    horizon: int, blend: int, deadline: float, latencies: list[float | None]
) -> None:
    def arrives(id: int) -> float | None:
        return latencies[id % len(latencies)]

    def in_time(id: int) -> float | None:
        latency = arrives(id)
        return latency if latency is not None and np.ceil(latency) <= deadline else None

    loops = [Loop(player(horizon, blend, deadline), how).run(50) for how in (arrives, in_time)]
    assert same(loops[0].executed, loops[1].executed)
    given, dropped = (loop.player.counts for loop in loops)
    assert {**given, "stray": 0} == dropped
    assert dropped["requested"] >= dropped["used"] + dropped["late"] >= dropped["requested"] - 1


# --- by hand


def rows(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, float)[:, None], SIZE, axis=1)


def at(step: float) -> int:
    return round(step * STEP_NS)


def value(action: np.ndarray | None) -> float | None:
    assert action is None or (action == action[0]).all()
    return None if action is None else float(action[0])


def started(one: ChunkPlayer, *values: float) -> ChunkPlayer:
    """A player that got its first chunk in step 0, without delay."""
    id = one.request(at(0))
    assert id == 0 and one.reply(id, rows(*values), at(0))
    return one


def test_a_fade_by_hand() -> None:
    one = started(player(6, blend=4), 0, 1, 2, 3, 4, 5)
    assert [value(one.action(at(k))) for k in range(3)] == [0, 1, 2]
    assert one.request(at(3)) == 1  # 3 actions are left, as many as the fade takes beside its last
    assert value(one.action(at(3))) == 3
    assert one.reply(1, rows(100, 104, 105, 106, 107, 108), at(4))
    # in step 4 the new chunk's second action is due: a quarter of it, then a half, three, whole
    wanted = [0.75 * 4 + 0.25 * 104, 0.5 * 5 + 0.5 * 105, 0.25 * 5 + 0.75 * 106, 107, 108]
    assert [value(one.action(at(k))) for k in range(4, 9)] == wanted
    assert one.action(at(9)) is None and one.counts["dry"] == 1


def test_deltas_fade_in_from_standing_still() -> None:
    one = started(player(2, blend=2, delta=True), 4, 4)
    assert [value(one.action(at(k))) for k in range(3)] == [4, 4, None]
    assert one.request(at(3)) == 1 and one.reply(1, rows(8, 8), at(3))
    assert [value(one.action(at(k))) for k in range(3, 6)] == [4, 8, None]


def test_absolute_actions_fade_from_where_the_robot_is_held() -> None:
    one = started(player(2, blend=2), 4, 4)
    assert [value(one.action(at(k))) for k in range(3)] == [4, 4, None]
    assert one.request(at(3)) == 1 and one.reply(1, rows(8, 9), at(3))
    assert [value(one.action(at(k))) for k in range(3, 5)] == [6, 9]


@pytest.mark.parametrize(("delta", "again"), [(False, 1.0), (True, 0.0)])
def test_a_step_that_is_asked_twice(delta: bool, again: float) -> None:
    one = started(player(3, delta=delta), 0, 1, 2)
    assert [value(one.action(at(t))) for t in (0, 1, 1.1, 1.4, 1.0)] == [0, 1, again, again, again]
    assert [value(one.action(at(t))) for t in (2, 3, 3.2)] == [2, None, None]
    assert one.counts["dry"] == 1


def test_a_clock_that_goes_back_gives_no_action_twice() -> None:
    one = started(player(3), 0, 1, 2)
    assert [value(one.action(at(t))) for t in (1, 0, -5, 2)] == [1, 1, 1, 2]


def test_what_comes_after_a_steps_action_is_for_the_next_step() -> None:
    for blend, third in ((1, 8), (2, 0.5 * 2 + 0.5 * 8)):
        one = started(player(3, blend), 0, 1, 2)
        assert [value(one.action(at(t))) for t in range(3)] == [0, 1, 2]
        assert one.request(at(2.1)) == 1  # no action is left, though its step is not over
        assert one.reply(1, rows(7, 8, 9), at(2.2))
        assert [value(one.action(at(t))) for t in (2.3, 3, 4)] == [2, third, 9]


def test_missed_steps_are_left_out() -> None:
    one = started(player(4), 0, 1, 2, 3)
    assert [value(one.action(at(t))) for t in (0, 3)] == [0, 3]


def test_what_is_handed_out_is_a_copy() -> None:
    one = started(player(3), 0, 1, 2)
    action = one.action(at(0))
    assert action is not None and action.shape == (SIZE,) and action.dtype == np.float64
    action[:] = 9.0
    again = one.action(at(0.2))
    assert again is not None and value(again) == 0.0
    again[:] = 9.0
    assert value(one.action(at(0.3))) == 0.0


def test_nothing_is_planned_before_the_first_reply() -> None:
    one = player(4, blend=3)
    assert one.request(at(0)) == 0 and one.request(at(1)) is None
    assert [one.action(at(k)) for k in range(2)] == [None, None]
    assert one.counts["dry"] == 0
    assert one.reply(0, rows(0, 1, 2, 3), at(2))
    assert [value(one.action(at(k))) for k in (2, 3)] == [2, 3]  # and it does not fade in


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "broken",
    [
        None, "actions", 3.0, [], [[1.0]], [[1.0], [2.0, 3.0]], {"actions": 1}, rows(0, 1),
        rows(0, 1, 2, 3), rows(0, 1, NAN), rows(0, INF, 2), [["0", "1"]] * 3, rows(0, 1, 2)[:, :1],
        np.full((3, SIZE), None), np.ones((3, SIZE), complex), np.ones((3, SIZE), bool),
    ],
)  # fmt: skip
def test_a_malformed_reply_is_left_out_and_asked_for_anew(broken: Any) -> None:
    one = started(player(3), 0, 1, 2)
    assert [value(one.action(at(k))) for k in range(3)] == [0, 1, 2]
    id = one.request(at(3))
    assert id == 1 and not one.reply(id, broken, at(3))
    assert one.action(at(3)) is None
    assert one.counts["malformed"] == 1 and one.counts["used"] == 1
    assert not one.reply(id, rows(6, 7, 8), at(3)) and one.counts["stray"] == 1
    assert one.request(at(4)) == 2 and one.reply(2, rows(3, 4, 5), at(4))
    assert value(one.action(at(4))) == 3


@pytest.mark.parametrize("kind", [np.float32, np.int64, list])
def test_numbers_of_any_kind_are_taken(kind: Any) -> None:
    one = player(3)
    actions = rows(0, 1, 2).tolist() if kind is list else rows(0, 1, 2).astype(kind)
    assert one.reply(one.request(at(0)) or 0, actions, at(0))
    assert value(one.action(at(1))) == 1.0


def test_replies_out_of_order_twice_or_unknown_are_stray() -> None:
    one = player(4, deadline=2)
    assert one.request(at(0)) == 0
    assert one.request(at(2)) is None
    assert one.request(at(2.1)) == 1 and one.counts["late"] == 1
    assert not one.reply(0, rows(0, 0, 0, 0), at(2.2))  # the older one, after the newer was asked
    assert one.reply(1, rows(0, 1, 2, 3), at(2.3))
    assert not one.reply(1, rows(9, 9, 9, 9), at(2.3))
    assert not one.reply(7, rows(9, 9, 9, 9), at(2.3))
    assert one.counts["stray"] == 3
    assert value(one.action(at(3))) == 1.0


def test_a_reply_at_the_deadline_is_used_and_one_after_it_not() -> None:
    for after_ns, used in ((0, True), (1, False)):
        one = player(8, deadline=3)
        assert one.reply(one.request(at(0)) or 0, rows(*range(8)), at(3) + after_ns) is used
        assert one.counts["late"] == (not used)
        assert value(one.action(at(4))) == (4.0 if used else None)


def test_a_reply_of_which_everything_is_past_is_late() -> None:
    one = player(2)  # the deadline is the chunk's length, and its second half the last step's
    assert not one.reply(one.request(at(0)) or 0, rows(0, 1), at(1.6))
    assert one.counts["late"] == 1 and one.action(at(1.6)) is None


def test_it_asks_as_early_as_most_replies_took_to_come() -> None:
    one = player(20, blend=3)
    assert one.latency_s == pytest.approx(20 / RATE_HZ)  # nothing is known: the deadline
    loop = Loop(one, lambda id: 4.0 if id % 10 == 9 else 2.0, lambda id: rows(*range(20))).run(400)
    assert one.latency_s == pytest.approx(4 / RATE_HZ)
    assert one.counts["dry"] == 0
    ids = sorted(loop.asked)[-5:]
    gaps = np.diff([loop.asked[id] for id in ids])
    assert (gaps == 20 - 4 - 2).all()  # so many are left when it asks: 4 to wait, 2 to fade


def test_lost_requests_count_as_slow_ones() -> None:
    loop = Loop(player(20, deadline=6), lambda id: 1.0 if id < 30 else None).run(1000)
    assert loop.player.counts["late"] > 5
    assert loop.player.latency_s == pytest.approx(6 / RATE_HZ)


def test_reset_forgets_the_plan_and_what_is_open() -> None:
    one = started(player(4, blend=4), 0, 1, 2, 3)
    assert value(one.action(at(0))) == 0.0
    id = one.request(at(1))
    one.reset()
    assert one.action(at(1)) is None and one.counts["dry"] == 0
    assert id is not None and not one.reply(id, rows(5, 5, 5, 5), at(1))
    fresh = one.request(at(2))
    assert fresh == 2 and one.reply(fresh, rows(7, 8, 9, 9), at(2))
    assert value(one.action(at(2))) == 7.0  # it fades from nothing that was before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "chunks.horizon=0: give a number >= 1"),
        ({"size": 0}, "chunks.size=0"),
        ({"rate_hz": 0.0}, "chunks.rate_hz=0.0"),
        ({"rate_hz": float("nan")}, "chunks.rate_hz=nan"),
        ({"blend": 0}, "chunks.blend=0: give a number from 1 to 10"),
        ({"blend": 11}, "chunks.blend=11"),
        ({"deadline_s": 0.0}, "chunks.deadline_s=0.0: give a number > 0 and <= 0.5"),
        ({"deadline_s": 0.6}, "after which a chunk is past"),
        ({"deadline_s": float("nan")}, "chunks.deadline_s=nan"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    good = {"horizon": 10, "size": 2, "rate_hz": 20.0, "blend": 3, "deadline_s": 0.4}
    ChunkPlayer(**good)
    with pytest.raises(UserError, match=message):
        ChunkPlayer(**{**good, **settings})
