"""The recorded replies are what they are said to be, and what is kept is judged by other seeds."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.reward_code import REPLIES, STEPS, cells, told
from embodied.abstraction import abstraction
from embodied.build import make_env
from embodied.config import compose_config, options
from embodied.evidence import gather
from embodied.jail import landlock_version
from embodied.reward_author import read_recording, spoken
from embodied.reward_check import Checker

needs_landlock = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: no code is run"
)
WRONG = read_recording(REPLIES / "wrong_for_pick_cube.md")


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    env: Any = make_env(compose_config(["env=pick_cube", "sim.threads=1"]), num_envs=2)
    about, evidence = abstraction(env), gather(env)
    env.close()
    found = Checker(about, evidence, deadline_s=0.5)
    yield found
    found.close()


def test_there_are_enough_of_them() -> None:
    assert len(STEPS) >= 12 and set(STEPS) <= set(options("env"))
    assert len(WRONG) >= 30 and len({remark for _, _, remark in WRONG}) >= 12
    for task in STEPS:
        rounds = [number for number, _, _ in read_recording(REPLIES / f"{task}.md")]
        assert len(rounds) >= 3 and rounds == sorted(rounds) and rounds[0] == 0 < rounds[-1]
    assert {c["reward"] for c in cells() if c["task"] == "jump"} == {
        "hand", "authored_0", "authored_1", "authored_2", "chance_0", "chance_1", "chance_2",
    }  # fmt: skip


@needs_landlock
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_is_refused_for_its_reason(checker: Checker, number: int) -> None:
    _, reply, remark = WRONG[number]
    found = checker.check(spoken(reply))
    assert found.refused == remark, (found.refused, found.why)
    assert found.why and "\n" not in found.why


@needs_landlock
def test_the_last_reply_for_pick_cube_passes(checker: Checker) -> None:
    _, reply, _ = read_recording(REPLIES / "pick_cube.md")[-1]
    found = checker.check(spoken(reply))
    assert not found.refused and found.order > 0.95


def row(task: str, reward: str, seed: int, success: float | None) -> dict[str, Any]:
    figures = {"refused": "name"} if success is None else {"success": success}
    return {"cell": {"task": task, "reward": reward}, "seed": seed, "figures": figures}


def test_what_is_kept_by_a_seed_is_judged_by_the_others() -> None:
    rows = [row("jump", "hand", s, x) for s, x in enumerate((1.0, 0.8, 0.9))]
    rows += [row("jump", "authored_0", s, x) for s, x in enumerate((0.9, 0.1, 0.2))]
    rows += [row("jump", "authored_1", s, x) for s, x in enumerate((0.5, 0.7, 0.6))]
    rows += [row("jump", "authored_2", s, None) for s in range(3)]
    rows += [row("jump", "chance_0", 0, 0.3), row("hop", "hand", 0, 0.0)]
    found = told(rows, "jump")
    assert found["hand"] == [1.0, 0.8, 0.9]
    # By seed 0 the first is kept, which the others show to be worse; by the others the second.
    assert found["kept"] == pytest.approx([0.15, 0.55, 0.6])
    assert found["regret"] == pytest.approx([0.5, 0.0, 0.0])
    assert found["chance"] == [0.3]
    more = told([*rows, row("jump", "authored_0", 3, 1.0)], "jump")  # a seed that is not done yet
    assert len(more["kept"]) == 3
