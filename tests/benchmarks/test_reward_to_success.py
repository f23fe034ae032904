"""Which cells of the grid are run when some are named."""

from __future__ import annotations

from benchmarks.reward_to_success import MODELS, PIXELS, TASKS, cells, only


def test_named_tasks_and_rewards_alone_are_run() -> None:
    plan = cells()
    assert only(plan, ()) == plan
    assert {c["task"] for c in only(plan, ["open_drawer"])} == {"open_drawer"}
    some = only(plan, ["sparse", "hop"])
    assert {c["reward"] for c in some} == {"sparse", "hop"}
    assert {c["task"] for c in some} == set(TASKS)
    assert {c["reward"] for c in only(plan, ["pixels"])} == set(PIXELS)
    one = [c for c in only(plan, ["open_drawer", "sparse"]) if "budget" not in c]
    assert one == [{"task": "open_drawer", "reward": "sparse", "input": "state"}]


def test_every_model_is_tried_on_every_task() -> None:
    assert {(c["task"], c["reward"]) for c in cells()} >= {(t, m) for t in TASKS for m in MODELS}


def test_a_longer_budget_is_a_cell_of_its_own() -> None:
    longer = only(cells(), ["2.6_million"])
    assert {c["reward"] for c in longer} == {"sparse", "stage_aware", "hop"}
    assert all(c["task"] == "open_drawer" and c["input"] == "state" for c in longer)
    assert len(only(cells(), ["2.6_million", "sparse"])) == 1
