"""Sokoban in letters: pushes worked by hand, rooms that are solved, boxes that are never lost."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from embodied.envs.text.sokoban import CAN, LEGEND, Room, Sokoban
from hypothesis import given
from hypothesis import strategies as st

from embodied.errors import UserError

SEEDS = 150


def room() -> Room:
    """Two boxes and two targets:

    #######
    #P...o#
    #..B..#
    #.B.o.#
    #######
    """
    inside = frozenset(7 * row + column for row in (1, 2, 3) for column in range(1, 6))
    return Room(7, 5, inside, frozenset({12, 25}), frozenset({17, 23}), 8)


def begun() -> Sokoban:
    world = Sokoban()
    world.reset(0)
    world.room = room()
    return world


def test_a_room_is_drawn_a_letter_to_a_cell() -> None:
    assert room().draw().splitlines() == ["#######", "#P...o#", "#..B..#", "#.B.o.#", "#######"]
    first = Sokoban().reset(3)
    task, can, legend, *rows = first.text.splitlines()
    assert task.startswith("Your task: push every box onto a target.")
    assert (can, legend) == (CAN, LEGEND)
    assert len(rows) == 7 and {len(row) for row in rows} == {7}
    letters = Counter("".join(rows))
    assert letters["P"] + letters["Q"] == 1 and letters["B"] == 2 and letters["X"] == 0


def test_pushes_worked_by_hand() -> None:
    world = begun()
    said = {
        "down": ("You move down.", "#..B..#"),
        "move right": ("You move right.", "#.PB..#"),
        "Push the box  right.": ("You push a box right.", "#..PB.#"),
        "push right": ("You push a box right.", "#...PB#"),
        "go right": ("You cannot push the box right: its way is blocked.", "#...PB#"),
    }
    for action, (answer, row) in said.items():
        turn = world.step(action)
        lines = turn.text.splitlines()
        assert lines[0] == answer and turn.valid == ("cannot" not in answer)
        if action != "down":
            assert lines[3] == row
    assert not turn.terminated  # though that box will never get to a target from the wall


def test_a_box_does_not_push_another_and_walls_do_not_move() -> None:
    world = begun()
    assert world.step("left").text.startswith("You cannot move left: a wall is in the way.")
    for action in ("down", "down", "right"):
        turn = world.step(action)
    assert turn.text.splitlines()[4] == "#.PBo.#"
    turn = world.step("up")
    assert turn.valid and world.step("up").valid
    for action in ("right", "down"):  # onto the box at (2, 3), below which the other is
        turn = world.step(action)
    assert turn.text.startswith("You cannot push the box down: its way is blocked.")
    assert not turn.valid and world.room.boxes == {17, 24}


def test_boxes_once_on_targets_count_for_good() -> None:
    world = begun()
    plan = ("down", "down", "right", "right", "right", "left", "left", "up")
    turns = [world.step(action) for action in plan]
    assert [turn.reached for turn in turns] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert "#..PX.#" in turns[3].text and "#...QB#" in turns[4].text
    assert not any(turn.terminated or turn.score for turn in turns)


def test_the_last_box_ends_it() -> None:
    world = begun()
    plan = ("down", "down", "right", "right", "up", "left", "up", "right", "right")
    turns = [world.step(action) for action in plan]
    assert [turn.reached for turn in turns] == [0, 0, 0, 1, 1, 1, 1, 1, 2]
    assert [turn.score for turn in turns] == [0.0] * 8 + [1.0]
    assert [turn.success and turn.terminated for turn in turns] == [False] * 8 + [True]
    assert turns[-1].text.splitlines() == [
        "You push a box right. Every box is on a target: you have done your task.",
        "#######",
        "#...PX#",
        "#.....#",
        "#...X.#",
        "#######",
    ]


@pytest.mark.parametrize("size", [(7, 7, 2), (6, 6, 1), (8, 9, 3)])
def test_gold_solves_and_needs_its_last_action(size: tuple[int, int, int]) -> None:
    world, drawn = Sokoban(*size), set()
    seeds = SEEDS if size == (7, 7, 2) else 30
    for seed in range(seeds):
        turn = world.reset(seed)
        drawn.add(turn.text)
        plan = world.gold()
        assert 0 < len(plan) <= world.max_turns // 2 and turn.reached == 0
        score = 0.0
        for action in plan:
            assert not turn.terminated and turn.reached < turn.subgoals == size[2]
            turn = world.step(action)
            assert turn.valid
            score += turn.score
        assert turn.success and turn.terminated and turn.reached == turn.subgoals
        assert score == 1.0
    assert len(drawn) > 0.9 * seeds


actions = st.one_of(st.sampled_from(["up", "down", "left", "right"]), st.text(max_size=12))


@given(st.integers(0, 300), st.lists(actions, max_size=60))
def test_no_action_loses_or_makes_a_box(seed: int, said: list[str]) -> None:
    world = Sokoban()
    turn = world.reset(seed)
    for action in said:
        before, most = world.room, turn.reached
        turn = world.step(action)
        after = world.room
        assert len(after.boxes) == 2 and after.boxes <= after.floor
        assert after.player in after.floor - after.boxes
        assert after.targets == before.targets and turn.valid == (after != before)
        letters = Counter(turn.text.split("\n", 1)[1])
        assert letters["B"] + letters["X"] == 2 and letters["P"] + letters["Q"] == 1
        assert letters["X"] == after.placed and turn.reached == max(most, after.placed)
        if turn.terminated:
            assert turn.success and after.placed == 2
            break


PLAYED = """
from embodied.envs.text.sokoban import Sokoban
world = Sokoban(8, 8, 3)
for seed in range(5):
    print(world.reset(seed), [world.step(action) for action in world.gold()])
"""


def test_another_process_says_the_same() -> None:
    outs = [
        subprocess.run(
            [sys.executable, "-c", PLAYED],
            env={"PYTHONHASHSEED": number, "PATH": ""},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for number in ("1", "2")
    ]
    assert outs[0] == outs[1] and outs[0].count("success=True") == 5


def test_sizes_without_rooms() -> None:
    with pytest.raises(UserError, match=r"env.boxes=0: give a number from 1 to 5"):
        Sokoban(boxes=0)
    with pytest.raises(UserError, match=r"env.width=4: give a number from 5 to 13"):
        Sokoban(width=4)
    with pytest.raises(UserError, match="no room of 5 by 5 cells for 5 boxes is found"):
        Sokoban(5, 5, 5)
