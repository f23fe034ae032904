"""Few moves that solve a Sokoban: A* over pushes, each at the cost of the walk to it.

Cells are numbered row by row, `width` to a row. The floor never touches the edge.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from itertools import product

STATES = 4000
"""That a search looks at before it gives up."""
HASTES = (1, 3)
"""What the pushes that are left weigh in one search, and in the next: with 1 it finds the fewest
moves, with more it is sooner at an end."""
WAYS = ("up", "down", "left", "right")
Cells = AbstractSet[int]
State = tuple[tuple[int, ...], int]
"""Where the boxes are, in order, and the player."""


def solve(floor: Cells, targets: Cells, boxes: Cells, player: int, width: int) -> list[str] | None:
    """The fewest moves that put every box on a target.

    Where it would take long to find them, a few more; None where there are none, or none are found.
    """
    plans = (search(floor, targets, boxes, player, width, haste) for haste in HASTES)
    return next((plan for plan in plans if plan is not None), None)


def search(
    floor: Cells, targets: Cells, boxes: Cells, player: int, width: int, haste: int
) -> list[str] | None:
    """Moves, the fewest with a `haste` of 1. What is left costs at least the pushes of every box
    to its nearest target, alone in the room."""
    pushes = push_distances(floor, targets, width)
    if not boxes <= pushes.keys():
        return None
    state: State = (tuple(sorted(boxes)), player)
    costs: dict[State, int] = {state: 0}
    before: dict[State, tuple[State, str]] = {}
    edge = [(0, 0, state)]
    looked = 0
    while edge and looked < STATES:
        _, cost, state = heappop(edge)
        if cost > costs[state]:
            continue
        if targets >= set(state[0]):
            return retrace(floor, before, state, width)
        looked += 1
        taken = set(state[0])
        near = walk(floor, taken, state[1], width)
        for box, (way, step) in product(state[0], steps(width).items()):
            to = box + step
            if box - step not in near or to not in pushes or to in taken:
                continue
            moved = taken - {box} | {to}
            after, total = (tuple(sorted(moved)), box), cost + near[box - step] + 1
            if total < costs.get(after, total + 1) and not stuck(floor, targets, moved, to, width):
                costs[after], before[after] = total, (state, way)
                left = sum(pushes[cell] for cell in moved)
                heappush(edge, (total + haste * left, total, after))
    return None


def steps(width: int) -> dict[str, int]:
    """What a move adds to the number of a cell."""
    return dict(zip(WAYS, (-width, width, -1, 1), strict=True))


def walk(floor: Cells, boxes: Cells, start: int, width: int) -> dict[int, int]:
    """How many moves it takes to every cell that is walked to without a push."""
    far, edge = {start: 0}, [start]
    for cell in edge:
        for to in (cell - width, cell + width, cell - 1, cell + 1):
            if to in floor and to not in boxes and to not in far:
                far[to] = far[cell] + 1
                edge.append(to)
    return far


def push_distances(floor: Cells, targets: Cells, width: int) -> dict[int, int]:
    """The fewest pushes to a target from each cell that a box can be pushed to one from."""
    far, edge = dict.fromkeys(targets, 0), sorted(targets)
    for cell in edge:
        for step in steps(width).values():
            if cell - step in floor and cell - 2 * step in floor and cell - step not in far:
                far[cell - step] = far[cell] + 1
                edge.append(cell - step)
    return far


def stuck(floor: Cells, targets: Cells, boxes: Cells, box: int, width: int) -> bool:
    """Whether a box is now in a block of two by two, with one off its target, that never moves."""
    for side, step in product((-1, 1), (-width, width)):
        block = (box, box + side, box + step, box + side + step)
        if all(cell in boxes or cell not in floor for cell in block) and any(
            cell in boxes and cell not in targets for cell in block
        ):
            return True
    return False


def retrace(
    floor: Cells, before: dict[State, tuple[State, str]], state: State, width: int
) -> list[str]:
    """All the moves that led to a state: found from the last to the first, and turned round."""
    moves: list[str] = []
    while state in before:
        (_, box), (state, way) = state, before[state]
        moves.append(way)
        near = walk(floor, set(state[0]), state[1], width)
        cell = box - steps(width)[way]
        while near[cell]:
            back, step = next(
                (back, step)
                for back, step in steps(width).items()
                if near.get(cell - step) == near[cell] - 1
            )
            moves.append(back)
            cell -= step
    return moves[::-1]
