"""Evaluation: what an episode does depends on its seed and the policy alone, and is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.actor import ROWS, InBlocks, find_actor
from embodied.build import make_agent, make_env
from embodied.config import compose_config
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.evaluate import FIELDS, evaluate, run_episodes
from embodied.train import train
from embodied.types import Carry, Obs

SMALL = [
    "~tuned", "env=hopper", "num_envs=4", "agent.rollout_steps=8", "agent.hidden=[8]",
    "agent.compile=false", "tensorboard=false", "video=false", "total_steps=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose policy is hardly trained."""
    return train([*SMALL, f"run_dir={tmp_path_factory.mktemp('runs')}/run"])


@pytest.fixture
def run(trained: Path) -> Path:
    """The same, not evaluated yet."""
    (trained / "eval.jsonl").unlink(missing_ok=True)
    return trained


def rows(file: Path) -> dict[int, dict[str, Any]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["seed"] for row in found}) == len(found), "a seed was run twice"
    return {row["seed"]: row for row in found}


def worlds(num_envs: int, *overrides: str) -> Stepper:
    return make_env(compose_config(["env=hopper", *overrides]), num_envs=num_envs)


@pytest.mark.parametrize("overrides", [[], ["env.randomise.obs_noise=0.01",
                                            "env.randomise.delay_steps=[0,2]"]])  # fmt: skip
def test_an_episode_does_not_depend_on_the_number_of_worlds(
    run: Path, overrides: list[str]
) -> None:
    actor = find_actor(str(run))
    results = []
    for num_envs in (1, 3, 7):
        env = worlds(num_envs, *overrides)
        found = run_episodes(env, actor.policy(env), range(500, 509))
        results.append({row["seed"]: row for row in found})
    assert results[0].keys() == set(range(500, 509))
    assert len({row["length"] for row in results[0].values()}) > 1  # so worlds fell out of step
    assert results[0] == results[1] == results[2]


def test_more_worlds_than_seeds_run_each_seed_once(run: Path) -> None:
    env = worlds(5)
    found = list(run_episodes(env, find_actor(str(run)).policy(env), [7, 8]))
    assert sorted(row["seed"] for row in found) == [7, 8]
    assert list(run_episodes(env, find_actor(str(run)).policy(env), [])) == []


def test_a_row_says_what_a_reader_needs(run: Path) -> None:
    assert evaluate(str(run), ["episodes=3", "seed=40", "max_steps=5"]) == 0
    found = rows(run / "eval.jsonl")
    assert sorted(found) == [40, 41, 42]
    for row in found.values():
        assert tuple(row) == FIELDS
        assert row["checkpoint"].startswith("step_000000000064@")
        assert (row["env"], row["length"], row["fault"]) == ("hopper", 5, None)
        assert (row["success"], type(row["return"])) == (False, float)


def test_what_was_run_is_not_run_again(run: Path) -> None:
    file = run / "eval.jsonl"
    evaluate(str(run), ["episodes=4", "max_steps=5"])
    first = file.read_text().replace('"length": 5', '"length": -1')  # a mark that a rerun removes
    file.write_text(first)
    evaluate(str(run), ["episodes=6", "max_steps=5", "num_envs=2"])
    assert file.read_text().startswith(first)
    assert [rows(file)[seed]["length"] for seed in range(10_000, 10_006)] == [-1] * 4 + [5] * 2


@pytest.mark.parametrize("other", ["max_steps=6", "greedy=false", "env.randomise.mass=[1.1,1.2]"])
def test_other_settings_are_another_series(run: Path, other: str) -> None:
    for settings in ([], [other]):
        evaluate(str(run), ["episodes=2", "max_steps=5", *settings])
    lines = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert len({line["settings"] for line in lines}) == 2


@pytest.mark.parametrize("settings", [["num_envs=1"], ["sim.threads=1"]])
def test_what_changes_no_episode_is_the_same_series(run: Path, settings: list[str]) -> None:
    evaluate(str(run), ["episodes=2", "max_steps=5"])
    before = (run / "eval.jsonl").read_text()
    evaluate(str(run), ["episodes=2", "max_steps=5", *settings])
    assert (run / "eval.jsonl").read_text() == before


@pytest.mark.parametrize("kept", [1, 14, 60, -1])
def test_a_torn_last_line_is_run_again(run: Path, kept: int) -> None:
    file, arguments = run / "eval.jsonl", ["episodes=3", "max_steps=5", "num_envs=1"]
    evaluate(str(run), arguments)
    whole = file.read_text()
    *lines, last = whole.splitlines(keepends=True)
    file.write_text("".join(lines) + last[:kept])
    evaluate(str(run), arguments)
    assert file.read_text() == whole


@pytest.mark.parametrize("text", ["notes\n", "no", '{"a": 1}\n', '{"checkpoint": "x"}\n', "3\n"])
def test_a_file_of_another_kind_is_left_alone(run: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(text)
    with pytest.raises(UserError, match="no row of an evaluation"):
        evaluate(str(run), ["episodes=1", "max_steps=5", f"out={file}"])
    assert file.read_text() == text


def test_episodes_are_kept_as_they_finish(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def stop_later(self: InBlocks, carry: Carry, obs: Obs, greedy: bool = False) -> Any:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise KeyboardInterrupt
        return self.policy.act(carry, obs, greedy)

    monkeypatch.setattr(InBlocks, "act", stop_later)
    with pytest.raises(KeyboardInterrupt):
        evaluate(str(run), ["episodes=9", "max_steps=5", "num_envs=2"])
    assert sorted(rows(run / "eval.jsonl")) == [10_000, 10_001, 10_002, 10_003]


class Breaks:
    """Asks for what is no number, in the first world, when its episode is three steps old."""

    action_spec: Any = None

    def carry(self, num_worlds: int) -> Carry:
        return {"age": np.zeros(num_worlds, np.int64)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        action = np.zeros((len(obs["state"]), 3), np.float32)
        action[0] = np.nan if carry["age"][0] == 3 else 0.0
        return {"age": carry["age"] + 1}, action


def test_a_faulted_episode_is_a_failure_and_counted() -> None:
    env = worlds(2, "env.max_steps=6")
    step = env.step

    def succeed(action: np.ndarray) -> Any:
        out = step(action)
        out.success = np.ones(2, bool)
        return out

    env.step = succeed  # type: ignore[method-assign]
    found = {row["seed"]: row for row in run_episodes(env, Breaks(), range(4))}
    assert [found[seed]["length"] for seed in range(4)] == [4, 6, 4, 6]
    assert [found[seed]["success"] for seed in range(4)] == [False, True, False, True]
    assert [found[seed]["fault"] for seed in range(4)] == ["action is not finite", None] * 2


def test_success_at_any_step_counts() -> None:
    env = worlds(1, "env.max_steps=6")
    step, count = env.step, 0

    def succeed_once(action: np.ndarray) -> Any:
        nonlocal count
        count, out = count + 1, step(action)
        out.success = np.array([count == 2])
        return out

    env.step = succeed_once  # type: ignore[method-assign]
    actor = find_actor("random").policy(env)
    found = list(run_episodes(env, actor, [0, 1]))
    assert [row["success"] for row in found] == [True, False]


def test_a_policy_is_compared_with_another(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["episodes=6", "max_steps=8", f"out={tmp_path}/all.jsonl"]
    evaluate(str(run), [*settings, f"against={run}"])
    assert "+0.00   +0.00 to +0.00" in capsys.readouterr().out
    evaluate(str(run), [*settings, "against=random"])
    assert "difference" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines[6:]] == [line["seed"] for line in lines[:6]]
    assert [line["checkpoint"] == "random" for line in lines] == [False] * 6 + [True] * 6


def test_success_is_shown_only_where_it_means_something(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(str(run), ["episodes=1", "max_steps=3"])
    assert "success" not in capsys.readouterr().out
    evaluate("expert", ["env=pick_cube", "episodes=2"])
    assert "100.0%   34.2% to 100.0%" in capsys.readouterr().out


def test_a_flaw_does_worse_than_the_expert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["env=pick_cube", "episodes=4", f"out={tmp_path}/e.jsonl", "against=expert"]
    evaluate("expert:near_miss", settings)
    assert "-100.0%" in capsys.readouterr().out
    success = [json.loads(line)["success"] for line in (tmp_path / "e.jsonl").open()]
    assert success == [False] * 4 + [True] * 4


def test_a_policy_of_stable_baselines3(run: Path, tmp_path: Path) -> None:
    cfg = compose_config(["env=hopper", "agent=sb3_ppo", "num_envs=2"])
    agent: Any = make_agent(cfg, worlds(2))
    agent.save_zip(tmp_path / "model.zip")
    who, file = str(tmp_path / "model.zip"), tmp_path / "rows"
    assert evaluate(who, ["env=hopper", "episodes=2", "max_steps=5", f"out={file}"]) == 0
    assert {row["checkpoint"][:10] for row in rows(file).values()} == {"model.zip@"}
    with pytest.raises(UserError, match="env=NAME"):
        evaluate(who)


@pytest.mark.parametrize(
    ("who", "arguments", "message"),
    [
        ("random", [], "env=NAME"),
        ("expert", ["env=hopper"], "no scripted expert"),
        ("expert:slw", ["env=pick_cube"], "did you mean slow"),
        ("nowhere", [], "no run at nowhere"),
        ("model.zip", ["env=hopper"], "No such file"),
        ("random", ["env=hopper", "episodes=0"], "episodes=0"),
        ("random", ["env=hopper", "seed=-1"], "seed=-1"),
        ("random", ["env=hopper", "greedy=maybe"], "true or false"),
        ("random", ["env=hopper", "num_env=3"], "did you mean num_envs"),
        ("random", ["env=hopper", "episodes"], "write key=value"),
        ("random", ["env=hopper", "out=nowhere/x.jsonl"], "a folder that exists"),
    ],
)
def test_bad_input(who: str, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(who, arguments)


def test_a_run_can_act_in_other_worlds_of_the_same_shape(run: Path, tmp_path: Path) -> None:
    evaluate(str(run), ["env=hopper", "env.max_steps=4", "episodes=1", f"out={tmp_path}/a"])
    assert next(iter(rows(tmp_path / "a").values()))["length"] == 4
    with pytest.raises(UserError, match="does not fit"):
        evaluate(str(run), ["env=half_cheetah", "episodes=1"])


def test_a_lone_checkpoint_is_not_written_into(run: Path, tmp_path: Path) -> None:
    (source,) = (run / "checkpoints").glob("step_*")
    lone = tmp_path / source.name
    source.rename(lone)
    try:
        evaluate(str(lone), ["episodes=1", "max_steps=3"])
    finally:
        lone.rename(source)
    assert (tmp_path / "eval.jsonl").exists()


class Echo:
    """Acts and remembers what it is shown, and in which place of which call."""

    action_spec: Any = None

    def __init__(self) -> None:
        self.places: dict[float, int] = {}

    def carry(self, num_worlds: int) -> Carry:
        return {"sum": np.zeros(num_worlds)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        assert len(obs["state"]) == len(carry["sum"]) == ROWS
        self.places |= {float(row[0]): place for place, row in enumerate(obs["state"])}
        return {"sum": carry["sum"] + obs["state"][:, 0]}, obs["state"] * 2.0


@pytest.mark.parametrize("seeds", [[5], [3, 19, 35, 4], list(range(70)), [7] * 20])
def test_blocks_are_put_together_again(seeds: list[int]) -> None:
    count = len(seeds)
    obs = {"state": np.arange(1.0, 3.0 * count + 1.0).reshape(count, 3)}
    policy = InBlocks(Echo())
    carry = policy.carry(count)
    policy.seat(np.array(seeds))
    for turn in (1, 2):
        carry, action = policy.act(carry, obs)
        np.testing.assert_array_equal(action, obs["state"] * 2.0)
        np.testing.assert_array_equal(carry["sum"], turn * obs["state"][:, 0])


def test_an_episode_has_one_place_whoever_is_beside_it() -> None:
    found = []
    for seeds in ([21], [1, 2, 21, 5], [5, 37, 21, 53, 20]):
        echo = Echo()
        policy = InBlocks(echo)
        carry = policy.carry(len(seeds))
        policy.seat(np.array(seeds))
        policy.act(carry, {"state": np.array(seeds, float)[:, None]})
        found.append(echo.places[21.0])
    assert found[1:] == [21 % ROWS] * 2  # alone, it fills the empty places too
