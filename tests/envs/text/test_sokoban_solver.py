"""The solver: rooms whose fewest moves are counted by hand, and all moves tried in others."""

from __future__ import annotations

import numpy as np
import pytest
from embodied.envs.text.sokoban import Room, make
from embodied.envs.text.sokoban_solver import WAYS, search, solve

WALLED = "#######"


def read(*rows: str) -> Room:
    """The room that is drawn; walls above and below are added."""
    drawn = "".join((WALLED, *rows, WALLED))

    def cells(letters: str) -> frozenset[int]:
        return frozenset(cell for cell, letter in enumerate(drawn) if letter in letters)

    (player,) = cells("PQ")
    return Room(7, len(rows) + 2, cells(".oBXPQ"), cells("oXQ"), cells("BX"), player)


def solved(room: Room) -> list[str] | None:
    return solve(room.floor, room.targets, room.boxes, room.player, room.width)


def fewest(room: Room) -> int | None:
    """By trying everything."""
    seen, edge = {room: 0}, [room]
    for here in edge:
        if here.placed == len(here.boxes):
            return seen[here]
        for way in WAYS:
            to = here.move(way)
            if to not in seen:
                seen[to] = seen[here] + 1
                edge.append(to)
    return None


@pytest.mark.parametrize(
    ("rows", "moves"),
    [
        (["#P.B.o#"], "right right right"),
        (["#..BPo#", "#.....#", "#######"], "down left left up right right"),
        (["#X...P#"], ""),
        (["#P....#", "#.B...#", "#...o.#", "#.....#"], 6),  # in either order
        (["#B.o.P#", "#.....#"], None),
        (["#.PBB.#", "#....o#", "#....o#"], None),  # along a wall without a target
        (["#oBBoP#", "#.....#"], None),  # side by side at a wall
        (["#P.#Bo#"], None),
    ],
)
def test_rooms_counted_by_hand(rows: list[str], moves: str | int | None) -> None:
    plan = solved(read(*rows))
    if isinstance(moves, str):
        assert plan == moves.split()
    else:
        assert moves == (None if plan is None else len(plan)) == fewest(read(*rows))


def test_the_moves_are_the_fewest_there_are() -> None:
    rooms = [make(np.random.default_rng([seed, 5]), 7, 6, 2) for seed in range(60)]
    made = [room for room in rooms if room is not None]
    assert len(made) > 20
    for room in made:
        plan = solved(room)
        assert plan is not None and len(plan) == fewest(room)


def test_haste_solves_with_no_fewer_moves() -> None:
    for seed in range(40):
        room = make(np.random.default_rng([seed, 7]), 8, 8, 3)
        if room is None:
            continue
        exact = solved(room)
        hasty = search(room.floor, room.targets, room.boxes, room.player, room.width, 3)
        assert exact is not None and hasty is not None and len(exact) <= len(hasty)
        for way in hasty:
            room = room.move(way)
        assert room.placed == 3
