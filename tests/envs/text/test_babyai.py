"""BabyAI in words: what is seen, what is done and what is not, in rooms made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from embodied.envs.text.babyai import CAN, BabyAI, pose

from embodied.errors import UserError

pytest.importorskip("minigrid")
SEEDS = 120


def room(things: dict[tuple[int, int], Any], instr: Any, at: tuple[int, int] = (3, 5)) -> BabyAI:
    """A room of 8 x 8 cells, walls included, where the agent looks up from `at`."""
    from minigrid.core.grid import Grid

    world = BabyAI()
    world.reset(0)
    env = world._env
    env.grid = Grid(8, 8)
    env.grid.wall_rect(0, 0, 8, 8)
    for (x, y), thing in things.items():
        env.put_obj(thing, x, y)
    env.agent_pos, env.agent_dir, env.carrying = at, 3, None
    env.instrs, env.mission = instr, instr.surface(env)
    instr.reset_verifier(env)
    return world


def described(kind: str, colour: str) -> Any:
    from minigrid.envs.babyai.core.verifier import ObjDesc

    return ObjDesc(kind, colour)


def test_the_first_text_says_the_task_and_what_is_seen() -> None:
    from minigrid.core.world_object import Ball, Box, Key
    from minigrid.envs.babyai.core.verifier import PickupInstr

    things = {(2, 3): Ball("red"), (3, 4): Key("grey"), (6, 5): Box("blue"), (3, 6): Ball("green")}
    world = room(things, PickupInstr(described("ball", "red")))
    turn = world.begin()
    assert turn.text == (
        f"Your task: pick up the red ball. {CAN}\n"
        "You see a grey key 1 step forward. "
        "You see a red ball 2 steps forward and 1 step to the left. "
        "You see a blue box 3 steps to the right. "
        "A wall is 5 steps forward. A wall is 3 steps to the left. You carry nothing."
    )  # what is behind is not seen; the wall to the right is out of view
    assert (turn.reached, turn.subgoals) == (1, 3)  # it is seen


def test_picking_up_is_seeing_facing_and_having() -> None:
    from minigrid.core.world_object import Ball
    from minigrid.envs.babyai.core.verifier import PickupInstr

    world = room({(4, 6): Ball("red")}, PickupInstr(described("ball", "red")))
    assert world.begin().reached == 0
    turns = [world.step(said) for said in ("Turn right.", "TURN  RIGHT", "forward", "left")]
    assert [turn.reached for turn in turns] == [1, 1, 1, 2]
    assert [turn.valid for turn in turns] == [True] * 4
    assert turns[1].text.startswith("You turn right.\nYou see a red ball 1 step forward and 1")
    turn = world.step("pick up")
    assert turn.success and turn.terminated and turn.score == 1.0 and turn.reached == 3
    assert turn.text.startswith("You pick up a red ball. You have done your task.")
    assert turn.text.endswith("You carry a red ball.")


def test_what_cannot_be_done_is_said_and_changes_nothing() -> None:
    from minigrid.core.world_object import Ball, Door, Key
    from minigrid.envs.babyai.core.verifier import GoToInstr

    things = {(3, 0): Door("red", is_locked=True), (6, 6): Ball("blue"), (2, 1): Key("red")}
    world = room(things, GoToInstr(described("ball", "blue")), at=(3, 1))
    world.begin()
    place = world._env.agent_pos
    said = {
        "go forward": "You cannot go forward: a locked red door is in the way.",
        "pick up": "You cannot pick up a locked red door.",
        "drop": "You carry nothing.",
        "open": "The red door is locked: you need the red key.",
        "close the door": "The red door is closed already.",
        "dance": f"That means nothing here. {CAN}",
    }
    for action, answer in said.items():
        turn = world.step(action)
        assert turn.text.splitlines()[0] == answer
        assert not turn.valid and world._env.agent_pos == place
    plan = ("left", "take", "right", "toggle", "open", "close", "open", "forward")
    turns = [world.step(action) for action in plan]
    assert [turn.valid for turn in turns] == [True] * 4 + [False] + [True] * 3
    assert turns[3].text.startswith("You open the red door.\nYou see an open red door 1 step fo")
    assert turns[4].text.startswith("The red door is open already.")
    assert "You stand in an open red door. You carry a red key." in turns[-1].text


def test_boxes_are_opened_and_hands_are_full() -> None:
    from minigrid.core.world_object import Ball, Box, Key
    from minigrid.envs.babyai.core.verifier import GoToInstr

    things = {(3, 4): Box("blue", Key("grey")), (2, 5): Ball("green"), (6, 6): Ball("red")}
    world = room(things, GoToInstr(described("ball", "red")))
    world.begin()
    plan = ("close", "open", "pick up", "left", "pick up", "drop", "close", "right", "drop", "open")
    turns = [world.step(action) for action in plan]
    assert [turn.text.splitlines()[0] for turn in turns] == [
        "You cannot close a blue box.",
        "You open the blue box. It held a grey key.",
        "You pick up a grey key.",
        "You turn left.",
        "You cannot pick up a green ball: you carry a grey key.",
        "You cannot drop it: a green ball is in the way.",
        "You cannot close a green ball.",
        "You turn right.",
        "You drop a grey key.",
        "You cannot open a grey key.",
    ]
    assert [turn.valid for turn in turns] == [
        False,
        True,
        True,
        True,
        *[False] * 3,
        True,
        True,
        False,
    ]


def test_a_sequence_counts_what_is_to_be_done_now() -> None:
    from minigrid.core.world_object import Ball, Key
    from minigrid.envs.babyai.core.verifier import BeforeInstr, GoToInstr, PickupInstr

    key, ball = PickupInstr(described("key", "grey")), GoToInstr(described("ball", "red"))
    world = room({(2, 5): Ball("red"), (4, 5): Key("grey")}, BeforeInstr(key, ball))
    turn = world.begin()
    assert (turn.reached, turn.subgoals) == (1, 5)  # both are seen, and the key is asked for first
    plan = ("left", "right", "right", "pick up", "left", "left")
    turns = [world.step(action) for action in plan]
    assert [turn.reached for turn in turns] == [1, 1, 2, 4, 4, 5]
    assert turns[-1].success and turns[-1].score == 1.0


def test_putting_next_is_seeing_holding_seeing_and_having_put() -> None:
    from minigrid.core.world_object import Ball, Key
    from minigrid.envs.babyai.core.verifier import PutNextInstr

    instr = PutNextInstr(described("key", "grey"), described("ball", "red"))
    world = room({(3, 4): Key("grey"), (2, 6): Ball("red")}, instr)
    assert world.begin().reached == 1
    turns = [world.step(action) for action in ("pick up", "drop", "pick up", "left", "left")]
    assert [turn.reached for turn in turns] == [2, 2, 2, 3, 3]
    turn = world.step("drop")
    assert turn.success and (turn.reached, turn.subgoals) == (4, 4)


@pytest.mark.parametrize("level", ["BabyAI-PickupLoc-v0", "BabyAI-GoToSeqS5R2-v0"])
def test_gold_solves_and_ends_with_success(level: str) -> None:
    world = BabyAI(level)
    texts = set()
    for seed in range(SEEDS if "Loc" in level else 20):
        turn = world.reset(seed)
        texts.add(turn.text)
        plan = world.gold()
        assert 0 < len(plan) <= world.max_turns
        score = 0.0
        for action in plan:
            assert not turn.terminated and turn.reached < turn.subgoals
            before, turn = turn, world.step(action)
            assert turn.valid and turn.reached >= before.reached
            score += turn.score
        assert turn.success and turn.terminated and turn.reached == turn.subgoals
        assert score == 1.0
    assert len(texts) > 0.9 * (SEEDS if "Loc" in level else 20)


PLAYED = """
import json
from embodied.envs.text.babyai import BabyAI
world = BabyAI("BabyAI-UnlockLocalDist-v0")
said = []
for seed in (3, 7):
    turns = [world.reset(seed), *map(world.step, world.gold())]
    said += [[turn.text, turn.reached] for turn in turns] + world.gold()
print(json.dumps(said))
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
    assert outs[0] == outs[1] and len(json.loads(outs[0])) > 20


def test_a_bot_that_never_ends_gives_way_to_another_task() -> None:
    world = BabyAI("BabyAI-UnlockToUnlock-v0")
    world.reset(0)  # on whose first room the bot turns in circles
    assert pose(world.level, 0)[1] == tuple(world.gold())


def test_levels_that_are_not_there_or_not_solved() -> None:
    with pytest.raises(UserError, match="unknown BabyAI level 'PickupLoc': did you mean"):
        BabyAI("PickupLoc")
    with pytest.raises(UserError, match="solves none of 30 tasks"):
        BabyAI("BabyAI-KeyInBox-v0")
