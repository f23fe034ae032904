"""TextWorld's games: that they are the same everywhere, and what counts as a subgoal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from embodied.envs.text.textworld import TextWorldGame

from embodied.errors import UserError


def test_a_quest_in_two_rooms_is_followed_subgoal_by_subgoal(tmp_path: Path) -> None:
    world = TextWorldGame(games=str(tmp_path))
    task = next(k for k in range(40) if _has(world, k, "go", "take", "go"))
    turn = world.reset(task)
    assert (turn.reached, turn.subgoals) == (0, 4)  # to be back in the first room counts later
    reached = []
    for action in world.gold():
        turn = world.step(action)
        assert turn.valid and turn.told == {"answer": world.gold()[-1]}
        reached.append(turn.reached)
    assert reached == [1, 2, 3, 4] and turn.success and turn.score == 1.0


def _has(world: TextWorldGame, task: int, *verbs: str) -> bool:
    world.reset(task)
    return tuple(command.split()[0] for command in world.gold()[: len(verbs)]) == verbs


def test_looking_is_understood_and_reaches_nothing(tmp_path: Path) -> None:
    world = TextWorldGame(games=str(tmp_path))
    first = world.reset(3)
    turn = world.step("look")
    assert turn.valid and turn.reached == 0
    assert turn.text.splitlines()[0] in first.text
    assert not world.step("take the moon").valid


@pytest.mark.parametrize(
    "said",
    [
        "save",
        " quit",
        "look. Restart",
        "look then q",
        "look and,quit",
        "look, 'undo",
        "tw-extra-infos description",
        "\\rth Y-key",
    ],
)
def test_the_interpreter_itself_is_not_talked_to(said: str, tmp_path: Path) -> None:
    world = TextWorldGame(games=str(tmp_path))
    world.reset(3)
    turn = world.step(said)
    assert not turn.valid and not turn.terminated
    assert world.step("look").valid  # nothing was asked back


def test_a_thing_may_have_a_letter_for_a_name(tmp_path: Path) -> None:
    world = TextWorldGame(games=str(tmp_path))
    world.reset(42)
    assert "unlock type Q safe with type Q latchkey" in world.gold()
    turns = [world.step(action) for action in world.gold()]
    assert all(turn.valid for turn in turns) and turns[-1].success


def test_the_first_turn_says_what_is_to_be_done_and_shows_no_banner(tmp_path: Path) -> None:
    world = TextWorldGame(games=str(tmp_path))
    for task in range(4):
        text = world.reset(task).text
        assert "$$" not in text and ">" not in text and "score" not in text.lower()
        named = world.gold()[-1].split()[-1]
        assert named in text


def test_the_basic_theme_says_the_same_in_fewer_words(tmp_path: Path) -> None:
    texts = {}
    for theme in ("house", "basic"):
        world = TextWorldGame(theme=theme, games=str(tmp_path))
        texts[theme] = " ".join(world.reset(task).text for task in range(4))
        assert [world.step(action).valid for action in world.gold()] == [True] * 4
    assert len(texts["basic"].split()) < 0.6 * len(texts["house"].split())


def test_the_last_instruction_alone_is_told(tmp_path: Path) -> None:
    world = TextWorldGame(theme="basic", instructions="last", games=str(tmp_path))
    for task in range(3):
        told = world.reset(task).text.split("-=")[0].lower()
        *before, last = world.gold()
        assert last.split()[-1].lower() in told and "next" not in told
        assert [world.step(action).valid for action in world.gold()] == [True] * 4
    with pytest.raises(UserError, match="env.instructions.*last"):
        TextWorldGame(instructions="none")


def test_a_game_is_the_same_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys; from embodied.envs.text.textworld import TextWorldGame\n"
        "w = TextWorldGame(games=sys.argv[1]); print(w.reset(7).text, w.gold())"
    )
    said = []
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        said.append(run.stdout)
    assert said[0] == said[1] and len(said[0]) > 100


def test_games_are_kept_and_of_the_size_asked_for(tmp_path: Path) -> None:
    world = TextWorldGame(rooms=1, objects=2, quest_length=2, games=str(tmp_path))
    world.reset(0)
    assert len(world.gold()) == 2
    kept = {file.name for file in (tmp_path / "w1-o2-q2-house").iterdir()}
    assert {"0.z8", "0.json"} <= kept and not any(name.startswith("tmp") for name in kept)


def test_bad_settings_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="env.rooms=0"):
        TextWorldGame(rooms=0)
    with pytest.raises(UserError, match="env.theme.*house"):
        TextWorldGame(theme="hut")
