"""Households: the six kinds of tasks worked by hand, and ALFWorld's own engine as the reference."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from embodied.envs.text import household
from embodied.envs.text.homes import TASKS
from embodied.envs.text.household import Household

from embodied.errors import UserError

SMALL = (6, 6)
"""Places and objects of the homes that are worked by hand."""
CASES = {
    # a wrong thing, a wrong place
    "place": (0, "put some cd on sofa", """
        0 go to coffeetable 1
        0 take creditcard 1 from coffeetable 1
        0 move creditcard 1 to coffeetable 1
        1 take cd 2 from coffeetable 1
        1 go to armchair 1
        1 move cd 2 to armchair 1
        1 take cd 2 from armchair 1
        1 go to sofa 1
        2 move cd 2 to sofa 1"""),
    # the lamp first, and a wrong thing under it
    "light": (1, "look at cd under the desklamp", """
        0 go to sidetable 1
        0 use desklamp 1
        0 take keychain 1 from sidetable 1
        0 move keychain 1 to sidetable 1
        0 go to armchair 1
        1 take cd 1 from armchair 1
        3 go to sidetable 1"""),
    # a wrong thing is washed, the right one put there as it is
    "clean": (2, "put a clean cup in countertop", """
        0 go to sinkbasin 1
        0 take apple 1 from sinkbasin 1
        0 clean apple 1 with sinkbasin 1
        0 move apple 1 to sinkbasin 1
        1 take cup 2 from sinkbasin 1
        1 go to countertop 1
        1 move cup 2 to countertop 1
        1 take cup 2 from countertop 1
        1 go to sinkbasin 1
        2 clean cup 2 with sinkbasin 1
        2 go to countertop 1
        3 move cup 2 to countertop 1"""),
    # cooled on the way: it stays reached that it was hot, and is not solved
    "heat": (3, "heat some potato and put it in garbagecan", """
        0 go to sinkbasin 1
        1 take potato 1 from sinkbasin 1
        1 go to microwave 1
        2 heat potato 1 with microwave 1
        2 go to fridge 1
        2 cool potato 1 with fridge 1
        2 go to garbagecan 1
        2 move potato 1 to garbagecan 1
        2 take potato 1 from garbagecan 1
        2 go to microwave 1
        2 heat potato 1 with microwave 1
        2 go to garbagecan 1
        3 move potato 1 to garbagecan 1"""),
    # what cannot be heated, and another place of the right kind
    "cool": (4, "put a cool pot in countertop", """
        0 go to sinkbasin 1
        1 take pot 1 from sinkbasin 1
        1 go to microwave 1
        1 refused: heat pot 1 with microwave 1
        1 go to fridge 1
        2 cool pot 1 with fridge 1
        2 go to countertop 2
        3 move pot 1 to countertop 2"""),
    # one at a time, and out of a drawer that is shut
    "two": (5, "put two newspaper in bed", """
        0 go to desk 1
        1 take newspaper 1 from desk 1
        1 refused: take vase 1 from garbagecan 1
        1 go to bed 1
        2 move newspaper 1 to bed 1
        2 go to drawer 2
        2 refused: take newspaper 2 from drawer 2
        2 open drawer 2
        3 take newspaper 2 from drawer 2
        3 go to bed 1
        4 move newspaper 2 to bed 1"""),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_subgoals_are_reached_as_worked_by_hand(task: str) -> None:
    seed, goal, script = CASES[task]
    world = Household(*SMALL)
    first = world.reset(seed)
    assert first.text.endswith(f"\n\nYour task is to: {goal}.")
    assert (first.reached, first.success, first.valid) == (0, False, True)
    lines = [line.strip().split(" ", 1) for line in script.strip().splitlines()]
    for k, (reached, said) in enumerate(lines):
        refused, last = said.startswith("refused: "), k == len(lines) - 1
        turn = world.step(said.removeprefix("refused: "))
        assert turn.valid is not refused
        assert refused is (turn.text == "Nothing happens.")
        assert turn.reached == int(reached), said
        assert turn.success is turn.terminated is last
        assert turn.score == float(last)
    assert turn.reached == turn.subgoals


def test_who_searches_takes_what_it_has_seen_and_looks_in_order() -> None:
    world = Household(12, 12, search=True)
    for seed in range(24):
        first, plan = world.reset(seed), world.gold()
        seen = first.text
        listed = re.findall(r"\ba ([a-z]+ \d+)", first.text)
        for k, said in enumerate(plan):
            if said.startswith("take"):
                assert said.split(" from ")[0][5:] in seen, "it knows only what it has seen"
            turn = world.step(said)
            seen += turn.text
            assert turn.valid and turn.success == (k == len(plan) - 1)
        before = [said[6:] for said in plan[: [said[:4] for said in plan].index("take")]
                  if said.startswith("go to")]  # fmt: skip
        assert before == listed[: len(before)], "it has looked into the first places, in order"


def test_tasks_are_of_the_kinds_that_are_wanted() -> None:
    world, clean = Household(12, 12, kinds=["clean"]), re.compile(r"to: (put a clean|clean some)")
    assert all(clean.search(world.reset(seed).text) for seed in range(12))
    every = Household(12, 12)
    assert [bool(clean.search(every.reset(seed).text)) for seed in range(6)].count(True) == 1
    with pytest.raises(UserError, match="unknown env.kinds 'wash'"):
        Household(kinds=["wash"])


def test_gold_solves_tasks_and_every_action_is_needed() -> None:
    world = Household()
    for seed in range(30):
        world.reset(seed)
        gold = world.gold()
        turns = [world.step(said) for said in gold]
        assert all(turn.valid for turn in turns)
        assert [turn.success for turn in turns] == [False] * (len(gold) - 1) + [True]
        assert sum(turn.score for turn in turns) == 1.0
        assert turns[-1].reached == turns[-1].subgoals
        assert world.gold() == gold, "it is a plan from the start"
        for left_out in range(len(gold)):
            world.reset(seed)
            rest = [world.step(said) for k, said in enumerate(gold) if k != left_out]
            assert not any(turn.success for turn in rest), (gold, left_out)


@pytest.mark.parametrize("size", [(6, 4), (16, 40)])
def test_homes_of_any_size_have_a_task(size: tuple[int, int]) -> None:
    for seed in range(300):
        home = household.draw(seed, *size)
        names = [fact[1] for fact in home.facts if fact[0] == "receptacletype"]
        assert len(names) == size[0] and set(home.targets) <= set(names)
        assert len(home.lies) - ("desklamp_1" in home.lies) == size[1]
        assert home.task == [*TASKS][seed % 6]
        if home.task != "light":
            assert not {home.lies[thing] for thing in home.wanted} & set(home.targets)


@pytest.mark.parametrize("seed", [2, 7])
def test_alfworlds_own_engine_answers_the_same(seed: int) -> None:
    textworld = pytest.importorskip("textworld")
    from textworld.envs import PddlEnv

    spec = find_spec("alfworld")
    assert spec is not None and spec.submodule_search_locations
    data = Path(spec.submodule_search_locations[0]) / "data"
    texts = {"pddl_domain": "alfred.pddl", "grammar": "alfred.twl2"}
    game = {key: (data / name).read_text() for key, name in texts.items()}
    world, rng = Household(*SMALL), random.Random(seed)
    room = world.reset(seed).text.split("\n")[0]
    theirs = PddlEnv(textworld.EnvInfos())
    theirs.load({**game, "pddl_problem": household.draw(seed, *SMALL).problem})
    for entity in theirs._entity_infos.values():
        entity.name = entity.id.replace("_", " ")
    state = theirs.reset()
    assert room in state.feedback
    planned = theirs._pddl_state.replan(theirs._entity_infos)
    assert len(world.gold()) <= len(planned)
    verbs: Counter[str] = Counter()
    at_start, lit = True, False
    for _ in range(45):
        can = [said for said in state["admissible_commands"] if said != "help"]
        rare = min(verbs[said.split()[0]] for said in can)
        said = rng.choice([said for said in can if verbs[said.split()[0]] == rare])
        verbs[said.split()[0]] += 1
        state, _, done = theirs.step(said)
        turn = world.step(said)
        lit |= said.startswith("use")
        at_start &= not said.startswith("go to")
        # theirs does not list the room again, nor tell that a lamp is off
        if not (said == "look" and at_start) and (lit or said != "examine desklamp 1"):
            assert turn.text == state.feedback, said
        assert turn.valid and turn.success is bool(done)
        if done:
            break
    assert {"go", "open", "take", "move", "examine", "inventory", "look"} <= {*verbs}


def test_another_process_hashes_otherwise_and_says_the_same() -> None:
    code = (
        "import json; from embodied.envs.text.household import Household\n"
        "world, said = Household(), []\n"
        "for seed in range(6):\n"
        "    said.append(world.reset(seed).text)\n"
        "    said += [world.step(action).text for action in world.gold()]\n"
        "print(json.dumps(said))"
    )
    told = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, check=True, text=True,
                env={**os.environ, "PYTHONHASHSEED": hashing},
            ).stdout
        )
        for hashing in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    assert told[0][0] == Household().reset(0).text


def test_worlds_of_a_process_do_not_mix() -> None:
    alone = Household()
    expected = []
    for seed in (0, 1):
        alone.reset(seed)
        expected.append([alone.step(said) for said in [*alone.gold()[:-1], "inventory"]])
    worlds = [Household(), Household()]
    for seed, world in enumerate(worlds):
        world.reset(seed)
    plans = [[*world.gold()[:-1], "inventory"] for world in worlds]
    seen: list[list] = [[], []]
    for k in range(max(map(len, plans))):
        for i, world in enumerate(worlds):
            seen[i] += [world.step(said) for said in plans[i][k : k + 1]]
    assert seen == expected


def test_what_can_be_done_is_not_listed() -> None:
    world = Household()
    for turn in (world.reset(0), world.step("look"), world.step("help"), world.step("?")):
        assert "go to armchair" not in turn.text
    assert world.step("  Go   TO\tdrawer 1 ").valid
    for said in ("go to drawer_1", "go to drawer 1 drawer 2", "\x00", "é", "go to " * 9999):
        turn = world.step(said)
        assert (turn.text, turn.valid, turn.score) == ("Nothing happens.", False, 0.0)


def test_bad_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for places, objects in ((5, 12), (17, 12), (12, 3), (12, 41)):
        with pytest.raises(UserError, match=r"env\.(places|objects)="):
            Household(places, objects)
    household._domain.cache_clear()
    monkeypatch.setattr(household, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="alfworld"):
        Household()


def test_the_programs_own_arguments_are_left_alone() -> None:
    before = list(sys.argv)
    Household().reset(1234)
    assert sys.argv == before
