"""`embodied bench`: the phases add up, and each is where its time went."""

from __future__ import annotations

import time

import pytest

from embodied.bench import Phases, bench, show
from embodied.errors import UserError

SMALL = ["num_envs=4", "updates=2", "agent.compile=false"]


def test_time_within_a_phase_counts_for_the_inner_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    phases = Phases()

    def passes(seconds: float) -> None:
        clock[0] += seconds

    passes(1.0)
    phases.restart()
    passes(2.0)
    with phases.phase("reset"):
        passes(3.0)
        with phases.phase("observe"):
            passes(5.0)
        passes(7.0)
    with phases.phase("observe"):
        passes(11.0)
    passes(13.0)
    phases.stop()
    assert phases.seconds == {"other": 15.0, "reset": 10.0, "observe": 16.0}


def test_a_watched_method_still_does_its_work() -> None:
    phases, numbers = Phases(), [3, 1, 2]

    class Bag:
        def pick(self, at: int) -> int:
            return numbers[at]

    bag, other = Bag(), Bag()
    phases.watch(bag, "pick", "pick")
    assert bag.pick(at=1) == 1 and phases.seconds["pick"] > 0.0
    del phases.seconds["pick"]
    assert other.pick(1) == 1 and "pick" not in phases.seconds


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_a_task_shows_all_its_phases(agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = bench(["env=pick_cube", f"agent={agent}", *SMALL])
    known = {"physics", "observe", "reward", "reset", "judge", "act", "update", "other", "total"}
    assert table.keys() == known - ({"reset"} - table.keys())
    phases = {name: row for name, row in table.items() if name != "total"}
    total = table["total"]["seconds"]
    assert sum(row["seconds"] for row in phases.values()) == pytest.approx(total)
    assert sum(row["share"] for row in phases.values()) == pytest.approx(1.0)
    assert table["physics"]["share"] > 0.0 and table["total"]["steps_per_s"] > 0.0
    show(table)
    assert "env steps/s" in capsys.readouterr().out


def test_an_env_with_worlds_of_its_own_has_fewer() -> None:
    table = bench(["env=gym", "env.id=Pendulum-v1", *SMALL])
    assert "physics" in table and "observe" not in table


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("agent=sb3_ppo", "owns its loop"), ("updates=0", "bench.updates=0")],
)
def test_what_cannot_be_measured(wrong: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench(["env=line_reach", "num_envs=2", wrong])
