"""Events of TextWorld's games are found as the library finds them."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("textworld")

from embodied.envs.text.textworld import TextWorldGame
from embodied.envs.text.textworld_events import Events, watch


def started(file: Path) -> tuple[Any, Any]:
    import textworld

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        infos = textworld.EnvInfos(last_action=True, admissible_commands=False)
        game = textworld.start(str(file), infos)
        return game, game.reset()


@pytest.mark.parametrize("theme", ["house", "basic"])
def test_the_library_and_we_find_the_same_actions_and_facts(theme: str, tmp_path: Path) -> None:
    world = TextWorldGame(2, 5, 4, theme=theme, games=str(tmp_path))
    draw, changes = random.Random(0), 0
    for seed in range(2):
        world.reset(seed)
        file = world.folder / f"{seed}.z8"
        (theirs, told), (ours, _) = started(file), started(file)
        watch(ours)
        assert isinstance(ours._wrapped_env._game_progression, Events)
        plan = [*world.gold()[:-1], "look", "think"]
        for turn in range(40):
            valid = told["_valid_actions"]
            said = theirs._wrapped_env._inform7.gen_commands_from_actions(valid)
            command = plan[turn] if turn < len(plan) else draw.choice(said)
            told, _, over = theirs.step(command)
            mine, _, mine_over = ours.step(command)
            assert mine["feedback"] == told["feedback"] and mine_over == over
            assert str(mine["_last_action"]) == str(told["_last_action"])
            assert set(mine["_facts"]) == set(told["_facts"])
            changes += mine["_last_action"] is not None
            if over:
                break
        theirs.close()
        ours.close()
    world.close()
    assert changes > 40


def test_a_game_of_another_make_is_left_as_it_is() -> None:
    inside = SimpleNamespace(_game_progression="theirs", _inform7="theirs")
    watch(SimpleNamespace(_wrapped_env=inside))
    assert vars(inside) == {"_game_progression": "theirs", "_inform7": "theirs"}
