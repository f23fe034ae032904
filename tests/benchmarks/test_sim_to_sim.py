"""The grid of two physics engines: which cells there are, and its shares by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import sim_to_sim
from benchmarks.experts import TASKS
from benchmarks.sim_to_sim import (
    CLONED,
    NOMINAL,
    RANDOMISED,
    SIMS,
    cells,
    headline,
    run_cell,
    side_by_side,
    tabulate,
    trained,
)
from embodied.config import compose_config, options
from embodied.run import open_run
from embodied.statistics import wilson


def row(policy: str, sim: str, won: str, seed: int = 0, task: str = "reach") -> dict[str, Any]:
    return {
        "cell": {"task": task, "policy": policy, "sim": sim},
        "seed": seed,
        "figures": {"won": won},
    }


def test_every_task_has_an_expert_and_two_policies_in_every_simulator() -> None:
    plan = cells()
    assert len(plan) == len({tuple(c.values()) for c in plan}) == 7 * 3 * 3
    for task in TASKS:  # what is not cloned is trained as its tuned configuration says
        assert task in CLONED or f"{task}_ppo" in options("tuned")


@pytest.mark.parametrize("overrides", [RANDOMISED, NOMINAL, *SIMS.values()])
def test_what_it_overrides_can_be_composed(overrides: tuple[str, ...]) -> None:
    cfg = compose_config(["env=pick_cube", *overrides])
    varied = (cfg.env.randomise.mass, cfg.env.randomise.gains)
    assert all((span[0] < span[1]) == (overrides is RANDOMISED) for span in varied)


def test_what_survives_is_a_share_of_what_was_won() -> None:
    table = tabulate(
        [
            row("plain", "mujoco", "1101"),
            row("plain", "bullet", "1010"),
            row("plain", "mujoco", "1111", seed=1),
            row("plain", "bullet", "0111", seed=1),
            row("randomised", "bullet", "11"),
        ]
    )
    home, there, alone = table
    assert (home["success"], home["episodes"], home["seeds"]) == (7 / 8, 8, 2)
    assert "survived" not in home and "survived" not in alone  # nothing to compare it with
    assert there["success"] == 5 / 8 and there["of"] == 7
    assert there["survived"] == 4 / 7  # of the third episode MuJoCo saw no success
    assert (there["survived_low"], there["survived_high"]) == wilson(4, 7)
    found = headline(table)
    assert found["plain_lowest"] == found["plain_mean"] == 4 / 7
    assert found["expert_lowest"] is None and found["randomised_mean"] is None
    plain, randomised = (side_by_side(table)[f"reach: PPO, {k}"] for k in ("plain", "randomised"))
    assert plain["mujoco"]["mean"] == 7 / 8
    low, high = wilson(4, 7)
    assert plain["bullet_survived"] == {"mean": 4 / 7, "low": low, "high": high}
    assert list(randomised) == ["bullet"]


def test_what_is_not_learned_by_ppo_is_a_clone_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim_to_sim, "DEMONSTRATED", 2)
    monkeypatch.setattr(sim_to_sim, "CLONING", ("agent.steps=2", "agent.hidden=[8]"))
    path = trained("stack_cube", "randomised", 0, tmp_path, None)
    before = (path / "run.json").read_bytes()
    assert list(open_run(path).cfg.env.randomise.gains) == [0.7, 1.4]
    assert trained("stack_cube", "randomised", 0, tmp_path, None) == path
    assert (path / "run.json").read_bytes() == before


def test_a_policy_is_trained_once_and_plays_other_episodes_for_each_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("~tuned", "num_envs=8", "agent.hidden=[8]", "agent.rollout_steps=8",
             "agent.compile=false")  # fmt: skip
    monkeypatch.setitem(sim_to_sim.POLICIES, "plain", small)
    path = trained("reach", "plain", 0, tmp_path, 64)
    before = (path / "log.jsonl").read_bytes()
    cell = {"task": "reach", "policy": "plain", "sim": "bullet"}
    found = run_cell(cell, 0, tmp_path, episodes=2, steps=64)
    assert (path / "log.jsonl").read_bytes() == before
    assert found["episodes"] == 2 and len(found["won"]) == 2 and found["faults"] == 0
    asked: list[range] = []

    def episodes(env: Any, policy: Any, seeds: range) -> list[dict[str, Any]]:
        asked.append(seeds)
        return [{"seed": k, "success": k % 2 == 0, "fault": None} for k in seeds]

    monkeypatch.setattr(sim_to_sim, "run_episodes", episodes)
    expert = {"task": "reach", "policy": "expert", "sim": "bullet"}
    told = [run_cell(expert, seed, tmp_path, episodes=2, steps=None) for seed in (0, 1)]
    assert [t["won"] for t in told] == ["10", "10"]
    assert not set(asked[0]) & set(asked[1])
