"""The grid of turn rewards: its figures by hand, and that every reward in it can be composed."""

from __future__ import annotations

import pytest

from benchmarks.turn_rewards import (
    LEARNER,
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
    own = WORLDS["peckingorder"]["given"]["verified_turn"]
    assert given["verified_turn"] == [*REWARDS["verified_turn"], *own]
    assert given["outcome"] == REWARDS["outcome"]
