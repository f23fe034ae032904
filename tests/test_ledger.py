"""An account that outlives crashes and is shared by processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.ledger import Ledger


def test_by_hand(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a" / "ledger.jsonl", budget=10.0)
    first = ledger.reserve(6.0)
    assert first and ledger.spent == 6.0
    assert ledger.reserve(5.0) is None  # 11 in all
    ledger.settle(first, 2.5)
    assert ledger.spent == 2.5
    assert ledger.reserve(7.5) and ledger.reserve(0.1) is None
    again = Ledger(ledger.path, budget=10.0)
    assert again.spent == 10.0 and again.reserve(0.1) is None
    assert Ledger(ledger.path).reserve(100.0)  # no limit


def test_what_is_settled_twice_counts_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    name = ledger.reserve(1.0)
    assert name is not None
    for _ in range(2):
        ledger.settle(name, 0.5)
    assert ledger.spent == Ledger(ledger.path).spent == 0.5


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=6), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_torn_file_forgets_no_reservation(amounts: list[float], cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(path)
        names = [ledger.reserve(amount) for amount in amounts]
        reserved = path.stat().st_size
        for name in names:
            assert name is not None
            ledger.settle(name, 0.0)
        kept = reserved + cut % (path.stat().st_size - reserved + 1)
        with path.open("r+b") as file:
            file.truncate(kept)  # a crash while it was being settled
        told = Ledger(path)
        settled = path.read_bytes()[:kept].count(b'"settle"')
        whole = path.read_bytes()[reserved:kept].count(b"}\n")
        assert whole <= settled and told.spent == pytest.approx(sum(amounts[whole:]))
        assert told.reserve(1.0) and Ledger(path).spent == pytest.approx(sum(amounts[whole:]) + 1.0)


def test_processes_share_a_budget(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom embodied.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1], budget=50.0)\n"
        "print(sum(ledger.reserve(1.0) is not None for _ in range(40)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ledger.jsonl")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    given_out = [int(one.communicate()[0]) for one in both]
    assert sum(given_out) == 50
    assert Ledger(tmp_path / "ledger.jsonl").spent == 50.0


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="ledger .*folder: Is a directory"):
        Ledger(tmp_path / "folder")
    with pytest.raises(UserError, match="ledger.budget=-1"):
        Ledger(tmp_path / "ledger.jsonl", budget=-1.0)
