"""Sokoban in letters: rooms made by playing backwards, as in Weber et al. 2017 (arXiv 1707.06203).

A random walk carves the room, boxes on their targets are pulled away from them at random, and the
place where they are furthest from them is the task. We differ in that the pulls are drawn, a box
mostly going on as it goes, not searched; and in that every room is solved before it is posed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from embodied.errors import UserError, check_range
from embodied.text_world import Turn

from .sokoban_solver import solve, steps, walk

TRIES = 200
"""Rooms that are made for one task until one of them is solved."""
PULLS = 40
"""Of each box, when playing backwards."""
BRUSHES = (
    ((0, 0), (0, 1), (0, -1)),
    ((0, 0), (1, 0), (-1, 0)),
    ((0, 0), (0, 1), (1, 0)),
    ((0, 0), (0, -1), (-1, 0)),
    ((0, 0), (0, 1), (1, 0), (1, 1)),
)
"""What the walk that makes a room leaves around it, as rows and columns."""
CAN = "You can move up, down, left or right."
LEGEND = (
    "# is a wall, . is the floor, o is a target, B is a box, X is a box on a target, "
    "P is you, Q is you on a target."
)
TASK = (
    "Your task: push every box onto a target. Walk into a box to push it; it moves only where "
    f"there is neither a wall nor another box behind it, and it cannot be pulled.\n{CAN}\n{LEGEND}"
)
MEANT = re.compile(r"(?:move |go |walk |step |push (?:the box |it )?)?(up|down|left|right)[.!]?")


@dataclass(frozen=True)
class Room:
    """Cells are numbered row by row, `width` to a row; the outermost are walls."""

    width: int
    height: int
    floor: frozenset[int]
    targets: frozenset[int]
    boxes: frozenset[int]
    player: int

    @property
    def placed(self) -> int:
        """How many boxes are on targets."""
        return len(self.boxes & self.targets)

    def move(self, way: str) -> Room:
        """The room after a move; this one where nothing can move."""
        step = steps(self.width)[way]
        to, beyond = self.player + step, self.player + 2 * step
        if to not in self.floor:
            return self
        if to not in self.boxes:
            return replace(self, player=to)
        if beyond not in self.floor or beyond in self.boxes:
            return self
        return replace(self, player=to, boxes=self.boxes - {to} | {beyond})

    def draw(self) -> str:
        letters = [self._letter(cell) for cell in range(self.width * self.height)]
        rows = range(0, len(letters), self.width)
        return "\n".join("".join(letters[row : row + self.width]) for row in rows)

    def _letter(self, cell: int) -> str:
        on_target = cell in self.targets
        if cell == self.player:
            return "Q" if on_target else "P"
        if cell in self.boxes:
            return "X" if on_target else "B"
        return "o" if on_target else "." if cell in self.floor else "#"


class Sokoban:
    """Rooms of `width` by `height` cells, walls included, with `boxes` boxes and as many targets.

    Success, all boxes on targets, pays 1. The subgoals are 1, 2, ... boxes on targets at a time. A
    box that can never be moved again does not end the episode. The gold actions are the fewest
    moves that there are, in large rooms perhaps a few more. Raises `UserError` for sizes in which
    no room is found.
    """

    tells = ()

    def __init__(self, width: int = 7, height: int = 7, boxes: int = 2) -> None:
        check_range("env", 5, 13, width=width, height=height)
        check_range("env", 1, 5, boxes=boxes)
        self.size = (width, height, boxes)
        self.max_turns = 2 * width * height
        self.room, self._plan = pose(*self.size, 0)  # it fails at once where there is no room
        self._most = 0

    def reset(self, seed: int) -> Turn:
        self.room, self._plan = pose(*self.size, seed)
        self._most = 0
        return self._turn(TASK)

    def step(self, action: str) -> Turn:
        meant = MEANT.fullmatch(" ".join(action.lower().split()))
        if meant is None:
            return self._turn(f"That means nothing here. {CAN}", valid=False)
        way, before = meant[1], self.room
        self.room = before.move(way)
        to = before.player + steps(before.width)[way]
        if self.room is not before:
            pushed = to in before.boxes
            return self._turn(f"You push a box {way}." if pushed else f"You move {way}.")
        if to in before.boxes:
            return self._turn(f"You cannot push the box {way}: its way is blocked.", valid=False)
        return self._turn(f"You cannot move {way}: a wall is in the way.", valid=False)

    def gold(self) -> list[str]:
        return list(self._plan)

    def close(self) -> None:
        pass

    def _turn(self, said: str, valid: bool = True) -> Turn:
        placed, boxes = self.room.placed, len(self.room.boxes)
        self._most = max(self._most, placed)
        won = placed == boxes
        said += " Every box is on a target: you have done your task." if won else ""
        text = f"{said}\n{self.room.draw()}"
        return Turn(text, won, won, valid, float(won), self._most, boxes)


@lru_cache(maxsize=1 << 14)
def pose(width: int, height: int, boxes: int, task: int) -> tuple[Room, tuple[str, ...]]:
    """The room of a task, and its solution."""
    for attempt in range(TRIES):
        room = make(np.random.default_rng([task, attempt]), width, height, boxes)
        if room is None:
            continue
        plan = solve(room.floor, room.targets, room.boxes, room.player, width)
        if plan is not None and len(plan) <= width * height:
            return room, tuple(plan)
    raise UserError(
        f"env: no room of {width} by {height} cells for {boxes} boxes is found; "
        "give larger ones or fewer boxes"
    )


def make(rng: np.random.Generator, width: int, height: int, boxes: int) -> Room | None:
    """A room that can be solved, with no box on a target; None where none came about."""
    floor = carve(rng, width, height)
    if len(floor) < 2 * boxes + 2:
        return None
    *homes, player = (int(cell) for cell in rng.choice(floor, boxes + 1, replace=False))
    targets, at = frozenset(homes), list(homes)  # where the box of each target is
    room = Room(width, height, frozenset(floor), targets, targets, player)
    best, most, last = None, 0, (0, 0)
    for _ in range(PULLS * boxes):
        pulls = list(pulls_of(room))
        if not pulls:
            break
        on = last in pulls and rng.random() < 0.7
        box, step = last if on else pulls[rng.integers(len(pulls))]
        last = (box + step, step)
        at[at.index(box)] = box + step
        room = replace(room, boxes=frozenset(at), player=box + 2 * step)
        moved = sum(distance(*pair, width) for pair in zip(at, homes, strict=True))
        if moved > most and not room.placed:
            best, most = room, moved
    if best is None:
        return None
    anywhere = sorted(walk(best.floor, best.boxes, best.player, best.width))
    return replace(best, player=anywhere[rng.integers(len(anywhere))])


def carve(rng: np.random.Generator, width: int, height: int) -> list[int]:
    """The floor that a walk leaves which now and then turns, until there is enough of it."""
    ways = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    inside = np.array([height - 2, width - 2])
    at, step = rng.integers(1, inside + 1), ways[rng.integers(4)]
    dug = np.zeros((height, width), bool)
    enough = rng.uniform(0.4, 0.8) * inside.prod()
    while dug[1:-1, 1:-1].sum() < enough:
        if rng.random() < 0.35:
            step = ways[rng.integers(4)]
        at = np.clip(at + step, 1, inside)
        rows, columns = (at + BRUSHES[rng.integers(len(BRUSHES))]).T
        dug[rows, columns] = True
    dug[[0, -1]], dug[:, [0, -1]] = False, False
    return [int(cell) for cell in np.flatnonzero(dug)]


def pulls_of(room: Room) -> Iterator[tuple[int, int]]:
    """Boxes, and the steps by which the player can pull them."""
    near = walk(room.floor, room.boxes, room.player, room.width)
    for box in sorted(room.boxes):
        for step in steps(room.width).values():
            beyond = box + 2 * step
            if box + step in near and beyond in room.floor and beyond not in room.boxes:
                yield box, step


def distance(cell: int, other: int, width: int) -> int:
    (row, column), (row_2, column_2) = divmod(cell, width), divmod(other, width)
    return abs(row - row_2) + abs(column - column_2)
