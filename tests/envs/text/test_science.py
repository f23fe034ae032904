"""The experiments of ScienceWorld."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from embodied.envs.text.science import REFUSALS, Science

from embodied.errors import UserError
from embodied.text_world import Turn

pytest.importorskip("scienceworld")
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")


@pytest.fixture(scope="module")
def world() -> Iterator[Science]:
    world = Science("find-non-living-thing")
    yield world
    world.close()


def played(world: Science, actions: list[str]) -> list[Turn]:
    return [world.step(action) for action in actions]


@pytest.mark.parametrize(
    ("experiment", "simplifications"),
    [("lifespan-longest-lived-then-shortest-lived", ""), ("power-component", "openDoors"),
     ("4-4", "easy"), (19, "")],
)  # fmt: skip
def test_the_gold_path_does_the_experiment(experiment: str, simplifications: str) -> None:
    world = Science(experiment, simplifications)
    for seed in (0, 7):
        start = world.reset(seed)
        assert start.text.startswith("Your task is to") and start.reached == 0
        turns = played(world, world.gold())
        assert turns[-1].success and turns[-1].terminated
        assert not any(turn.terminated for turn in turns[:-1])
        assert sum(turn.score for turn in turns) == pytest.approx(1.0)
        reached = [turn.reached for turn in turns]
        assert reached == sorted(reached) and reached[-1] == start.subgoals
    world.close()


def test_an_experiment_has_a_name_and_two_numbers() -> None:
    assert {Science(name).experiment for name in ("melt", "1-2", "1", 1)} == {"melt"}
    with pytest.raises(UserError, match="did you mean melt"):
        Science("molt")


def test_variations_come_again_after_the_last(world: Science) -> None:
    first = world.reset(3)
    assert world.reset(303) == first
    assert world.reset(4) != first


def test_focusing_on_the_wrong_thing_fails_without_a_penalty() -> None:
    world = Science("lifespan-longest-lived")
    world.reset(0)
    turns = played(world, [*world.gold()[:-1], "focus on baby mouse"])
    assert sum(turn.score for turn in turns[:-1]) > 0
    wrong = turns[-1]
    assert wrong.terminated and not wrong.success and wrong.valid and wrong.score == 0.0
    assert wrong.reached == turns[-2].reached < wrong.subgoals
    world.close()


def test_worlds_of_one_machine_do_not_depend_on_each_other() -> None:
    alone, other = Science("find-animal"), Science("find-animal")
    alone.reset(5)
    outside = ["open door to hallway", "go to hallway", "open door to greenhouse"]
    outside += ["go to greenhouse", "open door to outside", "go to outside"]
    outside += ["wait1", "look around"] * 4  # animals come and go by chance
    expected = played(alone, outside)
    alone.reset(5)
    other.reset(11)
    mixed = []
    for action in outside:
        mixed.append(alone.step(action))
        other.step("wait")
        other.gold()
    assert mixed == expected
    alone.close()
    assert other.step("look around").valid, "the machine stays for the other"
    other.close()


def test_commands_that_list_what_can_be_said_mean_nothing(world: Science) -> None:
    world.reset(0)
    for said in ("help", "objects", "OBJECTS "):
        turn = world.step(said)
        assert not turn.valid and len(turn.text) < 60
    assert "non-living" in world.step("task").text


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("The door is already open.", True),
        ("The apple is not something that can be activated.", True),
        ("It's not clear how to get there from here.", True),
        ("Its not clear how to go to/through the apple.", True),
        ("You can't move something into itself.", True),
        ("The fridge isn't open, so you can't see inside.", True),
        ("The door is now open.", False),
        ("You move to the kitchen.", False),
        ("This room is called the hallway.\nIn it, you see:\nA door (that is not open)", False),
        ("Ambiguous request: Please enter the number for the action you intended", False),
    ],
)  # fmt: skip
def test_refusals_are_told_from_answers(text: str, refused: bool) -> None:
    assert bool(REFUSALS.match(text)) == refused


def test_unknown_simplifications_are_said() -> None:
    world = Science("melt", "noGravity")
    with pytest.raises(UserError, match="(?i)nogravity"):
        world.reset(0)
    world.close()
