"""The grid of turn rewards: its figures by hand, and that every reward in it can be composed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import turn_rewards
from benchmarks.turn_rewards import (
    LEARNER,
    OWN,
    REWARDS,
    WORLDS,
    against,
    cells,
    figures,
    name_in,
    reached,
)
from embodied.config import compose_config


def test_figures_of_a_curve_by_hand() -> None:
    success = [0.5, 0.6, 0.8, 1.0, 0.9, 0.9, 1.0, 0.7]
    episodes = [64.0 * (k + 1) for k in range(9)]
    paid = [float(k) for k in range(9)]
    curve = {"success": success, "episodes": episodes[:8], "paid": paid[:8]}
    found = figures(curve)
    # of four at a time: 0.725, 0.825, 0.9, 0.95, 0.875
    assert found["to_90"] == 384.0 and found["reached_90"] == 1.0 and found["before"] == 0.5
    assert found["over_training"] == found["in_training"] == pytest.approx(0.8)
    never = figures({"success": [0.5] * 9, "episodes": episodes, "paid": paid})
    assert never["to_90"] == 576.0 and never["reached_90"] == 0.0
    assert never["paid_first"] == 3.5 and never["paid_last"] == 4.5 and never["first"] == 0.5
    # of two at a time: 0.55, 0.7, 0.9, 0.95, 0.9, 0.95, 0.85
    assert reached(curve, 0.7, 2) == 192.0 and reached(curve, 0.96, 2) is None
    assert reached({"success": [0.0, 0.0], "episodes": [64.0, 128.0]}, 0.0, 8) is None


def test_rewards_are_compared_seed_by_seed() -> None:
    def row(reward: str, seed: int, value: float) -> dict:
        return {"cell": {"reward": reward}, "seed": seed, "figures": {"unseen": value}}

    rows = [row("outcome", 0, 0.5), row("outcome", 1, 0.7), row("gated", 0, 0.6)]
    rows += [row("verified_turn", 0, 0.8), row("verified_turn", 1, 0.8), row("verified_turn", 2, 1)]
    found = against(rows, "unseen")
    assert found.keys() == {"verified_turn"}  # of the other there is one seed
    assert found["verified_turn"]["mean"] == pytest.approx(0.2)
    assert 0.1 <= found["verified_turn"]["low"] < found["verified_turn"]["high"] <= 0.3 + 1e-9


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("world", WORLDS)
def test_every_cell_can_be_composed(world: str, reward: str) -> None:
    given = next(cell["given"] for cell in cells(world) if cell["reward"] == reward)
    cfg = compose_config([f"env={name_in(world)}", *WORLDS[world]["size"], *LEARNER, *given])
    assert "outcome" in cfg.reward_model
    assert set(cfg.agent.process) <= set(cfg.reward_model)


def test_a_reward_has_settings_of_its_own_in_a_world() -> None:
    given = {cell["reward"]: cell["given"] for cell in cells("peckingorder")}
    own = OWN["peckingorder"]["verified_turn"]
    assert own and given["verified_turn"] == [*REWARDS["verified_turn"], *own]
    assert given["outcome"] == REWARDS["outcome"]


def test_a_start_is_shown_its_demonstrations_until_enough_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def imitate(given: list[str], dataset: object) -> None:
        asked.append(given)
        (tmp_path / "now").mkdir()
        (tmp_path / "now" / "which").write_text(str(len(asked)))

    shares = iter([0.0] * (turn_rewards.PATIENCE + 1) + [0.049, 0.05])
    monkeypatch.setattr(turn_rewards, "imitate", imitate)
    monkeypatch.setattr(turn_rewards, "at_random", lambda world, start: next(shares))
    turn_rewards.taught("peckingorder", 3, [], tmp_path)
    reads = f"agent.read={tmp_path}/babble.jsonl"
    again = turn_rewards.PATIENCE + 2
    patient = [False] * turn_rewards.PATIENCE
    assert [reads in given for given in asked] == [True, *patient, True, True]
    assert (tmp_path / "sft" / "which").read_text() == str(len(asked)) == str(again + 1)
    assert "seed=3" in asked[0] and "seed=1003" in asked[1]
    assert f"agent.start={tmp_path}/sft" in asked[1] and next(shares, None) is None


def test_a_start_is_made_once_where_nothing_is_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_rewards, "imitate", lambda given, dataset: (tmp_path / "now").mkdir())
    turn_rewards.taught("textworld", 0, [], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
