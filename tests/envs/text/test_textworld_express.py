"""The games of TextWorldExpress."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from embodied.envs.text.textworld_express import ExpressGame

from embodied.errors import UserError

pytest.importorskip("textworld_express")
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
GAMES = {
    "arithmetic": "",
    "coin": "numLocations=5,includeDoors=1",
    "cookingworld": "numLocations=3,numIngredients=2,includeDoors=0",
    "mapreader": "",
    "peckingorder": "",
    "simonsays": "",
    "sorting": "",
    "twc": "",
}


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """One machine for all tests here: it stays while a world holds it."""
    world = ExpressGame("simonsays")
    world.reset(0)
    yield
    world.close()


@pytest.mark.parametrize("game", GAMES)
def test_the_gold_path_wins_in_every_fold(game: str) -> None:
    world = ExpressGame(game, GAMES[game])
    for seed in (0, 1, 18, 9999, 10000, 20001, 2**31 + 7):
        turn = world.reset(seed)
        assert turn.reached == 0 and not turn.terminated
        reached, scores = [], []
        for action in world.gold():
            assert not turn.terminated
            turn = world.step(action)
            assert turn.valid, turn.text
            reached.append(turn.reached)
            scores.append(turn.score)
        assert turn.success and turn.terminated
        assert sum(scores) == pytest.approx(1.0)
        assert reached == sorted(reached) and reached[-1] == turn.subgoals
        gains = [score > 0 for score in scores]
        assert sum(gains) == turn.subgoals, "each subgoal is a gain of the world's own score"
    world.close()


def test_a_gold_path_that_the_package_draws_by_the_clock_is_the_same_again() -> None:
    for game in ("coin", "twc"):
        one, two = ExpressGame(game), ExpressGame(game)
        for seed in range(4):
            assert one.reset(seed) == two.reset(seed)
            assert one.gold() == two.gold()
        one.close()
        two.close()


def test_undoing_costs_what_doing_has_paid_and_keeps_the_subgoal() -> None:
    world = ExpressGame("twc")
    for seed in range(5):
        world.reset(seed)
        gold = world.gold()
        put = next(n for n, action in enumerate(gold) if action.startswith("put"))
        for action in gold[: put + 1]:
            before = world.step(action)
        assert before.score > 0
        thing = gold[put].removeprefix("put ").split(" in ")[0]
        after = world.step(f"TAKE {thing.upper()}")
        assert after.valid and after.score == pytest.approx(-before.score)
        assert after.reached == before.reached
        assert world.step(gold[put]).score == pytest.approx(before.score)
    world.close()


def test_a_wrong_answer_ends_the_game_without_success() -> None:
    world = ExpressGame("sorting")
    world.reset(0)
    gold = world.gold()
    world.step(gold[-2])
    turn = world.step(gold[-1])
    assert turn.terminated and not turn.success and turn.valid
    assert turn.reached < turn.subgoals
    world.close()


def test_refusals_are_not_valid() -> None:
    world = ExpressGame("coin", "numLocations=6,includeDoors=1")
    world.reset(0)
    refused = {}
    for way in ("north", "east", "south", "west"):
        moved = world.step(f"move {way}")
        if moved.valid:
            break
        refused[moved.text] = way
    assert any("door is closed" in text for text in refused) or moved.valid
    assert not world.step("help").valid
    assert not world.step("task please").valid
    world.close()


def test_no_list_of_commands_is_shown() -> None:
    world = ExpressGame("arithmetic")
    texts = [world.reset(3).text, *(world.step(action).text for action in world.gold())]
    assert "math problem" in texts[0]
    assert not any("look around" in text or "put " in text[20:] for text in texts[1:])
    world.close()


def test_what_does_not_exist_is_said() -> None:
    with pytest.raises(UserError, match="did you mean coin"):
        ExpressGame("coins")
    world = ExpressGame("coin", "numRooms=3")
    with pytest.raises(UserError, match="numRooms"):
        world.reset(0)
