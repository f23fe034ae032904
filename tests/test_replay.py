"""What is drawn from a replay, by hand: n-step rewards, late labels, what was overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from embodied.errors import UserError
from embodied.replay import Replay
from tests.toys import through_disk

NOISE = torch.Generator()


def filled(
    replay: Replay | None = None, rows: int = 6, first: int = 0, worlds: int = 2, **changes: Any
) -> Replay:
    """Steps that say who they are: obs 100 t + n, next 100 (t + 1) + n, channel "a" t + n / 10."""
    replay = Replay(1000, worlds, 1, 1) if replay is None else replay
    t = torch.arange(first, first + rows)[:, None].expand(rows, worlds)
    n = torch.arange(worlds).expand(rows, worlds)
    step = {
        "step_id": t * worlds + n,
        "obs": (100.0 * t + n)[..., None],
        "action": (0.01 * t)[..., None],
        "next_obs": (100.0 * (t + 1) + n)[..., None],
        "channels": {"a": t + n / 10.0},
        "terminated": torch.zeros(rows, worlds, dtype=torch.bool),
        "is_first": torch.zeros(rows, worlds, dtype=torch.bool),
        "valid": torch.ones(rows, worlds, dtype=torch.bool),
    }
    replay.add(**{**step, **changes})
    return replay


def ends(*steps: tuple[int, int], rows: int = 6) -> torch.Tensor:
    out = torch.zeros(rows, 2, dtype=torch.bool)
    for t, n in steps:
        out[t, n] = True
    return out


def drawn(replay: Replay, steps: int = 1, count: int = 400, gamma: float = 0.5, **weights: float):
    """By what was seen: reward, discount, and what followed."""
    batch = replay.draw(count, NOISE.manual_seed(0), weights, gamma, steps)
    rows = torch.stack([batch.reward, batch.discount, batch.next_obs[:, 0]], -1).tolist()
    return {int(obs): tuple(row) for obs, row in zip(batch.obs[:, 0].tolist(), rows, strict=True)}


def test_one_step_is_itself() -> None:
    told = drawn(filled())
    assert len(told) == 12  # all of them
    assert told[301] == pytest.approx((3.1, 0.5, 401))


def test_n_steps_by_hand() -> None:
    told = drawn(filled(), steps=3)
    assert told[100] == pytest.approx((1 + 0.5 * 2 + 0.25 * 3, 0.125, 400))
    # the newest row ends what is known: two steps, then one
    assert told[400] == pytest.approx((4 + 0.5 * 5, 0.25, 600))
    assert told[500] == pytest.approx((5, 0.5, 600))


def test_an_episodes_end_ends_them_and_termination_is_worth_nothing() -> None:
    # row 2 ends both worlds' episodes, the first by termination
    told = drawn(filled(terminated=ends((2, 0)), is_first=ends((3, 0), (3, 1))), steps=3)
    assert told[100] == pytest.approx((1 + 0.5 * 2, 0.0, 300))
    assert told[101] == pytest.approx((1.1 + 0.5 * 2.1, 0.25, 301))
    assert told[200][1] == 0.0 and told[201][1] == 0.5
    assert told[300] == pytest.approx((3 + 0.5 * 4 + 0.25 * 5, 0.125, 600))


def test_what_is_not_valid_is_neither_drawn_nor_run_over() -> None:
    told = drawn(filled(valid=~ends((3, 0))), steps=3)
    assert 300 not in told and len(told) == 11
    assert told[200] == pytest.approx((2, 0.5, 300))
    assert told[100] == pytest.approx((1 + 0.5 * 2, 0.25, 300))


def test_channels_are_weighed_when_they_are_drawn() -> None:
    replay = filled(channels={"a": torch.ones(6, 2), "b": torch.full((6, 2), 10.0)})
    assert drawn(replay)[0][0] == 11.0
    assert drawn(replay, a=3.0, b=0.1)[0][0] == pytest.approx(4.0)


def test_a_label_that_comes_late_is_waited_for() -> None:
    late = torch.full((6, 2), torch.nan)
    late[0] = 7.0
    replay = filled(channels={"a": torch.ones(6, 2), "b": late})
    assert set(drawn(replay)) == {0, 1}
    ids = torch.tensor([2 * 3 + 1, 2 * 4])  # row 3 of world 1, row 4 of world 0
    assert replay.relabel(ids, {"b": torch.tensor([5.0, 6.0])}) == 2
    told = drawn(replay, steps=2)
    assert set(told) == {0, 1, 301, 400}
    assert told[301] == (6.0, 0.5, 401)  # what follows has none yet
    with pytest.raises(UserError, match="no reward channel"):
        replay.relabel(ids, {"c": torch.zeros(2)})


def test_the_oldest_go_and_labels_of_them_are_ignored() -> None:
    replay = Replay(8, 2, 1, 1)  # four rows
    for first in (0, 3, 6):
        filled(replay, 3, first)
    assert len(replay) == 8
    assert set(drawn(replay)) == {500, 501, 600, 601, 700, 701, 800, 801}
    assert drawn(replay, steps=3)[701] == pytest.approx((7.1 + 0.5 * 8.1, 0.25, 901))
    ids = torch.tensor([2 * 4, 2 * 5, 2 * 8 + 1, 2 * 9])
    assert replay.relabel(ids, {"a": torch.tensor([-1.0, -2.0, -3.0, -4.0])}) == 2
    told = drawn(replay)
    assert (told[500][0], told[801][0]) == (-2.0, -3.0)
    filled(replay, 9, 9)  # more than it holds
    assert min(drawn(replay)) == 1400


def test_few_that_may_be_drawn_are_found_and_none_is_said() -> None:
    valid = torch.zeros(500, 2, dtype=torch.bool)
    valid[123, 1] = True
    replay = filled(rows=500, valid=valid)
    assert set(drawn(replay, count=5)) == {12301}
    with pytest.raises(UserError, match="no step of the replay is both"):
        drawn(filled(valid=valid[:6]))
    with pytest.raises(UserError, match="the replay is empty"):
        drawn(Replay(100, 2, 1, 1))
    with pytest.raises(UserError, match="give more"):
        Replay(100, 64, 1, 1)


def test_all_that_may_be_drawn_are_as_likely() -> None:
    batch = filled(valid=~ends((3, 0), (1, 1))).draw(20_000, NOISE.manual_seed(1), {}, 0.9)
    counts = torch.unique(batch.obs, return_counts=True)[1]
    assert len(counts) == 10 and (counts.float() / 2000 - 1.0).abs().max() < 0.1


@pytest.mark.parametrize("rows", [6, 500])
def test_saved_it_goes_on_as_it_was(rows: int, tmp_path: Path) -> None:
    replay, again = (Replay(200, 2, 1, 1) for _ in range(2))
    filled(replay, rows)
    again.load_state_dict(through_disk(replay.state_dict(), tmp_path))
    for one in (replay, again):
        filled(one, 30, rows)
    assert drawn(replay, 3) == drawn(again, 3)
    empty = Replay(200, 2, 1, 1)
    empty.load_state_dict(through_disk(Replay(200, 2, 1, 1).state_dict(), tmp_path / "empty"))
    assert len(empty) == 0
    with pytest.raises(UserError, match="saved replay does not fit: obs"):
        Replay(200, 2, 3, 1).load_state_dict(replay.state_dict())
