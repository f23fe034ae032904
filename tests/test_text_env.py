"""Text worlds that step together: tasks, faults, forks, and processes that are lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.errors import UserError
from embodied.text_env import TextEnv
from embodied.text_space import AnyText, texts
from embodied.types import WORLD_FAULT

DOORS = {"_target_": "tests.text_toys.Doors", "doors": 3}


def make(num_worlds: int = 4, **options: Any) -> TextEnv:
    return TextEnv(DOORS, "doors", num_worlds, **options)


def solve(env: TextEnv, steps: int) -> list[Any]:
    gold = env.gold()
    return [env.step(texts([actions[t] for actions in gold])) for t in range(steps)]


@pytest.mark.parametrize("workers", [0, 2])
def test_gold_actions_succeed_and_are_paid_one_in_all(workers: int) -> None:
    env = make(workers=workers)
    obs = env.reset()
    assert all(text.startswith("Open 3 doors.") for text in obs["text"])
    steps = solve(env, 3)
    np.testing.assert_array_equal(steps[1].success, False)
    np.testing.assert_array_equal(steps[2].success, True)
    np.testing.assert_array_equal(steps[2].terminated, True)
    np.testing.assert_allclose(sum(step.reward for step in steps), 1.0)
    np.testing.assert_allclose(env.readouts()["world.progress"], 1.0)
    env.close()


def test_what_was_not_understood_says_so_and_leaves_the_world_as_it_is() -> None:
    env = make(1)
    env.reset()
    step = env.step(texts(["dance"]))
    assert step.obs["text"][0].startswith("What?")
    assert not env.readouts()["world.valid"][0]
    assert env.readouts()["world.reached"][0] == 0


def test_processes_and_this_one_play_alike() -> None:
    here, there = make(5), make(5, workers=2)
    np.testing.assert_array_equal(here.reset()["text"], there.reset()["text"])
    for step, other in zip(solve(here, 3), solve(there, 3), strict=True):
        np.testing.assert_array_equal(step.obs["text"], other.obs["text"])
    there.close()


def test_worlds_of_a_group_play_one_task_and_all_tasks_come_before_one_comes_again() -> None:
    env = make(6, group=3, first_task=100, tasks=12)
    rows = []
    for _ in range(12):
        env.reset()
        rows.append(env.state_dict()["task"])
    tasks = np.array(rows)
    np.testing.assert_array_equal(tasks[:, [1, 2, 4, 5]], tasks[:, [0, 0, 3, 3]])
    for world in (0, 3):
        assert sorted(tasks[:, world]) == list(range(100, 112))
    assert (tasks[:, 0] != tasks[:, 3]).all()


def test_an_episode_ends_by_its_limit_and_then_stands_still() -> None:
    env = make(2, max_steps=2)
    env.reset()
    env.step(texts(["say nothing"] * 2))
    step = env.step(texts(["say nothing"] * 2))
    assert step.truncated.all() and not step.terminated.any()
    seen = env.step(texts(["say nothing"] * 2)).obs["text"]
    np.testing.assert_array_equal(seen, step.obs["text"])


@pytest.mark.parametrize("word", ["crash", "hang", "die"])
def test_a_world_that_fails_ends_its_episode_alone(word: str) -> None:
    env = make(4, workers=2, deadline_s=1.0)
    env.reset()
    gold = env.gold()
    env.step(texts([actions[0] for actions in gold]))
    step = env.step(texts([word, *(actions[1] for actions in gold[1:])]))
    assert step.fault.tolist() == [WORLD_FAULT, 0, 0, 0]
    assert step.truncated.tolist() == [True, False, False, False]
    assert env.pool.counts["failed"] == 1
    step = env.step(texts(["", *(actions[2] for actions in gold[1:])]))  # the others go on
    assert step.success.tolist() == [False, True, True, True]
    assert env.reset(np.array([True, False, False, False]))["text"][0].startswith("Open")
    env.close()


def test_a_crash_in_this_process_is_a_fault_too() -> None:
    env = make(2)
    env.reset()
    assert env.step(texts(["crash", "say oak"])).fault.tolist() == [WORLD_FAULT, 0]
    assert env.reset()["text"][0].startswith("Open")


def test_a_fork_goes_on_where_it_was_taken_and_leaves_the_first_alone() -> None:
    env = make(3)
    env.reset()
    gold = env.gold()
    env.step(texts([actions[0] for actions in gold]))
    rows = env.snapshot(np.array([0, 0]))
    obs = env.restore(rows, np.array([1, 2]))
    assert len(set(obs["text"])) == 1
    step = env.step(texts([gold[0][1], gold[0][1], "say nothing"]))
    assert env.readouts()["world.reached"].tolist() == [2, 2, 1]
    assert not step.done.any()


def test_a_saved_state_is_played_again_to_the_same_place() -> None:
    env, other = make(3), make(3, seed=7)
    env.reset()
    solve(env, 2)
    other.load_state_dict(env.state_dict())
    assert other.readouts()["world.reached"].tolist() == [2, 2, 2]
    for ours, theirs in ((env.step, other.step),):
        action = texts([actions[2] for actions in env.gold()])
        np.testing.assert_array_equal(ours(action).success, theirs(action).success)
    np.testing.assert_array_equal(env.reset()["text"], other.reset()["text"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"group": 3}, "env.group=3: num_envs=4 is no multiple of it"),
        ({"max_steps": 0}, "env.max_steps=0"),
        ({"deadline_s": 0.0, "workers": 1}, "env.deadline_s"),
    ],
)
def test_bad_settings_are_told_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(4, **options)


def test_worlds_that_cannot_be_made_say_why() -> None:
    with pytest.raises(UserError, match="cannot make tests.text_toys.Walls"):
        TextEnv({"_target_": "tests.text_toys.Walls"}, "walls", 1, workers=1)


def test_one_slow_process_makes_no_other_late() -> None:
    env = make(2, workers=2, deadline_s=1.0)
    env.reset()
    step = env.step(texts(["hang", "nap"]))  # the second answers while the first is replaced
    assert step.fault.tolist() == [WORLD_FAULT, 0]
    env.close()


def test_one_seed_for_all_keeps_groups_together() -> None:
    env = make(4, group=2)
    env.reset(seed=5)
    tasks = env.state_dict()["task"]
    assert tasks[0] == tasks[1] != tasks[2] == tasks[3]


def test_half_a_character_is_no_crash() -> None:
    env = make(1, workers=1)
    env.reset()
    step = env.step(texts(["half"]))
    assert not step.fault.any() and step.obs["text"][0].startswith("?")
    env.close()


def test_any_unicode_is_a_text() -> None:
    space = AnyText(8)
    assert space.contains("für 日本") and not space.contains("x" * 9) and not space.contains(3)
    assert space.contains(space.sample())


def test_a_process_that_hangs_does_not_outlive_who_started_it() -> None:
    code = (
        "import signal\n"
        "from embodied.text_space import texts\n"
        "from tests.test_text_env import make\n"
        "env = make(1, workers=1, deadline_s=60.0)\n"
        "env.reset()\n"
        "print(*(p._process.pid for p in env.pool._processes), flush=True)\n"
        "signal.alarm(1)\n"
        "env.step(texts(['hang']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGALRM and run.stdout, run.stderr
    left = [int(pid) for pid in run.stdout.split()]
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in left):
            return
        time.sleep(0.1)
    raise AssertionError("it hangs still")
