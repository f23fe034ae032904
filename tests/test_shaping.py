"""What each shaping pays, by hand; and on a solved grid, what it does to the best policy."""

import numpy as np
import pytest

from embodied.reward_model import Channel
from embodied.shaping import shape
from embodied.types import ABSTAINED, FAILED, SCORED, SILENT
from tests.toys import Nearness

GAMMA = 0.5


class Done(Nearness):
    """A success classifier, as far as shaping looks."""

    kind, value_range = "success", (0.0, 1.0)


class Pays(Nearness):
    kind = "reward"


def paid(channel: Channel, before, after, status=SCORED, terminated=False) -> list[float]:
    row = np.atleast_2d
    before, after = row(before).astype(np.float32), row(after).astype(np.float32)
    status = np.broadcast_to(np.atleast_2d(status), after.shape).astype(np.int8)
    ends = np.broadcast_to(np.atleast_2d(terminated), after.shape)
    reward = shape(channel, before, after, status, ends, GAMMA)
    assert reward.dtype == np.float32
    return reward[0].tolist()


def test_a_potential_pays_its_discounted_difference() -> None:
    # 1/2 * 6 - 2 = 1; at a true termination the potential is 0: 0 - 2
    potential = Channel("near", Nearness(), shaping="potential")
    assert paid(potential, [2, 2], [6, 6], terminated=[False, True]) == [1, -2]


def test_a_delta_pays_its_clipped_difference() -> None:
    delta = Channel("near", Nearness(), shaping="delta", clip=1.5)
    assert paid(delta, [2, 2, 2], [3, 9, -9]) == [1, 1.5, -1.5]
    assert paid(delta, [2], [3], terminated=True) == [1]


def test_held_pays_what_is() -> None:
    assert paid(Channel("near", Nearness(), shaping="held"), [2, 2], [3, -4]) == [3, -4]


def test_a_reward_is_paid_where_it_was_judged() -> None:
    status = [SCORED, SILENT, ABSTAINED, FAILED]
    assert paid(Channel("pays", Pays()), [0] * 4, [3, 3, 3, 3], status) == [3, 0, 3, 0]
    assert paid(Channel("done", Done()), [0] * 4, [0.5] * 4, status) == [0.5, 0, 0.5, 0]


def test_a_success_overrides_what_is_held() -> None:
    channel = Channel("near", Nearness(), shaping="override", threshold=0.9, bonus=2.0)
    assert paid(channel, [0, 0, 0], [0.5, 0.9, 1.5]) == [0.5, 2.0, 2.0]  # never 0.9 + 2


@pytest.mark.parametrize("model", [Done(), Nearness()])
@pytest.mark.parametrize("status", [SCORED, SILENT])
def test_a_threshold_alone_pays_only_the_bonus(model, status: int) -> None:
    channel = Channel("done", model, threshold=0.5, bonus=3.0)
    assert paid(channel, [0, 0, 0], [0.4, 0.5, 0.9], status) == [0, 3, 3]


def test_a_threshold_adds_its_bonus_to_the_shaping() -> None:
    channel = Channel("done", Done(), shaping="potential", threshold=0.5, bonus=3.0)
    # 0.5 * 0.8 - 0.2 + 3; below the threshold 0.5 * 0.4 - 0.2
    assert paid(channel, [0.2, 0.2], [0.8, 0.4]) == pytest.approx([3.2, 0.0])


SIZE, DISCOUNT = 5, 0.9
CELLS = [(x, y) for x in range(SIZE) for y in range(SIZE)]
GOAL = CELLS.index((4, 4))


def neighbour(cell: int, action: int) -> int:
    """Moves right, left, up and down; off the grid it stays."""
    x, y = CELLS[cell]
    dx, dy = [(1, 0), (-1, 0), (0, 1), (0, -1)][action]
    return CELLS.index((min(max(x + dx, 0), SIZE - 1), min(max(y + dy, 0), SIZE - 1)))


NEXT = np.array([[neighbour(cell, action) for action in range(4)] for cell in range(len(CELLS))])
BASE = (NEXT == GOAL).astype(np.float64)  # 1 for reaching the goal, which ends the episode


def best_actions(reward: np.ndarray) -> np.ndarray:
    """Which actions `(cells, 4)` are optimal, by value iteration."""
    value = np.zeros(len(CELLS))
    for _ in range(300):
        q = reward + DISCOUNT * np.where(NEXT == GOAL, 0.0, value[NEXT])
        value = q.max(axis=1)
    best = q >= value[:, None] - 1e-3
    return np.delete(best, GOAL, axis=0)


def shaped(shaping: str, phi: np.ndarray) -> np.ndarray:
    before = np.repeat(phi[:, None], 4, axis=1).astype(np.float32)
    status = np.zeros(before.shape, np.int8)
    channel = Channel("near", Nearness(), shaping=shaping, clip=0.5, threshold=1.0, bonus=0.0)
    return shape(channel, before, phi[NEXT].astype(np.float32), status, NEXT == GOAL, DISCOUNT)


def test_the_grid_is_solved() -> None:
    best = best_actions(BASE)
    x, y = np.array([cell for k, cell in enumerate(CELLS) if k != GOAL]).T
    # never left or down; right until the right edge, up until the upper one
    assert (best == np.stack([x < 4, 0 * x > 0, y < 4, 0 * y > 0], axis=1)).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_potential_changes_the_best_policy(seed: int) -> None:
    phi = np.random.default_rng(seed).uniform(-3, 3, len(CELLS))  # right or wrong
    assert (best_actions(BASE + shaped("potential", phi)) == best_actions(BASE)).all()


@pytest.mark.parametrize("shaping", ["held", "override"])
def test_held_progress_pays_for_never_finishing(shaping: str) -> None:
    phi = np.array([(x + y) / 8 for x, y in CELLS])  # rises all the way to the goal
    best = best_actions(BASE + shaped(shaping, phi))
    beside = [k for k, cell in enumerate(CELLS) if cell in ((3, 4), (4, 3))]
    assert not best[beside][NEXT[beside] == GOAL].any()  # one step from it, it is not taken
    assert best_actions(BASE)[beside][NEXT[beside] == GOAL].all()


def test_a_clipped_difference_pays_for_falling_and_climbing_again() -> None:
    delta = Channel("near", Nearness(), shaping="delta", clip=0.5)
    way = [1.0, -1.0, -0.6, -0.2, 0.2, 0.6, 1.0]  # a fall costs the clip alone; it ends as it began
    assert sum(paid(delta, way[:-1], way[1:])) == pytest.approx(1.5)
